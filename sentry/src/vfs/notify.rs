//! Who watches which inode (`inotify(7)`), and telling them.
//!
//! Hooks are cheap while nobody watches: one load. An event on a file goes to those who watch its directory, with the
//! file's name, and to those who watch it. A watch keeps its inode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::{Level, Mutex};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileType, Inode, InodeKey};
use crate::vfs::path::PathRef;

/// Event bits (`include/uapi/linux/inotify.h`).
pub mod event {
    /// Read.
    pub const ACCESS: u32 = 0x1;
    /// Written, truncated.
    pub const MODIFY: u32 = 0x2;
    /// Attributes changed, links too.
    pub const ATTRIB: u32 = 0x4;
    /// Closed, was open for writing.
    pub const CLOSE_WRITE: u32 = 0x8;
    /// Closed, was not.
    pub const CLOSE_NOWRITE: u32 = 0x10;
    /// Opened.
    pub const OPEN: u32 = 0x20;
    /// A name went from the directory.
    pub const MOVED_FROM: u32 = 0x40;
    /// A name came to the directory.
    pub const MOVED_TO: u32 = 0x80;
    /// A name was made.
    pub const CREATE: u32 = 0x100;
    /// A name was removed.
    pub const DELETE: u32 = 0x200;
    /// The watched inode is gone.
    pub const DELETE_SELF: u32 = 0x400;
    /// The watched inode was renamed.
    pub const MOVE_SELF: u32 = 0x800;
    /// Its file system was unmounted.
    pub const UNMOUNT: u32 = 0x2000;
    /// The watch is gone.
    pub const IGNORED: u32 = 0x8000;
    /// The subject is a directory.
    pub const ISDIR: u32 = 0x4000_0000;
}

/// An event on its way.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// [`event`] bits.
    pub mask: u32,
    /// Pairs MOVED_FROM and MOVED_TO; else 0.
    pub cookie: u32,
    /// The name in the watched directory.
    pub name: Option<&'a [u8]>,
    /// Whether that name has been removed already.
    pub unlinked: bool,
}

/// What events go to.
pub trait Watcher: Send + Sync {
    /// An event for the watch `wd`.
    fn event(&self, wd: i32, event: &Event<'_>);
    /// The inode of watch `wd` is gone: so is the watch.
    fn gone(&self, wd: i32);
}

/// Who watches an inode, as what.
pub struct Watch {
    /// The inode, kept.
    pub inode: Arc<dyn Inode>,
    /// Which it is.
    pub key: InodeKey,
    /// Its number for the watcher.
    pub wd: i32,
    /// The watcher.
    pub watcher: Weak<dyn Watcher>,
}

/// All watches of a kernel.
pub struct Watches {
    count: AtomicUsize,
    cookie: AtomicU32,
    by_inode: Mutex<HashMap<InodeKey, Vec<Arc<Watch>>>>,
}

impl Default for Watches {
    fn default() -> Self {
        Watches {
            count: AtomicUsize::new(0),
            cookie: AtomicU32::new(0),
            by_inode: Mutex::new(Level::Watches, HashMap::new()),
        }
    }
}

impl Watches {
    /// Whether nobody watches anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_idle()
    }

    /// A number to pair the two halves of a rename.
    #[must_use]
    pub fn cookie(&self) -> u32 {
        self.cookie.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
    }

    /// Adds a watch.
    pub fn add(&self, watch: Arc<Watch>) {
        self.by_inode.lock().entry(watch.key).or_default().push(watch);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes a watch.
    pub fn remove(&self, watch: &Arc<Watch>) {
        let mut table = self.by_inode.lock();
        let Some(list) = table.get_mut(&watch.key) else { return };
        let removed = list.iter().position(|w| Arc::ptr_eq(w, watch)).map(|at| list.remove(at));
        if list.is_empty() {
            table.remove(&watch.key);
        }
        drop(table);
        // Dropped outside the lock: it may be the last to keep its inode.
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn of(&self, key: InodeKey) -> Vec<Arc<Watch>> {
        self.by_inode.lock().get(&key).cloned().unwrap_or_default()
    }

    /// Tells those who watch the inode `key`.
    pub fn send(&self, key: InodeKey, event: &Event<'_>) {
        for watch in self.of(key) {
            if let Some(watcher) = watch.watcher.upgrade() {
                watcher.event(watch.wd, event);
            }
        }
    }

    /// The inode `key` is no more.
    pub fn inode_gone(&self, key: InodeKey) {
        let watches = {
            let mut table = self.by_inode.lock();
            table.remove(&key).unwrap_or_default()
        };
        self.count.fetch_sub(watches.len(), Ordering::AcqRel);
        for watch in watches {
            if let Some(watcher) = watch.watcher.upgrade() {
                watcher.event(watch.wd, &simple(event::DELETE_SELF));
                watcher.gone(watch.wd);
            }
        }
    }

    /// The file system of device `dev` is unmounted for good.
    pub fn unmounted(&self, dev: u64) {
        if self.is_idle() {
            return;
        }
        let mut watches = Vec::new();
        {
            let mut table = self.by_inode.lock();
            table.retain(|key, list| {
                if key.dev == dev {
                    watches.append(list);
                }
                key.dev != dev
            });
        }
        self.count.fetch_sub(watches.len(), Ordering::AcqRel);
        for watch in watches {
            if let Some(watcher) = watch.watcher.upgrade() {
                watcher.event(watch.wd, &simple(event::UNMOUNT));
                watcher.gone(watch.wd);
            }
        }
    }
}

fn simple(mask: u32) -> Event<'static> {
    Event { mask, cookie: 0, name: None, unlinked: false }
}

fn dir_bit(inode: &dyn Inode) -> u32 {
    if inode.attr().kind == FileType::Directory { event::ISDIR } else { 0 }
}

impl PathRef {
    /// Something happened to what lies here: tells the watchers of its directory and its own.
    pub fn notify(&self, mask: u32) {
        let watches = &self.mount.watches;
        if watches.is_idle() {
            return;
        }
        let mask = mask | dir_bit(self.inode().as_ref());
        if let Some(parent) = self.dentry.parent() {
            let name = self.dentry.name();
            let event = Event { mask, cookie: 0, name: Some(&name), unlinked: self.dentry.is_deleted() };
            watches.send(parent.inode().attr().key, &event);
        }
        watches.send(self.inode().attr().key, &simple(mask));
    }

    /// Something happened to the inode, apart from its name.
    pub fn notify_self(&self, mask: u32) {
        if !self.mount.watches.is_idle() {
            self.mount.watches.send(self.inode().attr().key, &simple(mask));
        }
    }

    /// A name in this directory was made.
    pub fn notify_created(&self, name: &[u8], inode: &dyn Inode) {
        self.notify_entry(event::CREATE | dir_bit(inode), 0, name);
    }

    /// The name `name` in this directory changed, as `mask` says.
    pub fn notify_entry(&self, mask: u32, cookie: u32, name: &[u8]) {
        let watches = &self.mount.watches;
        if !watches.is_idle() {
            let event = Event { mask, cookie, name: Some(name), unlinked: false };
            watches.send(self.inode().attr().key, &event);
        }
    }

    /// The name `name` of `victim` in this directory was removed.
    pub fn notify_removed(&self, name: &[u8], victim: &Arc<Dentry>) {
        let watches = &self.mount.watches;
        if watches.is_idle() {
            return;
        }
        let is_dir = dir_bit(victim.inode().as_ref());
        if is_dir == 0 {
            watches.send(victim.inode().attr().key, &simple(event::ATTRIB));
        }
        // The inode goes before its directory hears of it (d_delete_notify).
        victim.notify_if_gone(watches);
        self.notify_entry(event::DELETE | is_dir, 0, name);
    }

    /// A rename: `name` here is `new_name` in `new_dir` now; `replaced` lost its name.
    pub fn notify_renamed(
        &self,
        (name, moved): (&[u8], &Arc<Dentry>),
        (new_dir, new_name): (&PathRef, &[u8]),
        replaced: Option<&Arc<Dentry>>,
    ) {
        let watches = &self.mount.watches;
        if watches.is_idle() {
            return;
        }
        let (cookie, is_dir) = (watches.cookie(), dir_bit(moved.inode().as_ref()));
        self.notify_entry(event::MOVED_FROM | is_dir, cookie, name);
        new_dir.notify_entry(event::MOVED_TO | is_dir, cookie, new_name);
        if let Some(gone) = replaced.filter(|g| dir_bit(g.inode().as_ref()) == 0) {
            watches.send(gone.inode().attr().key, &simple(event::ATTRIB));
        }
        watches.send(moved.inode().attr().key, &simple(event::MOVE_SELF));
        if let Some(gone) = replaced {
            gone.notify_if_gone(watches);
        }
    }
}

impl Dentry {
    /// Ends the watches of an inode that has lost its last name and is not open.
    pub fn notify_if_gone(&self, watches: &Watches) {
        if !watches.is_idle() && self.opens() == 0 {
            let attr = self.inode().attr();
            if attr.nlink == 0 {
                watches.inode_gone(attr.key);
            }
        }
    }
}
