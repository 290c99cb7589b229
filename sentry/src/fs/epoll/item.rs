//! One interest of an epoll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::fs::epoll::{Epoll, Report};
use crate::kernel::wait::{Events, WaitGuard, WaitQueue, WaitTarget};
use crate::sync::{Level, Mutex};
use crate::vfs::{FdNum, FileDescription};

/// EPOLLONESHOT.
const ONESHOT: u32 = 1 << 30;
/// EPOLLET.
const EDGE: u32 = 1 << 31;
/// EPOLLWAKEUP and EPOLLEXCLUSIVE: accepted, of no consequence to what is reported.
const HINTS: u32 = (1 << 29) | (1 << 28);

/// Names an interest: the number it was added by and the open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The descriptor number at the time.
    pub fd: FdNum,
    file: usize,
}

impl Key {
    /// The key of `file` under `fd`.
    #[must_use]
    pub fn new(fd: FdNum, file: &Arc<FileDescription>) -> Self {
        Key { fd, file: Arc::as_ptr(file) as usize }
    }
}

/// What a user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Interest {
    /// Events and EPOLL flags.
    pub events: u32,
    /// Handed back with every report.
    pub data: u64,
}

pub struct Item {
    epoll: Weak<Epoll>,
    file: Weak<FileDescription>,
    interest: Mutex<Interest>,
    guard: Mutex<Option<WaitGuard>>,
    listed: AtomicBool,
    retired: AtomicBool,
}

/// What the file's wait queue holds: weak, or the queue inside the file would keep the item, and the item the epoll.
struct Watcher(Weak<Item>);

impl WaitTarget for Watcher {
    fn wake(&self, events: Events) {
        let Some(item) = self.0.upgrade() else { return };
        let Some(epoll) = item.epoll.upgrade() else { return };
        if item.wants(events) {
            epoll.list(&item);
            epoll.queue.wake(Events::READABLE);
        }
    }
}

impl Item {
    pub fn new(epoll: &Arc<Epoll>, file: &Arc<FileDescription>, interest: Interest) -> Arc<Self> {
        Arc::new(Item {
            epoll: epoll.weak(),
            file: Arc::downgrade(file),
            interest: Mutex::new(Level::Leaf, interest),
            guard: Mutex::new(Level::Leaf, None),
            listed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        })
    }

    pub fn enlist(self: &Arc<Self>, queue: &WaitQueue) {
        let guard = queue.enlist(Events::all(), Arc::new(Watcher(Arc::downgrade(self))));
        *self.guard.lock() = Some(guard);
    }

    /// Taken out of the interest list: never reported again.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        let guard = self.guard.lock().take();
        drop(guard);
    }

    pub fn file(&self) -> Option<Arc<FileDescription>> {
        self.file.upgrade()
    }

    /// Whether the file still exists; takes no reference, so it is safe under locks.
    pub fn is_alive(&self) -> bool {
        self.file.strong_count() > 0
    }

    pub fn interest(&self) -> Interest {
        *self.interest.lock()
    }

    pub fn set_interest(&self, interest: Interest) {
        *self.interest.lock() = interest;
    }

    /// The events asked for; none while a one-shot is spent.
    fn mask(&self) -> Events {
        let bits = self.interest().events & !(ONESHOT | EDGE | HINTS);
        if bits == 0 && self.interest().events & ONESHOT != 0 {
            return Events::default();
        }
        Events::from_bits_retain(bits) | Events::ALWAYS
    }

    fn wants(&self, events: Events) -> bool {
        !self.retired.load(Ordering::SeqCst) && self.mask().intersects(events)
    }

    /// Marks the item as listed; `false` where it was.
    pub fn mark_listed(&self) -> bool {
        !self.listed.swap(true, Ordering::SeqCst)
    }

    pub fn unlist(&self) {
        self.listed.store(false, Ordering::SeqCst);
    }

    fn poll(&self) -> Events {
        let Some(file) = self.file() else { return Events::default() };
        file.ops.poll(&file).intersection(self.mask())
    }

    pub fn is_ready(&self) -> bool {
        !self.retired.load(Ordering::SeqCst) && !self.poll().is_empty()
    }

    /// What is true now, if anything, and whether the item stays listed (level-triggered). Spends a one-shot.
    pub fn look(&self) -> Option<(Report, bool)> {
        if self.retired.load(Ordering::SeqCst) {
            return None;
        }
        let Some(_file) = self.file() else {
            self.gone();
            return None;
        };
        let events = self.poll();
        if events.is_empty() {
            return None;
        }
        let mut interest = self.interest.lock();
        let report = Report { events, data: interest.data };
        if interest.events & ONESHOT != 0 {
            interest.events &= ONESHOT | EDGE | HINTS;
            return Some((report, false));
        }
        Some((report, interest.events & EDGE == 0))
    }

    fn gone(&self) {
        if let Some(epoll) = self.epoll.upgrade() {
            let key = epoll.lists.lock().items.iter().find(|(_, i)| std::ptr::eq(&***i, self)).map(|(k, _)| *k);
            if let Some(key) = key {
                epoll.forget(&key);
            }
        }
    }
}
