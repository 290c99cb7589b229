//! Places for open files that have none: what `/proc/PID/fd/N` of a pipe or an eventfd leads to.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, Timespec};

use crate::vfs::Vfs;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::{FileDescription, FileOps, OpenFlags};
use crate::vfs::inode::{Attr, FileType, Inode, InodeKey, StatFs};
use crate::vfs::mount::{MountFlags, SuperBlock};
use crate::vfs::path::PathRef;

/// `ANON_INODE_FS_MAGIC`.
const MAGIC: u64 = 0x0904_1934;

/// The inode of an anonymous open file.
struct AnonInode {
    file: Arc<FileDescription>,
}

/// What `stat` says of an open file that has no inode and says nothing of itself.
#[must_use]
pub fn default_attr() -> Attr {
    Attr {
        key: InodeKey { dev: 0, ino: 1 },
        kind: FileType::Regular,
        perm: 0o600,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        blocks: 0,
        blksize: 4096,
        rdev: 0,
        atime: Timespec::default(),
        mtime: Timespec::default(),
        ctime: Timespec::default(),
    }
}

impl Inode for AnonInode {
    fn attr(&self) -> Attr {
        self.file.ops.attr().unwrap_or_else(default_attr)
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        // Sockets and anonymous inodes cannot be opened again (open(2), ENXIO); pipes have an inode of their own.
        match self.attr().kind {
            FileType::Socket => Err(Errno::ENXIO),
            _ => Ok(self.file.ops.clone()),
        }
    }

    fn statfs(&self) -> StatFs {
        StatFs { magic: MAGIC, bsize: 4096, namelen: 255, ..StatFs::default() }
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct NoRoot;

impl Inode for NoRoot {
    fn attr(&self) -> Attr {
        Attr { kind: FileType::Directory, perm: 0, ..default_attr() }
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }

    fn statfs(&self) -> StatFs {
        StatFs { magic: MAGIC, bsize: 4096, namelen: 255, ..StatFs::default() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The hidden file system whose mount anonymous places belong to.
pub(super) fn super_block() -> SuperBlock {
    SuperBlock::new("anon_inodefs", b"none", String::new(), false, Arc::new(NoRoot))
}

/// The place of an open file: its own, or one that leads to it alone.
///
/// # Errors
/// None yet.
pub fn path_of(vfs: &Vfs, file: Arc<FileDescription>) -> Result<PathRef, Errno> {
    if let Some(path) = &file.path {
        return Ok(path.clone());
    }
    let name = file.ops.describe().into_bytes();
    let inode = match &file.inode {
        Some(inode) => inode.clone(),
        None => Arc::new(AnonInode { file }),
    };
    Ok(vfs.anon_path(Dentry::detached(inode, None, &name)))
}

/// The open file that an anonymous place leads to.
#[must_use]
pub fn is_anonymous(inode: &dyn Inode) -> bool {
    inode.as_any().is::<AnonInode>()
}

/// Flags of the hidden mount.
pub(super) const FLAGS: MountFlags = MountFlags::empty();
