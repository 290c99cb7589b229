//! What a file system provides: inodes, and the operations of those that are directories or carry attributes.
//!
//! [`Inode`] is small; what only some inodes can do lies in [`DirOps`], [`XattrOps`] and
//! [`FileOps`](crate::vfs::FileOps), whose defaults answer the right errno. Permission checks are the caller's (the
//! path layer), not the file system's.

use std::sync::Arc;

use abi::{Errno, Timespec};

use crate::vfs::caller::Caller;
use crate::vfs::file::{FileOps, OpenFlags};

/// Names an inode within its kernel: device number and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct InodeKey {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// The type bits of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FileType {
    /// S_IFREG.
    Regular,
    /// S_IFDIR.
    Directory,
    /// S_IFLNK.
    Symlink,
    /// S_IFCHR.
    CharDevice,
    /// S_IFBLK.
    BlockDevice,
    /// S_IFIFO.
    Fifo,
    /// S_IFSOCK.
    Socket,
}

impl FileType {
    /// From the S_IFMT bits of a mode; `None` for no type that exists.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            _ => return None,
        })
    }

    /// The S_IFMT bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            FileType::Regular => libc::S_IFREG,
            FileType::Directory => libc::S_IFDIR,
            FileType::Symlink => libc::S_IFLNK,
            FileType::CharDevice => libc::S_IFCHR,
            FileType::BlockDevice => libc::S_IFBLK,
            FileType::Fifo => libc::S_IFIFO,
            FileType::Socket => libc::S_IFSOCK,
        }
    }

    /// `d_type` of `getdents64(2)`.
    #[must_use]
    pub fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// What `stat(2)` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attr {
    /// Identity.
    pub key: InodeKey,
    /// Type.
    pub kind: FileType,
    /// Permission bits with set-id and sticky: 0o7777.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Preferred I/O size.
    pub blksize: u32,
    /// Device number of a device inode (kernel's `dev_t` encoding of `makedev(3)`).
    pub rdev: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of content.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
}

/// Attribute changes; `None` leaves a field as it is. `ctime` is set by the file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits, 0o7777.
    pub perm: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New length: truncate or extend with zeros.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Timespec>,
    /// Modification time.
    pub mtime: Option<Timespec>,
}

/// What `statfs(2)` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Magic number (`include/uapi/linux/magic.h`).
    pub magic: u64,
    /// Block size.
    pub bsize: u64,
    /// Blocks in all, free, and free for users.
    pub blocks: [u64; 3],
    /// Inodes in all and free.
    pub files: [u64; 2],
    /// Longest name.
    pub namelen: u64,
    /// Mount flags (ST_*).
    pub flags: u64,
}

/// A new directory entry's inode.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Type.
    pub kind: FileType,
    /// Permission bits, umask applied.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group (the directory's where that is set-gid: the caller has decided).
    pub gid: u32,
    /// Device number for devices.
    pub rdev: u64,
    /// Target for symlinks.
    pub target: Vec<u8>,
}

/// A directory entry, as `getdents64(2)` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub kind: FileType,
    /// Cookie that continues *behind* this entry.
    pub next: u64,
}

/// A file, of any type.
pub trait Inode: Send + Sync {
    /// Attributes now.
    fn attr(&self) -> Attr;

    /// Learns the attributes anew where they change without this kernel, so that [`Inode::attr`] tells those of now.
    ///
    /// # Errors
    /// What the file system says.
    fn refresh(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Told when a name of it was taken away, or moved.
    fn name_changed(&self, _taken: bool) {}

    /// Changes attributes.
    ///
    /// # Errors
    /// `EROFS` on a read-only file system, `EPERM` where attributes are fixed.
    fn set_attr(&self, _change: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Directory operations, where this is a directory.
    fn dir(&self) -> Option<&dyn DirOps> {
        None
    }

    /// Extended attributes, where the file system has them.
    fn xattrs(&self) -> Option<&dyn XattrOps> {
        None
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// `EINVAL` where this is none.
    fn readlink(&self, _cx: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    /// For magic links (`/proc/PID/fd/N`, `exe`, `cwd`): where following leads, past any name.
    fn follow(&self, _cx: &Caller<'_>) -> Option<Result<crate::vfs::file::Target, Errno>> {
        None
    }

    /// Opens a regular file or directory of this file system (devices, FIFOs and sockets are the caller's). The file's
    /// operations keep the inode alive.
    ///
    /// # Errors
    /// `ENXIO` where it cannot be opened at all; what the file system says.
    fn open(self: Arc<Self>, cx: &Caller<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno>;

    /// What keeps a regular file's content at hand over several [`Inode::read_content`], where that needs something.
    ///
    /// # Errors
    /// What the file system says.
    fn hold_content(&self) -> Result<Option<Arc<dyn std::any::Any + Send + Sync>>, Errno> {
        Ok(None)
    }

    /// Reads a regular file's content without opening it, for a file system stacked above; 0 at the end.
    ///
    /// # Errors
    /// `EINVAL` where it has none; `EIO`.
    fn read_content(&self, _offset: u64, _dst: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// The file system it lies in.
    fn statfs(&self) -> StatFs;

    /// Learns anew what [`Inode::statfs`] tells, where that changes without this kernel.
    ///
    /// # Errors
    /// What the file system says.
    fn refresh_statfs(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether names below may be cached (false for what changes by itself, such as /proc/PID).
    fn cacheable(&self) -> bool {
        true
    }

    /// For downcasts to the file system's own type.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What directories can do. Names are single components, neither empty nor `.` nor `..`, at most 255 bytes.
pub trait DirOps: Send + Sync {
    /// The inode of `name`.
    ///
    /// # Errors
    /// `ENOENT`.
    fn lookup(&self, cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno>;

    /// Told of the rest of a path that is about to be walked from here, so that one question can do for all its names.
    ///
    /// # Errors
    /// Where the walk must wait.
    fn look_ahead(&self, _rest: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether the cached `name` still leads to `inode`, where names change without this kernel.
    ///
    /// # Errors
    /// What the file system says.
    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<bool, Errno> {
        Ok(true)
    }

    /// Lists entries from cookie `from` (0 is the start) until `emit` answers false, or fewer, but at least one where
    /// there is one: who wants all goes on behind the last. `.` and `..` are the caller's.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno>;

    /// Makes a new inode under `name`.
    ///
    /// # Errors
    /// `EEXIST`; `EROFS`; `ENOSPC`; `EPERM` where the file system has no such type.
    fn create(&self, _cx: &Caller<'_>, _name: &[u8], _node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EROFS)
    }

    /// Makes an inode without a name (O_TMPFILE), which [`DirOps::link`] may name later.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has none.
    fn create_unnamed(&self, _cx: &Caller<'_>, _node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives `inode`, of this file system, another name.
    ///
    /// # Errors
    /// `EEXIST`; `EXDEV`; `EMLINK`; `EROFS`.
    fn link(&self, _cx: &Caller<'_>, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Removes the name of something that is not a directory.
    ///
    /// # Errors
    /// `ENOENT`; `EISDIR`; `EROFS`.
    fn unlink(&self, _cx: &Caller<'_>, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTDIR`; `ENOTEMPTY`; `EROFS`.
    fn rmdir(&self, _cx: &Caller<'_>, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Moves `name` to `new_name` in `new_dir`, of this file system, replacing what is there as `rename(2)` does.
    /// `flags` are RENAME_NOREPLACE and RENAME_EXCHANGE. Loops and mounts were checked by the caller.
    ///
    /// # Errors
    /// `EXDEV`; `ENOTEMPTY`; `EISDIR`; `ENOTDIR`; `EEXIST`; `EROFS`; `EINVAL` for flags that it has not.
    fn rename(
        &self,
        _cx: &Caller<'_>,
        _name: &[u8],
        _new_dir: &Arc<dyn Inode>,
        _new_name: &[u8],
        _flags: u32,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }
}

/// Extended attributes. Names carry their prefix (`user.`, `trusted.`, ...).
pub trait XattrOps: Send + Sync {
    /// The value of `name`.
    ///
    /// # Errors
    /// `ENODATA`.
    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// All names.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self) -> Result<Vec<Vec<u8>>, Errno>;

    /// Sets `name`. `flags` are XATTR_CREATE and XATTR_REPLACE.
    ///
    /// # Errors
    /// `EEXIST`; `ENODATA`; `ENOSPC`; `EROFS`.
    fn set(&self, _name: &[u8], _value: &[u8], _flags: i32) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Removes `name`.
    ///
    /// # Errors
    /// `ENODATA`; `EROFS`.
    fn remove(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }
}
