//! What other parts of the kernel do with paths on behalf of the current task.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::task::CurrentTask;
use crate::vfs::inode::{FileType, InodeKey};
use crate::vfs::open::{OpenHow, Opened, open};
use crate::vfs::perm::{self, MAY_EXEC, MAY_WRITE};
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{Caller, FileDescription, IoSink, OpenFlags, PathRef, change};

/// Opens `path`, which must not be a FIFO, without a descriptor.
///
/// # Errors
/// As `open(2)`; `ENXIO` for a FIFO.
pub fn open_file(cx: &CurrentTask<'_>, path: &[u8], flags: OpenFlags) -> Result<Arc<FileDescription>, Errno> {
    let caller = Caller::of(cx.task)?;
    let how = OpenHow { flags, ..OpenHow::default() };
    match open(&caller, &cx.kernel().devices, caller.cwd.clone(), path, how)? {
        Opened::File(file) => Ok(file),
        Opened::Fifo(..) => Err(Errno::ENXIO),
    }
}

/// At most `max` bytes of the regular file `path`.
///
/// # Errors
/// As `open(2)`; `EINVAL` where it is no regular file.
pub fn read_file(cx: &CurrentTask<'_>, path: &[u8], max: usize) -> Result<Vec<u8>, Errno> {
    let file = open_file(cx, path, OpenFlags::NONBLOCK)?;
    let attr = file.inode.as_ref().ok_or(Errno::EINVAL)?.attr();
    if attr.kind != FileType::Regular {
        return Err(Errno::EINVAL);
    }
    let mut content = vec![0u8; usize::try_from(attr.size.max(4096)).unwrap_or(max).min(max)];
    let mut done = 0;
    while let Some(rest) = content.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read(&mut IoSink::kernel(rest))? {
            0 => break,
            n => done += n,
        }
    }
    content.truncate(done);
    Ok(content)
}

/// Makes `path` the working directory.
///
/// # Errors
/// As `chdir(2)`.
pub fn set_cwd(cx: &CurrentTask<'_>, path: &[u8]) -> Result<(), Errno> {
    let caller = Caller::of(cx.task)?;
    let place = Walk::new(&caller, caller.cwd.clone(), Resolve::empty()).path(path, true)?;
    enterable(&caller, &place)?;
    let fs = cx.fs()?;
    let old = std::mem::replace(&mut fs.state.lock().cwd, place);
    drop(old);
    Ok(())
}

/// Checks that `place` is a directory that may be entered.
///
/// # Errors
/// `ENOTDIR`; `EACCES`.
pub fn enterable(caller: &Caller<'_>, place: &PathRef) -> Result<(), Errno> {
    let attr = place.inode().attr();
    if attr.kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    perm::check_mode(&caller.creds, &attr, MAY_EXEC)
}

/// The identity of the socket at `path`, which the task may write (`unix_find_bsd`).
///
/// # Errors
/// `ENOENT`; `ECONNREFUSED` where it is no socket; `EACCES`.
pub fn lookup_socket(cx: &CurrentTask<'_>, path: &[u8]) -> Result<InodeKey, Errno> {
    let caller = Caller::of(cx.task)?;
    let place = Walk::new(&caller, caller.cwd.clone(), Resolve::empty()).path(path, true)?;
    perm::check(&caller.creds, &place, MAY_WRITE)?;
    let attr = place.inode().attr();
    if attr.kind == FileType::Socket { Ok(attr.key) } else { Err(Errno::ECONNREFUSED) }
}

/// Makes a socket inode at `path` (`bind(2)`).
///
/// # Errors
/// `EADDRINUSE` where the name exists; what making a node says.
pub fn create_socket(cx: &CurrentTask<'_>, path: &[u8]) -> Result<InodeKey, Errno> {
    let caller = Caller::of(cx.task)?;
    match change::make(&caller, caller.cwd.clone(), path, FileType::Socket, 0o777, |_| Ok(())) {
        Ok(place) => Ok(place.inode().attr().key),
        Err(Errno::EEXIST) => Err(Errno::EADDRINUSE),
        Err(errno) => Err(errno),
    }
}
