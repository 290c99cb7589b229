//! Places in the tree.

use std::sync::Arc;

use crate::vfs::dentry::Dentry;
use crate::vfs::inode::Inode;
use crate::vfs::mount::Mount;

pub use crate::vfs::kernel_use::{create_socket, lookup_socket};

/// A place: a dentry within a mount.
#[derive(Clone)]
pub struct PathRef {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for PathRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
}

impl Eq for PathRef {}

/// A path as text, and how it relates to the root it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Display {
    /// Absolute, without suffix.
    pub path: Vec<u8>,
    /// Whether the walk up came past `root`; otherwise the place is outside of it.
    pub reachable: bool,
    /// Whether the last name has been removed.
    pub deleted: bool,
}

impl PathRef {
    /// The inode there.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// Whether this is the root of its mount.
    #[must_use]
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// The path from `root`, as `d_path()` makes it.
    #[must_use]
    pub fn path_from(&self, root: &PathRef) -> Display {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = self.clone();
        let reachable = loop {
            if at == *root {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => break false,
                }
                continue;
            }
            let Some(parent) = at.dentry.parent() else { break false };
            names.push(at.dentry.name());
            at.dentry = parent;
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Display { path, reachable, deleted: self.dentry.is_deleted() }
    }

    /// The path as `/proc/PID/exe`, `maps` and the like show it: with ` (deleted)` behind a removed name.
    #[must_use]
    pub fn display(&self, root: &PathRef) -> Vec<u8> {
        let Display { mut path, deleted, .. } = self.path_from(root);
        if deleted {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }
}
