//! Wait queues: how anything that becomes ready tells those who wait for it.
//!
//! The protocol has no lost wake-up: a waiter enlists first, *then* looks once more, then sleeps. A wake-up is a
//! hint to look again, never a promise.

use std::sync::Arc;

use crate::sync::{Level, Mutex};

bitflags::bitflags! {
    /// Readiness, with the bits of `poll(2)` (`include/uapi/linux/eventpoll.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        /// Data can be read.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Data can be written.
        const OUT = 0x004;
        /// An error; always reported.
        const ERR = 0x008;
        /// Hang-up; always reported.
        const HUP = 0x010;
        /// Descriptor not open (poll only).
        const NVAL = 0x020;
        /// Normal data.
        const RDNORM = 0x040;
        /// Priority band data.
        const RDBAND = 0x080;
        /// Normal data can be written.
        const WRNORM = 0x100;
        /// Priority data can be written.
        const WRBAND = 0x200;
        /// Peer shut its writing half.
        const RDHUP = 0x2000;
        /// Epoll's flags, passed through.
        const _ = !0;
    }
}

impl Events {
    /// IN with its alias.
    pub const READABLE: Events = Events::IN.union(Events::RDNORM);
    /// OUT with its alias.
    pub const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
    /// What `poll` reports unasked.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
}

/// Something that can be told to look again: a task, an epoll item, a host relay.
pub trait WaitTarget: Send + Sync {
    /// `events` may have become true. Called with no lock of the source held that is above [`Level::WaitQueue`]'s
    /// callers' own; must not block.
    fn wake(&self, events: Events);
}

struct Entry {
    events: Events,
    target: Arc<dyn WaitTarget>,
}

/// In order of `id`. Who left leaves a hole, so that leaving a long queue costs little; holes are closed when they
/// outnumber the waiters.
#[derive(Default)]
struct Entries {
    next: u64,
    list: Vec<(u64, Option<Entry>)>,
    holes: usize,
}

impl Entries {
    fn remove(&mut self, id: u64) -> Option<Entry> {
        let at = self.list.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let entry = self.list.get_mut(at)?.1.take();
        self.holes += 1;
        if self.holes * 2 > self.list.len() {
            self.list.retain(|(_, entry)| entry.is_some());
            self.holes = 0;
        }
        entry
    }
}

/// The waiters of one object. Clones are the same queue.
#[derive(Clone)]
pub struct WaitQueue(Arc<Mutex<Entries>>);

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue(Arc::new(Mutex::new(Level::WaitQueue, Entries::default())))
    }
}

impl WaitQueue {
    /// A queue without waiters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enlists `target` for `events` until the guard is dropped.
    pub fn enlist(&self, events: Events, target: Arc<dyn WaitTarget>) -> WaitGuard {
        let mut entries = self.0.lock();
        let id = entries.next;
        entries.next += 1;
        entries.list.push((id, Some(Entry { events: events | Events::ALWAYS, target })));
        WaitGuard { queue: self.clone(), id }
    }

    /// Tells all who wait for any of `events`.
    pub fn wake(&self, events: Events) {
        let targets: Vec<_> = {
            let entries = self.0.lock();
            let waiting = entries.list.iter().filter_map(|(_, e)| e.as_ref());
            waiting.filter(|e| e.events.intersects(events)).map(|e| e.target.clone()).collect()
        };
        targets.iter().for_each(|t| t.wake(events));
    }

    /// Whether anybody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().list.is_empty()
    }
}

/// Keeps a waiter enlisted.
#[must_use]
pub struct WaitGuard {
    queue: WaitQueue,
    id: u64,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let removed = self.queue.0.lock().remove(self.id);
        // Dropped outside the lock: the target may be the last owner of something that takes locks.
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Count(AtomicU32);
    impl WaitTarget for Count {
        fn wake(&self, _: Events) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_only_who_cares_and_stays() {
        let queue = WaitQueue::new();
        let (a, b) = (Arc::new(Count(AtomicU32::new(0))), Arc::new(Count(AtomicU32::new(0))));
        let keep = queue.enlist(Events::READABLE, a.clone());
        let gone = queue.enlist(Events::WRITABLE, b.clone());
        queue.wake(Events::IN);
        drop(gone);
        queue.wake(Events::OUT);
        queue.wake(Events::HUP);
        assert_eq!((a.0.load(Ordering::Relaxed), b.0.load(Ordering::Relaxed)), (2, 0));
        drop(keep);
        assert!(queue.is_empty());
    }
}
