//! One queue of absolute deadlines for the whole kernel.
//!
//! The reactor arms a host timer for the earliest. Cancelling does not disarm it: a stale expiry finds nothing due
//! and costs one wake-up at most.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::sync::{Level, Mutex};

/// Something that happens at a time.
pub trait TimerTarget: Send + Sync {
    /// The deadline has passed. Must not block. May add timers.
    fn expired(&self);
}

#[derive(Default)]
struct Queue {
    next_id: u64,
    due: BTreeMap<(i64, u64), Arc<dyn TimerTarget>>,
}

/// Pending deadlines, in kernel monotonic nanoseconds.
pub struct Timers {
    queue: Arc<Mutex<Queue>>,
    arm: Box<dyn Fn(i64) + Send + Sync>,
}

/// Keeps a timer pending; dropping it cancels.
pub struct TimerHandle {
    queue: Weak<Mutex<Queue>>,
    key: (i64, u64),
}

impl Timers {
    /// An empty queue; `arm` is called with every new earliest deadline.
    pub fn new(arm: impl Fn(i64) + Send + Sync + 'static) -> Self {
        Timers { queue: Arc::new(Mutex::new(Level::Timers, Queue::default())), arm: Box::new(arm) }
    }

    /// Calls `target` once at `deadline` (kernel monotonic nanoseconds; past means at once), unless cancelled.
    #[must_use]
    pub fn add(&self, deadline: i64, target: Arc<dyn TimerTarget>) -> TimerHandle {
        let mut queue = self.queue.lock();
        let key = (deadline, queue.next_id);
        queue.next_id += 1;
        let earliest = queue.due.first_key_value().is_none_or(|(first, _)| key < *first);
        queue.due.insert(key, target);
        drop(queue);
        if earliest {
            (self.arm)(deadline);
        }
        TimerHandle { queue: Arc::downgrade(&self.queue), key }
    }

    /// Fires all that is due at `now`; answers and arms the next deadline.
    pub fn expire(&self, now: i64) -> Option<i64> {
        loop {
            let mut queue = self.queue.lock();
            let entry = queue.due.first_entry()?;
            let deadline = entry.key().0;
            if deadline > now {
                drop(queue);
                (self.arm)(deadline);
                return Some(deadline);
            }
            let target = entry.remove();
            drop(queue);
            target.expired();
        }
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let removed = queue.lock().due.remove(&self.key);
            drop(removed);
        }
    }
}
