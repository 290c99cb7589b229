//! What the file system calls share: from (descriptor, path, flags) to a place.

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::kernel::task::CurrentTask;
use crate::syscalls::args::UserStr;
use crate::vfs::walk::{PATH_MAX, Resolve, Walk};
use crate::vfs::{Attr, Caller, FdNum, FileDescription, Inode, PathRef, anon};

/// `AT_FDCWD`.
pub const AT_FDCWD: FdNum = FdNum(libc::AT_FDCWD);
/// `AT_EMPTY_PATH`.
pub const AT_EMPTY_PATH: u32 = 0x1000;
/// `AT_SYMLINK_NOFOLLOW`.
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// `AT_SYMLINK_FOLLOW`.
pub const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// `AT_NO_AUTOMOUNT`.
pub const AT_NO_AUTOMOUNT: u32 = 0x800;

/// Reads a path argument.
///
/// # Errors
/// `EFAULT`; `ENAMETOOLONG`.
pub fn path(cx: &CurrentTask<'_>, at: UserStr) -> Result<Vec<u8>, Errno> {
    cx.mm()?.read_cstr(at.0, PATH_MAX)
}

/// The directory that relative paths of a `*at` call start from. An absolute path does not look at `dir`.
///
/// # Errors
/// `EBADF`; `ENOTDIR` where it has no place in the tree.
pub fn start(cx: &CurrentTask<'_>, caller: &Caller<'_>, dir: FdNum, path: &[u8]) -> Result<PathRef, Errno> {
    if dir == AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(caller.cwd.clone());
    }
    cx.fds()?.get(dir)?.path.clone().ok_or(Errno::ENOTDIR)
}

/// What a `*at` call names.
pub enum Place {
    /// A place in the tree.
    Path(PathRef),
    /// An open file, by AT_EMPTY_PATH.
    File(Arc<FileDescription>),
}

impl Place {
    /// Its inode.
    ///
    /// # Errors
    /// `EBADF` for an open file that has none.
    pub fn inode(&self) -> Result<Arc<dyn Inode>, Errno> {
        match self {
            Place::Path(path) => Ok(path.inode().clone()),
            Place::File(file) => file.inode.clone().ok_or(Errno::EBADF),
        }
    }

    /// Its attributes now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn attr(&self) -> Result<Attr, Errno> {
        match self {
            Place::Path(path) => fresh_attr(path.inode()),
            Place::File(file) => file_attr(file),
        }
    }

    /// Its place in the tree, where it has one.
    #[must_use]
    pub fn path(&self) -> Option<&PathRef> {
        match self {
            Place::Path(path) => Some(path),
            Place::File(file) => file.path.as_ref(),
        }
    }

    /// Whether its mount lets write.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn check_writable(&self) -> Result<(), Errno> {
        match self.path() {
            Some(path) if path.mount.is_readonly() => Err(Errno::EROFS),
            _ => Ok(()),
        }
    }
}

fn fresh_attr(inode: &Arc<dyn Inode>) -> Result<Attr, Errno> {
    inode.refresh()?;
    Ok(inode.attr())
}

/// Attributes of an open file now.
///
/// # Errors
/// What the file system says.
pub fn file_attr(file: &FileDescription) -> Result<Attr, Errno> {
    match &file.inode {
        Some(inode) => fresh_attr(inode),
        None => Ok(file.ops.attr().unwrap_or_else(anon::default_attr)),
    }
}

/// Resolves the arguments of a `*at` call whose flags are AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH and AT_NO_AUTOMOUNT.
///
/// # Errors
/// As the walk; `EBADF`; `EFAULT`.
pub fn resolve(cx: &CurrentTask<'_>, caller: &Caller<'_>, dir: FdNum, at: UserStr, flags: u32) -> Result<Place, Errno> {
    // A null path with AT_EMPTY_PATH means the descriptor (since Linux 6.11).
    let path = if at.0 == UserAddr::NULL && flags & AT_EMPTY_PATH != 0 { Vec::new() } else { path(cx, at)? };
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        if dir == AT_FDCWD {
            return Ok(Place::Path(caller.cwd.clone()));
        }
        return cx.fds()?.get(dir).map(Place::File);
    }
    let start = start(cx, caller, dir, &path)?;
    Walk::new(caller, start, Resolve::empty()).path(&path, flags & AT_SYMLINK_NOFOLLOW == 0).map(Place::Path)
}
