//! Served directories as saved state: which tree, and which file of it each name was, so that a restore that is given
//! another tree says so.

use std::sync::Arc;

use abi::Errno;
use serde::{Deserialize, Serialize};

use super::{Connection, GoferFile, GoferInode, Sharing};
use crate::boot::spec::GoferTree;
use crate::checkpoint::{Refused, Restorer, Unusable};
use crate::vfs::mount::SuperBlock;
use crate::vfs::{FileOps, FileType, Inode};

/// A served tree, by its number.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct TreeState {
    index: u32,
    exclusive: bool,
}

/// By what a file is recognised: itself, or one that looks the same (a copy of the tree).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    host: (u64, u64),
    kind: FileType,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl GoferInode {
    /// Which file it is.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        let attr = self.attr();
        let modified = (attr.mtime.sec, attr.mtime.nsec);
        FileIdentity { host: self.host_key(), kind: self.kind, size: attr.size, modified }
    }

    /// The served directory that it lies in.
    #[must_use]
    pub fn tree(&self) -> TreeState {
        TreeState { index: self.fs.index, exclusive: self.fs.sharing == Sharing::Exclusive }
    }
}

impl FileIdentity {
    /// Whether `now` may stand for it. Directories change while they stay the same.
    #[must_use]
    pub fn fits(&self, now: &FileIdentity) -> bool {
        let copy = self.kind != FileType::Regular || (self.size, self.modified) == (now.size, now.modified);
        self.kind == now.kind && (self.host == now.host || copy)
    }
}

impl TreeState {
    /// The file system, from the gofer that the restore was given.
    ///
    /// # Errors
    /// There is none, or it serves no such tree.
    pub fn restore(self, source: &[u8], restorer: &Restorer) -> Result<SuperBlock, Unusable> {
        let missing =
            || Unusable::Resource(format!("its host directory number {} (--volume, or its root)", self.index));
        let gofer: &Connection = restorer.gofer.as_ref().ok_or_else(missing)?;
        let tree = GoferTree { index: self.index, exclusive: self.exclusive };
        gofer.tree(&restorer.kernel.vfs, tree, source).map_err(|errno| match errno {
            Errno::ENOENT => missing(),
            errno => Unusable::Step { what: "a host directory", errno },
        })
    }
}

/// An open regular file.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct GoferFileState {
    writable: bool,
    strips: bool,
}

impl GoferFile {
    /// Its state. `name` is how messages call it.
    ///
    /// # Errors
    /// It has no name any more.
    pub(super) fn state(&self, name: &str) -> Result<GoferFileState, Refused> {
        let GoferFile { inode: _, donated, strips } = self;
        if donated.stat().is_ok_and(|stat| stat.st_nlink == 0) {
            return Err(Refused::because(format!("the open file {name} of a host directory"), "it has been deleted"));
        }
        Ok(GoferFileState { writable: donated.writable, strips: *strips })
    }
}

impl GoferFileState {
    /// The open file: `inode`, opened again.
    ///
    /// # Errors
    /// The gofer does not open it.
    pub fn restore(self, inode: &Arc<dyn Inode>) -> Result<Arc<dyn FileOps>, Unusable> {
        let inode = GoferInode::inode_of(inode).and_then(GoferInode::this);
        let inode = inode.ok_or(Unusable::Corrupt("an open file of a host directory"))?;
        let donated = inode.descriptor(self.writable).map_err(Unusable::step("a file of a host directory"))?;
        Ok(Arc::new(GoferFile::new(inode, donated, self.strips)))
    }
}
