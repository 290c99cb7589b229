//! Mount namespaces: each a tree of mounts of its own in the one table, copied at `unshare(CLONE_NEWNS)`.

pub mod saved;

use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;

use crate::sync::{Level, Mutex};
use crate::vfs::fs_context::FsState;
use crate::vfs::mount::{Mount, MountTable};
use crate::vfs::path::PathRef;

/// A mount namespace; its mounts go with it.
pub struct MountNs {
    /// Its number in `/proc/PID/ns`.
    pub ino: u32,
    table: MountTable,
    root: Mutex<Arc<Mount>>,
}

impl MountNs {
    /// A namespace whose topmost mount is `root`, which is attached nowhere.
    #[must_use]
    pub fn new(table: &MountTable, root: Arc<Mount>) -> Arc<Self> {
        // Mounts are numbered; a namespace's first one tells it from all others.
        let ino = 0xe000_0000 | (root.id & 0x0fff_ffff);
        Arc::new(MountNs { ino, table: table.clone(), root: Mutex::new(Level::Leaf, root) })
    }

    /// Its topmost mount.
    #[must_use]
    pub fn root(&self) -> Arc<Mount> {
        self.root.lock().clone()
    }

    /// `pivot_root` has put another on top.
    pub fn set_root(&self, mount: Arc<Mount>) {
        let old = std::mem::replace(&mut *self.root.lock(), mount);
        drop(old);
    }
}

impl Drop for MountNs {
    fn drop(&mut self) {
        self.table.dissolve(&self.root());
    }
}

/// The topmost mount of the namespace of `state`.
///
/// # Errors
/// `EINVAL` where there is no tree.
pub fn root_of(table: &MountTable, state: &FsState) -> Result<Arc<Mount>, Errno> {
    match &state.ns {
        Some(ns) => Ok(ns.root()),
        None => table.root().ok_or(Errno::EINVAL),
    }
}

/// Gives `state` a namespace of its own: a copy of the one it is in.
///
/// # Errors
/// `ENOSPC` where there are too many mounts.
pub fn unshare(table: &MountTable, state: &mut FsState) -> Result<(), Errno> {
    let old_root = root_of(table, state)?;
    let mut copies: HashMap<u32, Arc<Mount>> = HashMap::new();
    let copy = |m: &Arc<Mount>| table.detached(m.sb.clone(), m.root.clone(), m.flags());
    let root = copy(&old_root);
    copies.insert(old_root.id, root.clone());
    let ns = MountNs::new(table, root);
    for mount in table.below(&old_root) {
        let Some(place) = mount.place() else { continue };
        let Some(parent) = copies.get(&place.mount.id).cloned() else { continue };
        let fresh = copy(&mount);
        copies.insert(mount.id, fresh.clone());
        table.attach(&fresh, PathRef { mount: parent, dentry: place.dentry })?;
    }
    for place in [&mut state.root, &mut state.cwd] {
        if let Some(mount) = copies.get(&place.mount.id) {
            *place = PathRef { mount: mount.clone(), dentry: place.dentry.clone() };
        }
    }
    state.ns = Some(ns);
    Ok(())
}
