//! Open files as saved state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::{FileDescription, FileOps, OpenFlags};
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::fs::tmpfs::Node;
use crate::fs::tmpfs::saved::NodeState;
use crate::sync::{Level, Mutex};
use crate::vfs::inode::Inode;
use crate::vfs::locks::LockOwner;
use crate::vfs::path::PathRef;
use crate::vfs::saved::PathState;

/// The inode of an open file.
#[derive(Serialize, Deserialize)]
enum InodeState {
    None,
    /// That of its place.
    OfPath,
    /// One in memory, such as a memfd's.
    Node(Id<NodeState>),
}

/// [`FileDescription`].
#[derive(Serialize, Deserialize)]
pub struct FileState {
    ops: Id<OpsState>,
    path: Option<PathState>,
    inode: InodeState,
    flags: u32,
    offset: u64,
    lock_owner: Option<u64>,
}

impl Object for FileDescription {
    type State = FileState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<FileState, Refused> {
        let FileDescription { ops: _, path, inode, flags, offset, lock_owner } = &**self;
        let flags = flags.load(Ordering::Relaxed);
        if flags & OpenFlags::ASYNC.bits() != 0 {
            return Err(Refused::new(format!("O_ASYNC of the open file {}", self.name())));
        }
        let inode = match (inode, path) {
            (None, _) => InodeState::None,
            (Some(inode), Some(path)) if Arc::ptr_eq(inode, path.inode()) => InodeState::OfPath,
            (Some(inode), _) => match node_of(inode) {
                Some(node) => InodeState::Node(saver.nodes.id(&node)),
                None => return Err(Refused::new(format!("the open file {}", self.name()))),
            },
        };
        let offset = *offset.lock();
        let path = path.as_ref().map(|path| path.save(saver));
        Ok(FileState { ops: saver.ops_of(self), path, inode, flags, offset, lock_owner: lock_owner.number() })
    }
}

/// The inode in memory that `inode` is, if it is one.
#[must_use]
pub fn node_of(inode: &Arc<dyn Inode>) -> Option<Arc<Node>> {
    inode.as_any().downcast_ref::<Node>().and_then(Node::this)
}

impl FileDescription {
    /// How messages call it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => {
                let mut top = path.clone();
                while let Some(place) = top.mount.place() {
                    top = place;
                }
                String::from_utf8_lossy(&path.display(&top.mount.root_path())).into_owned()
            }
            None => self.ops.describe(),
        }
    }
}

impl FileDescription {
    /// As it was open; nobody hears of it.
    fn restored(
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
        (path, inode): (Option<PathRef>, Option<Arc<dyn Inode>>),
        offset: u64,
        lock_owner: LockOwner,
    ) -> Arc<Self> {
        if let Some(path) = &path {
            path.dentry.opened();
        }
        let (flags, offset) = (AtomicU32::new(flags.bits()), Mutex::new(Level::FileOffset, offset));
        Arc::new(FileDescription { ops, path, inode, flags, offset, lock_owner })
    }
}

impl FileState {
    /// The open file.
    ///
    /// # Errors
    /// Corrupt state; a file that cannot be opened again.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<FileDescription>, Unusable> {
        let path = self.path.map(|path| path.restore(restorer)).transpose()?;
        let inode: Option<Arc<dyn Inode>> = match self.inode {
            InodeState::None => None,
            InodeState::OfPath => path.as_ref().map(|path| path.inode().clone()),
            InodeState::Node(id) => Some(restorer.node(id)?),
        };
        let ops = restorer.file_ops(self.ops)?;
        let flags = OpenFlags::from_bits_retain(self.flags);
        let lock_owner = LockOwner::restored(&restorer.kernel.file_locks, self.lock_owner);
        Ok(FileDescription::restored(ops, flags, (path, inode), self.offset, lock_owner))
    }
}
