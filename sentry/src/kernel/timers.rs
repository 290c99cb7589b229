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
    /// An empty queue; `arm` is called with every new earliest deadline, under the queue's lock.
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
        if earliest {
            // Under the lock, here and below: armings must not overtake each other.
            (self.arm)(deadline);
        }
        drop(queue);
        TimerHandle { queue: Arc::downgrade(&self.queue), key }
    }

    /// Fires all that is due at `now`; answers and arms the next deadline.
    pub fn expire(&self, now: i64) -> Option<i64> {
        loop {
            let mut queue = self.queue.lock();
            let entry = queue.due.first_entry()?;
            let deadline = entry.key().0;
            if deadline > now {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    struct Nothing;

    impl TimerTarget for Nothing {
        fn expired(&self) {}
    }

    #[test]
    fn what_is_armed_is_the_earliest_whoever_armed_last() {
        let armed = Arc::new(AtomicI64::new(i64::MAX));
        let told = armed.clone();
        let timers = Timers::new(move |deadline| {
            // As a preempted thread would be between the decision and the host call.
            std::thread::yield_now();
            told.store(deadline, Ordering::SeqCst);
        });
        let last = timers.add(1 << 40, Arc::new(Nothing));
        for round in 1..2000 {
            let earlier = std::thread::scope(|scope| {
                scope.spawn(|| timers.expire(round));
                scope.spawn(|| timers.add((1 << 40) - round, Arc::new(Nothing))).join().unwrap()
            });
            assert_eq!(armed.load(Ordering::SeqCst), (1 << 40) - round);
            drop(earlier);
        }
        drop(last);
    }
}
