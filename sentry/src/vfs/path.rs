//! Places in the tree, and the walk from names to them.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::task::CurrentTask;
use crate::vfs::inode::{Inode, InodeKey};

/// A place: a dentry within a mount.
#[derive(Clone)]
pub struct PathRef {
    /// The inode there.
    pub inode: Arc<dyn Inode>,
}

/// The identity of the socket at `path`, which the task may write.
///
/// # Errors
/// `ENOENT`; `ECONNREFUSED` where it is no socket; `EACCES`.
pub fn lookup_socket(_cx: &mut CurrentTask<'_>, _path: &[u8]) -> Result<InodeKey, Errno> {
    Err(Errno::ENOENT)
}

/// Makes a socket inode at `path` (`bind(2)`).
///
/// # Errors
/// `EADDRINUSE` where the name exists; what making a node says.
pub fn create_socket(_cx: &mut CurrentTask<'_>, _path: &[u8]) -> Result<InodeKey, Errno> {
    Err(Errno::EROFS)
}
