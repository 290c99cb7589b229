//! Places in the tree, and the walk from names to them.

use std::sync::Arc;

use crate::vfs::inode::Inode;

/// A place: a dentry within a mount.
#[derive(Clone)]
pub struct PathRef {
    /// The inode there.
    pub inode: Arc<dyn Inode>,
}
