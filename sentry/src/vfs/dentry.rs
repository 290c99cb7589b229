//! The names that have been looked up.
//!
//! A [`Dentry`] keeps its parent; a parent knows its children weakly. What keeps a dentry alive is use (a working
//! directory, an open file, a child, a mount) or the [`DentryCache`], which holds the most recently used ones and is
//! bounded. A dentry that is gone is looked up again in its file system.
//!
//! Lookups race with changes without a lock around both: a directory's `version` grows with every change, after the
//! file system has made it, and a lookup that saw an older version is not cached.

pub mod saved;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::{Level, Mutex};
use crate::vfs::inode::Inode;

/// A name in the tree and the inode behind it.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    place: Mutex<Place>,
    children: Mutex<Children>,
    /// How many mounts lie on it; the mount table knows which.
    mounts: AtomicU32,
    /// How many open files came by this name.
    opens: AtomicU32,
    referenced: AtomicBool,
    /// Itself, while the cache keeps it alive.
    kept: Mutex<Option<Arc<Dentry>>>,
    /// Without a name yet, and may get one (`O_TMPFILE` without `O_EXCL`).
    linkable: AtomicBool,
}

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Vec<u8>,
    deleted: bool,
}

#[derive(Default)]
struct Children {
    version: u64,
    map: HashMap<Box<[u8]>, Weak<Dentry>>,
}

impl Dentry {
    fn new(inode: Arc<dyn Inode>, parent: Option<Arc<Dentry>>, name: &[u8]) -> Arc<Self> {
        Arc::new(Dentry {
            inode,
            place: Mutex::new(Level::Leaf, Place { parent, name: name.to_vec(), deleted: false }),
            children: Mutex::new(Level::Leaf, Children::default()),
            mounts: AtomicU32::new(0),
            opens: AtomicU32::new(0),
            referenced: AtomicBool::new(false),
            kept: Mutex::new(Level::Leaf, None),
            linkable: AtomicBool::new(false),
        })
    }

    /// The root of a file system.
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::new(inode, None, b"/")
    }

    /// A name that is not cached: one of a directory that changes by itself, or an inode without a name.
    #[must_use]
    pub fn detached(inode: Arc<dyn Inode>, parent: Option<Arc<Dentry>>, name: &[u8]) -> Arc<Self> {
        Self::new(inode, parent, name)
    }

    /// The inode.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The directory it lies in; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.place.lock().name.clone()
    }

    /// Whether its name has been removed.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.place.lock().deleted
    }

    /// Notes that a name given to it makes it part of the tree (`linkat` of an O_TMPFILE).
    pub fn set_deleted(&self, deleted: bool) {
        self.place.lock().deleted = deleted;
    }

    /// Whether an inode without links may be given a name by way of this.
    #[must_use]
    pub fn is_linkable(&self) -> bool {
        self.linkable.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_linkable(&self, linkable: bool) {
        self.linkable.store(linkable, Ordering::Relaxed);
    }

    /// Whether `self` is `other` or lies below it, within one file system.
    #[must_use]
    pub fn is_within(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(self.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, other) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    /// Whether something is mounted on it, in some mount.
    #[must_use]
    pub fn is_mountpoint(&self) -> bool {
        self.mounts.load(Ordering::Acquire) > 0
    }

    /// How many open files came by this name.
    #[must_use]
    pub fn opens(&self) -> u32 {
        self.opens.load(Ordering::Acquire)
    }

    pub(super) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn closed(&self) {
        self.opens.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn add_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn remove_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
    }

    /// The cached child `name`, and the version to give [`Dentry::insert`] where there is none.
    pub fn cached(&self, name: &[u8]) -> Result<Arc<Dentry>, u64> {
        let children = self.children.lock();
        let child = children.map.get(name).and_then(Weak::upgrade);
        let version = children.version;
        drop(children);
        let child = child.ok_or(version)?;
        if !child.referenced.load(Ordering::Relaxed) {
            child.referenced.store(true, Ordering::Relaxed);
        }
        Ok(child)
    }

    /// Caches what a lookup found at `version`; `None` where the directory has changed since.
    pub fn insert(
        self: &Arc<Self>,
        cache: &DentryCache,
        name: &[u8],
        inode: Arc<dyn Inode>,
        version: u64,
    ) -> Option<Arc<Dentry>> {
        if !inode.cacheable() {
            return Some(Self::detached(inode, Some(self.clone()), name));
        }
        let fresh = Self::new(inode, Some(self.clone()), name);
        let mut children = self.children.lock();
        if children.version != version {
            // `fresh` is dropped after the guard: its Drop takes the same lock.
            drop(children);
            return None;
        }
        if let Some(other) = children.map.get(name).and_then(Weak::upgrade) {
            drop(children);
            return Some(other);
        }
        children.map.insert(name.into(), Arc::downgrade(&fresh));
        drop(children);
        cache.keep(&fresh);
        Some(fresh)
    }

    /// Caches a name that was just made.
    pub fn added(self: &Arc<Self>, cache: &DentryCache, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let version = self.changed();
        let fallback = inode.clone();
        // Somebody may have removed the name already: then ours is a name of the past, but a file all the same.
        self.insert(cache, name, inode, version).unwrap_or_else(|| Self::detached(fallback, Some(self.clone()), name))
    }

    fn changed(&self) -> u64 {
        let mut children = self.children.lock();
        children.version += 1;
        children.version
    }

    /// Forgets a name that was just removed, or whose inode was replaced.
    pub fn removed(&self, name: &[u8]) {
        if let Some(gone) = self.take(name) {
            gone.forget();
        }
    }

    /// The name is gone, and so is the cache's reason to keep the inode.
    fn forget(&self) {
        self.place.lock().deleted = true;
        self.release();
    }

    /// The cache no longer keeps what lies below: the file system is not mounted any more.
    pub fn release_below(&self) {
        let children = |of: &Dentry| of.children.lock().map.values().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let mut next = children(self);
        while let Some(dentry) = next.pop() {
            next.extend(children(&dentry));
            dentry.release();
        }
    }

    /// The cache no longer keeps it.
    fn release(&self) {
        let kept = self.kept.lock().take();
        drop(kept);
    }

    fn take(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let mut children = self.children.lock();
        children.version += 1;
        let taken = children.map.remove(name);
        let alive = taken.as_ref().and_then(Weak::upgrade);
        drop(children);
        alive
    }

    fn put(self: &Arc<Self>, name: &[u8], child: &Arc<Dentry>) {
        let old = {
            let mut place = child.place.lock();
            place.name = name.to_vec();
            place.parent.replace(self.clone())
        };
        let mut children = self.children.lock();
        children.version += 1;
        children.map.insert(name.into(), Arc::downgrade(child));
        drop(children);
        drop(old);
    }

    /// Follows a rename that was just made: `name` here is `new_name` in `new_dir` now; what that was is gone, or
    /// (`exchange`) is `name` here.
    pub fn renamed(self: &Arc<Self>, name: &[u8], new_dir: &Arc<Dentry>, new_name: &[u8], exchange: bool) {
        let moved = self.take(name);
        let replaced = new_dir.take(new_name);
        match &replaced {
            Some(other) if exchange => self.put(name, other),
            Some(gone) => gone.forget(),
            None => {}
        }
        if let Some(moved) = &moved {
            new_dir.put(new_name, moved);
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        let this: *const Dentry = self;
        let mut gone = this;
        let mut next = {
            let mut place = self.place.lock();
            place.parent.take().map(|parent| (parent, std::mem::take(&mut place.name)))
        };
        // A loop, not recursion: a chain of directories may be as long as a guest cares to make it.
        while let Some((parent, name)) = next.take() {
            {
                let mut children = parent.children.lock();
                if children.map.get(name.as_slice()).is_some_and(|w| std::ptr::eq(w.as_ptr(), gone)) {
                    children.map.remove(name.as_slice());
                }
            }
            gone = Arc::as_ptr(&parent);
            if let Some(last) = Arc::into_inner(parent) {
                let mut place = last.place.lock();
                next = place.parent.take().map(|up| (up, std::mem::take(&mut place.name)));
            }
        }
    }
}

/// Most dentries that are kept without being used.
const CAPACITY: usize = 4096;

/// Keeps recently used dentries alive: a clock with second chances. A kept dentry holds itself, so that a removed name
/// lets go of its inode at once.
pub struct DentryCache {
    ring: Mutex<VecDeque<Weak<Dentry>>>,
}

impl Default for DentryCache {
    fn default() -> Self {
        DentryCache { ring: Mutex::new(Level::Leaf, VecDeque::new()) }
    }
}

impl DentryCache {
    fn keep(&self, dentry: &Arc<Dentry>) {
        *dentry.kept.lock() = Some(dentry.clone());
        let mut ring = self.ring.lock();
        ring.push_back(Arc::downgrade(dentry));
        // Nothing is dropped under the lock: it may be the last reference.
        let mut seen = Vec::new();
        // Chances are bounded too, so that a full ring of referenced dentries costs little.
        for chance in 0..8 {
            if ring.len() <= CAPACITY {
                break;
            }
            let Some(oldest) = ring.pop_front().and_then(|weak| weak.upgrade()) else { continue };
            let again = chance < 7 && oldest.referenced.swap(false, Ordering::Relaxed);
            if again {
                ring.push_back(Arc::downgrade(&oldest));
            }
            seen.push((oldest, again));
            if !again {
                break;
            }
        }
        drop(ring);
        seen.iter().filter(|(_, again)| !again).for_each(|(oldest, _)| oldest.release());
    }

    /// Lets go of everything that is not in use.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.ring.lock());
        all.iter().filter_map(Weak::upgrade).for_each(|dentry| dentry.release());
    }
}

impl Drop for DentryCache {
    fn drop(&mut self) {
        self.clear();
    }
}
