//! Mounts: which file system covers which place.

pub mod saved;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;

use crate::sync::{Level, Mutex, RwLock};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::Inode;
use crate::vfs::notify::Watches;
use crate::vfs::path::PathRef;

bitflags::bitflags! {
    /// Per-mount flags, with the values of `mount(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        /// Nothing can be written.
        const RDONLY = 1;
        /// Set-id bits and file capabilities mean nothing.
        const NOSUID = 2;
        /// Devices cannot be opened.
        const NODEV = 4;
        /// Nothing can be executed.
        const NOEXEC = 8;
        /// Access times stay.
        const NOATIME = 1024;
        /// Access times of directories stay.
        const NODIRATIME = 2048;
        /// Access times follow changes only.
        const RELATIME = 1 << 21;
        /// Access times always follow.
        const STRICTATIME = 1 << 24;
    }
}

/// A file system that is mounted somewhere.
pub struct SuperBlock {
    /// Its type, such as `tmpfs`.
    pub fstype: &'static str,
    /// What was given as its device.
    pub source: Vec<u8>,
    /// Its options, as `/proc/mounts` shows them behind `rw`; may be empty.
    pub options: String,
    /// `st_dev` of its inodes.
    pub dev: u64,
    /// Read-only as a whole.
    pub readonly: bool,
    /// Its root directory.
    pub root: Arc<Dentry>,
    /// Called when the last use of it is gone.
    on_drop: Option<Box<dyn Fn() + Send + Sync>>,
}

impl SuperBlock {
    /// A mounted file system with this root.
    #[must_use]
    pub fn new(fstype: &'static str, source: &[u8], options: String, readonly: bool, root: Arc<dyn Inode>) -> Self {
        let dev = root.attr().key.dev;
        let root = Dentry::root(root);
        SuperBlock { fstype, source: source.to_vec(), options, dev, readonly, root, on_drop: None }
    }

    /// Calls `f` when the last use is gone, so that a file system which keeps itself alive can let go.
    #[must_use]
    pub fn on_drop(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_drop = Some(Box::new(f));
        self
    }
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        self.root.release_below();
        if let Some(f) = &self.on_drop {
            f();
        }
    }
}

/// A (part of a) file system, attached to the tree.
pub struct Mount {
    /// Names it in `/proc/self/mountinfo` and `statx`.
    pub id: u32,
    /// What its place shows: the file system's root or, for a bind mount, a part of it.
    pub root: Arc<Dentry>,
    /// The file system.
    pub sb: Arc<SuperBlock>,
    /// Who watches what in it, or anywhere.
    pub watches: Arc<Watches>,
    flags: AtomicU32,
    /// The place it covers; `None` for the root, what is not attached yet, or not any more.
    place: Mutex<Option<PathRef>>,
}

impl Mount {
    /// Its flags now.
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes its flags (`MS_REMOUNT | MS_BIND`).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Whether nothing can be written through it.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.sb.readonly || self.flags().contains(MountFlags::RDONLY)
    }

    /// The place it covers.
    #[must_use]
    pub fn place(&self) -> Option<PathRef> {
        self.place.lock().clone()
    }

    /// Its root as a place.
    #[must_use]
    pub fn root_path(self: &Arc<Self>) -> PathRef {
        PathRef { mount: self.clone(), dentry: self.root.clone() }
    }
}

#[derive(Default)]
struct Table {
    /// By the place they cover: mount id and dentry address (which a mount keeps alive).
    by_place: HashMap<(u32, usize), Arc<Mount>>,
    root: Option<Arc<Mount>>,
}

impl Table {
    /// Appends what lies on the mounts in `all`, and on those.
    fn extend_below(&self, all: &mut Vec<Arc<Mount>>) {
        let mut by_parent: HashMap<u32, Vec<&Arc<Mount>>> = HashMap::new();
        for ((parent, _), mount) in &self.by_place {
            by_parent.entry(*parent).or_default().push(mount);
        }
        let mut next = 0;
        while let Some(above) = all.get(next) {
            let id = above.id;
            let mut children: Vec<_> = by_parent.remove(&id).unwrap_or_default();
            children.sort_by_key(|m| m.id);
            all.extend(children.into_iter().cloned());
            next += 1;
        }
    }

    /// Takes `gone` out; the answer is dropped after the lock.
    fn remove(&mut self, gone: &[Arc<Mount>]) -> Vec<(PathRef, Option<Arc<Mount>>)> {
        let taken = gone.iter().filter_map(|m| m.place.lock().take());
        let places: Vec<PathRef> = taken.collect();
        let mut out = Vec::with_capacity(places.len());
        for place in places {
            let mount = self.by_place.remove(&key(&place));
            place.dentry.remove_mount();
            out.push((place, mount));
        }
        out
    }
}

fn key(place: &PathRef) -> (u32, usize) {
    (place.mount.id, Arc::as_ptr(&place.dentry) as usize)
}

/// Most mounts at a time (`fs.mount-max` is larger; these are a sandbox's own).
const MOUNT_MAX: usize = 8192;

/// All mounts of a kernel, of all namespaces. Clones are the same table.
#[derive(Clone)]
pub struct MountTable {
    table: Arc<RwLock<Table>>,
    next_id: Arc<AtomicU32>,
    /// Who watches what.
    pub watches: Arc<Watches>,
}

impl Default for MountTable {
    fn default() -> Self {
        MountTable {
            table: Arc::new(RwLock::new(Level::Mounts, Table::default())),
            next_id: Arc::new(AtomicU32::new(1)),
            watches: Arc::default(),
        }
    }
}

impl MountTable {
    /// A mount that is not attached yet.
    #[must_use]
    pub fn detached(&self, sb: Arc<SuperBlock>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (flags, place) = (AtomicU32::new(flags.bits()), Mutex::new(Level::Leaf, None));
        Arc::new(Mount { id, root, sb, watches: self.watches.clone(), flags, place })
    }

    /// A mount with the number that it had when it was saved.
    #[must_use]
    pub fn detached_as(&self, id: u32, sb: Arc<SuperBlock>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
        let (flags, place) = (AtomicU32::new(flags.bits()), Mutex::new(Level::Leaf, None));
        Arc::new(Mount { id, root, sb, watches: self.watches.clone(), flags, place })
    }

    /// The next number of a mount.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// Makes `mount` the root of the tree.
    pub fn set_root(&self, mount: Arc<Mount>) {
        let old = self.table.write().root.replace(mount);
        drop(old);
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Option<Arc<Mount>> {
        self.table.read().root.clone()
    }

    /// What is mounted on `place`.
    #[must_use]
    pub fn at(&self, place: &PathRef) -> Option<Arc<Mount>> {
        if !place.dentry.is_mountpoint() {
            return None;
        }
        self.table.read().by_place.get(&key(place)).cloned()
    }

    /// Covers `place` (the topmost one: nothing is mounted there) with `mount`.
    ///
    /// # Errors
    /// `EBUSY` where something is mounted there; `ENOSPC` past the limit; `ENOENT` where the place was removed.
    pub fn attach(&self, mount: &Arc<Mount>, place: PathRef) -> Result<(), Errno> {
        let mut table = self.table.write();
        if table.by_place.len() >= MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        if place.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if table.by_place.contains_key(&key(&place)) {
            return Err(Errno::EBUSY);
        }
        table.by_place.insert(key(&place), mount.clone());
        place.dentry.add_mount();
        *mount.place.lock() = Some(place);
        Ok(())
    }

    /// Uncovers the place of `mount`; with what is mounted below it only where `lazy`.
    ///
    /// # Errors
    /// `EINVAL` where it is not attached; `EBUSY` where others lie on it.
    pub fn detach(&self, mount: &Arc<Mount>, lazy: bool) -> Result<(), Errno> {
        let mut table = self.table.write();
        if !table.by_place.values().any(|m| Arc::ptr_eq(m, mount)) {
            return Err(Errno::EINVAL);
        }
        let mut gone = vec![mount.clone()];
        table.extend_below(&mut gone);
        if gone.len() > 1 && !lazy {
            return Err(Errno::EBUSY);
        }
        let places = table.remove(&gone);
        drop(table);
        drop(places);
        Ok(())
    }

    /// Moves an attached mount to another place.
    ///
    /// # Errors
    /// `EINVAL` where it is not attached; as [`MountTable::attach`].
    pub fn relocate(&self, mount: &Arc<Mount>, place: PathRef) -> Result<(), Errno> {
        let mut table = self.table.write();
        let old = mount.place.lock().take().ok_or(Errno::EINVAL)?;
        table.by_place.remove(&key(&old));
        old.dentry.remove_mount();
        table.by_place.insert(key(&place), mount.clone());
        place.dentry.add_mount();
        *mount.place.lock() = Some(place);
        drop(table);
        drop(old);
        Ok(())
    }

    /// `pivot_root(2)`: `new` is on top, the old root covers `put_old`. The caller notes the new root.
    ///
    /// # Errors
    /// `EINVAL` where `new` is not attached.
    pub fn pivot(&self, old_root: &Arc<Mount>, new: &Arc<Mount>, put_old: PathRef) -> Result<(), Errno> {
        let mut table = self.table.write();
        let old_place = new.place.lock().take().ok_or(Errno::EINVAL)?;
        table.by_place.remove(&key(&old_place));
        old_place.dentry.remove_mount();
        table.by_place.insert(key(&put_old), old_root.clone());
        put_old.dentry.add_mount();
        *old_root.place.lock() = Some(put_old);
        drop(table);
        drop(old_place);
        Ok(())
    }

    /// The mounts that lie on `mount` and on those, parents before children.
    #[must_use]
    pub fn below(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut all = vec![mount.clone()];
        let table = self.table.read();
        table.extend_below(&mut all);
        drop(table);
        all.remove(0);
        all
    }

    /// Takes a whole tree apart, whose topmost mount `root` is (the end of a namespace).
    pub fn dissolve(&self, root: &Arc<Mount>) {
        let mut all = vec![root.clone()];
        let mut table = self.table.write();
        table.extend_below(&mut all);
        let places = table.remove(&all);
        drop(table);
        drop(places);
    }

    /// All mounts, parents before children, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Mount>> {
        let table = self.table.read();
        let mut all: Vec<_> = table.root.iter().chain(table.by_place.values()).cloned().collect();
        drop(table);
        all.sort_by_key(|m| m.id);
        all
    }
}
