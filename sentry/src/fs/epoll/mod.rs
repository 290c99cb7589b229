//! `epoll(7)`: an interest list, and a ready list that wake-ups fill.
//!
//! Every interest is enlisted with its file's wait queue for as long as it exists. A wake-up puts it on the ready
//! list; `wait` polls what lies there, reports what is true, and puts level-triggered interests back. An interest
//! holds its file weakly: closing the last descriptor removes it.

mod item;
pub mod saved;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::epoll::item::Item;
pub use crate::fs::epoll::item::{Interest, Key};
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FdNum, FileDescription, FileOps, OpenFlags};

/// Deepest chain of epolls that watch epolls (`EP_MAX_NESTS`).
const MAX_NESTS: usize = 4;
/// Most interests of one epoll: each costs the sentry some 300 bytes.
const MAX_ITEMS: usize = 1 << 18;

#[derive(Default)]
struct Lists {
    items: BTreeMap<Key, Arc<Item>>,
    ready: VecDeque<Arc<Item>>,
}

/// An epoll instance.
pub struct Epoll {
    lists: Mutex<Lists>,
    queue: WaitQueue,
}

/// What the description of an epoll holds.
pub struct EpollFile(pub Arc<Epoll>);

/// One reported event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is true.
    pub events: Events,
    /// The user's data.
    pub data: u64,
}

impl Epoll {
    /// An empty epoll, as an open file.
    #[must_use]
    pub fn open(flags: OpenFlags) -> Arc<FileDescription> {
        let epoll = Epoll { lists: Mutex::new(Level::Epoll, Lists::default()), queue: WaitQueue::new() };
        FileDescription::anonymous(Arc::new(EpollFile(Arc::new(epoll))), flags | OpenFlags::RDWR)
    }

    /// The epoll behind an open file.
    ///
    /// # Errors
    /// `EINVAL` where it is something else.
    pub fn of(file: &FileDescription) -> Result<Arc<Epoll>, Errno> {
        file.ops.as_any().downcast_ref::<EpollFile>().map(|f| f.0.clone()).ok_or(Errno::EINVAL)
    }

    /// Woken when something becomes ready.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// `EEXIST`; `EPERM` for files that are always ready; `EINVAL` for the epoll itself; `ELOOP` for a cycle or too
    /// deep a chain; `ENOSPC` past the limit of interests.
    pub fn add(self: &Arc<Self>, fd: FdNum, file: &Arc<FileDescription>, interest: Interest) -> Result<(), Errno> {
        let queue = file.ops.wait_queue().ok_or(Errno::EPERM)?;
        if let Ok(inner) = Epoll::of(file)
            && (Arc::ptr_eq(&inner, self) || inner.reaches(self, MAX_NESTS))
        {
            return Err(if Arc::ptr_eq(&inner, self) { Errno::EINVAL } else { Errno::ELOOP });
        }
        let key = Key::new(fd, file);
        let item = {
            let mut lists = self.lists.lock();
            if lists.items.get(&key).is_some_and(|old| old.is_alive()) {
                return Err(Errno::EEXIST);
            }
            if lists.items.len() >= MAX_ITEMS {
                lists.items.retain(|_, item| item.is_alive());
                if lists.items.len() >= MAX_ITEMS {
                    return Err(Errno::ENOSPC);
                }
            }
            let item = Item::new(self, file, interest);
            lists.items.insert(key, item.clone());
            item
        };
        item.enlist(queue);
        self.check(&item);
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn modify(&self, fd: FdNum, file: &Arc<FileDescription>, interest: Interest) -> Result<(), Errno> {
        let item = self.lists.lock().items.get(&Key::new(fd, file)).cloned().ok_or(Errno::ENOENT)?;
        item.set_interest(interest);
        self.check(&item);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, fd: FdNum, file: &Arc<FileDescription>) -> Result<(), Errno> {
        let item = self.lists.lock().items.remove(&Key::new(fd, file)).ok_or(Errno::ENOENT)?;
        item.retire();
        Ok(())
    }

    /// Up to `max` events that are true now.
    #[must_use]
    pub fn collect(&self, max: usize) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut again = Vec::new();
        let mut budget = self.lists.lock().ready.len();
        while reports.len() < max && budget > 0 {
            budget -= 1;
            let Some(item) = self.lists.lock().ready.pop_front() else { break };
            // Off the list before the look: a wake-up from now on lists it again.
            item.unlist();
            let Some((report, level)) = item.look() else { continue };
            reports.push(report);
            if level {
                again.push(item);
            }
        }
        again.iter().for_each(|item| self.list(item));
        reports
    }

    /// Puts an item on the ready list.
    fn list(&self, item: &Arc<Item>) {
        let mut lists = self.lists.lock();
        if item.mark_listed() {
            lists.ready.push_back(item.clone());
        }
    }

    /// Lists the item if its file is ready right now.
    fn check(&self, item: &Arc<Item>) {
        if item.is_ready() {
            self.list(item);
            self.queue.wake(Events::READABLE);
        }
    }

    /// The epolls it watches.
    fn inner(&self) -> Vec<Arc<Epoll>> {
        let items: Vec<_> = self.lists.lock().items.values().cloned().collect();
        items.iter().filter_map(|item| item.file()).filter_map(|file| Epoll::of(&file).ok()).collect()
    }

    /// Whether this epoll watches `target`, directly or through others; too deep counts as yes. Each is looked at
    /// once a level, however many ways lead to it.
    fn reaches(&self, target: &Arc<Epoll>, depth: usize) -> bool {
        let mut level = self.inner();
        for _ in 0..depth {
            if level.iter().any(|e| Arc::ptr_eq(e, target)) {
                return true;
            }
            let mut next: Vec<_> = level.iter().flat_map(|e| e.inner()).collect();
            next.sort_unstable_by_key(|e| Arc::as_ptr(e) as usize);
            next.dedup_by(|a, b| Arc::ptr_eq(a, b));
            level = next;
        }
        !level.is_empty()
    }

    /// Whether something on the ready list still is. What is not leaves the list, so that nobody asks it again and
    /// again through epolls of epolls: a wake-up lists it anew.
    fn is_ready(&self) -> bool {
        let mut budget = self.lists.lock().ready.len();
        while budget > 0 {
            budget -= 1;
            let Some(item) = self.lists.lock().ready.pop_front() else { break };
            item.unlist();
            if item.is_ready() {
                let mut lists = self.lists.lock();
                if item.mark_listed() {
                    lists.ready.push_front(item.clone());
                }
                return true;
            }
        }
        false
    }

    /// Forgets the interests of a file that is gone.
    fn forget(&self, key: &Key) {
        let item = self.lists.lock().items.remove(key);
        drop(item);
    }

    fn weak(self: &Arc<Self>) -> Weak<Epoll> {
        Arc::downgrade(self)
    }

    /// Interests in `/proc/PID/fdinfo` form: descriptor, events, data.
    #[must_use]
    pub fn interests(&self) -> Vec<(i32, Interest)> {
        self.lists.lock().items.iter().map(|(key, item)| (key.fd.0, item.interest())).collect()
    }
}

impl FileOps for EpollFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Epoll(self.0.save(saver)))
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.0.is_ready() { Events::READABLE } else { Events::default() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:[eventpoll]".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
