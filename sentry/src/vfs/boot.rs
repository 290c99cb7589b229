//! What the kernel itself makes in a tree before anybody runs in it.

use std::sync::Arc;

use abi::Errno;

use crate::fs::tmpfs::{Limits, TmpFs};
use crate::kernel::Kernel;
use crate::vfs::caller::Caller;
use crate::vfs::inode::FileType;
use crate::vfs::mount::MountFlags;
use crate::vfs::path::PathRef;
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{IoSource, OpenFlags, Vfs, change, open};

/// Most symlinks that lead nowhere on the way to a place.
const MAX_LINKS: u32 = 8;

/// The directory `path`, made with all above it where it is missing.
///
/// # Errors
/// `ENOTDIR` where something else is there; as `mkdir(2)`.
pub fn ensure_dirs(caller: &Caller<'_>, path: &[u8]) -> Result<PathRef, Errno> {
    let mut place = caller.root.clone();
    let mut end = 0;
    while end < path.len() {
        let rest = path.get(end + 1..).unwrap_or_default();
        end = rest.iter().position(|b| *b == b'/').map_or(path.len(), |at| end + 1 + at);
        place = ensure_dir(caller, path.get(..end).unwrap_or_default())?;
    }
    Ok(place)
}

fn ensure_dir(caller: &Caller<'_>, path: &[u8]) -> Result<PathRef, Errno> {
    let place = ensure(caller, path.to_vec(), FileType::Directory)?;
    if place.inode().attr().kind == FileType::Directory { Ok(place) } else { Err(Errno::ENOTDIR) }
}

/// What `path` leads to; where that is nothing, a new directory or file. A symlink that leads nowhere gets its target,
/// inside the root.
fn ensure(caller: &Caller<'_>, mut path: Vec<u8>, kind: FileType) -> Result<PathRef, Errno> {
    let mode = if kind == FileType::Directory { 0o755 } else { 0o644 };
    for _ in 0..MAX_LINKS {
        let find = |follow| Walk::new(caller, caller.root.clone(), Resolve::empty()).path(&path, follow);
        match find(true) {
            Err(Errno::ENOENT) => {}
            found => return found,
        }
        match change::make(caller, caller.root.clone(), &path, kind, mode, |_| Ok(())) {
            Err(Errno::EEXIST) => {}
            made => return made,
        }
        let target = find(false)?.inode().readlink(caller)?;
        if target.first() != Some(&b'/') {
            path.truncate(path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1));
            path.extend(target);
        } else {
            path = target;
        }
        if let Some(slash) = path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
            ensure_dirs(caller, path.get(..slash).unwrap_or_default())?;
        }
    }
    Err(Errno::ELOOP)
}

/// Makes the directories above `path`.
fn ensure_parents(caller: &Caller<'_>, path: &[u8]) -> Result<(), Errno> {
    match path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
        Some(slash) => ensure_dirs(caller, path.get(..slash).unwrap_or_default()).map(|_| ()),
        None => Ok(()),
    }
}

/// What `path` leads to; an empty file is made where there is nothing.
///
/// # Errors
/// `EISDIR` where a directory is there; as `open(2)`.
pub fn ensure_file(caller: &Caller<'_>, path: &[u8]) -> Result<PathRef, Errno> {
    ensure_parents(caller, path)?;
    let place = ensure(caller, path.to_vec(), FileType::Regular)?;
    if place.inode().attr().kind == FileType::Directory { Err(Errno::EISDIR) } else { Ok(place) }
}

/// Makes the file `path` anew, with this content. What is there is replaced, not followed: the image may have a symlink
/// that leads anywhere.
///
/// # Errors
/// As `open(2)` and `unlink(2)`.
pub fn write_file(kernel: &Kernel, caller: &Caller<'_>, path: &[u8], mode: u32, content: &[u8]) -> Result<(), Errno> {
    ensure_parents(caller, path)?;
    match change::unlink(caller, caller.root.clone(), path) {
        // Something is mounted there: a file that was given from outside.
        Err(Errno::EBUSY) => return overwrite(kernel, caller, path, content),
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    put(kernel, caller, path, (OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL, mode), content)
}

/// Writes to the file `path`, which is there.
///
/// # Errors
/// As `open(2)` and `write(2)`.
pub fn overwrite(kernel: &Kernel, caller: &Caller<'_>, path: &[u8], content: &[u8]) -> Result<(), Errno> {
    put(kernel, caller, path, (OpenFlags::WRONLY, 0), content)
}

fn put(
    kernel: &Kernel,
    caller: &Caller<'_>,
    path: &[u8],
    (flags, mode): (OpenFlags, u32),
    content: &[u8],
) -> Result<(), Errno> {
    let how = open::OpenHow { flags, mode, ..open::OpenHow::default() };
    match open::open(caller, &kernel.devices, caller.root.clone(), path, how)? {
        open::Opened::File(file) => file.write(&mut IoSource::kernel(content)).map(|_| ()),
        open::Opened::Fifo(..) => Err(Errno::EINVAL),
    }
}

/// Mounts `sb` on the directory `path`, made where it is not there, for tests.
///
/// # Errors
/// As [`ensure_dirs`]; `EBUSY`.
#[cfg(test)]
pub fn mount_at(
    caller: &Caller<'_>,
    path: &[u8],
    sb: crate::vfs::mount::SuperBlock,
    flags: MountFlags,
) -> Result<Arc<crate::vfs::mount::Mount>, Errno> {
    let sb = Arc::new(sb);
    let mount = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), flags);
    caller.vfs.mounts.attach(&mount, ensure_dirs(caller, path)?)?;
    Ok(mount)
}

/// A tree with an empty writable root, for tests.
#[must_use]
pub fn empty_root(vfs: &Vfs, memory: &Arc<memory::MemoryFile>) -> PathRef {
    let sb = Arc::new(TmpFs::mount(vfs, memory, "tmpfs", b"none", (0o755, 0, 0), Limits::default()));
    let mount = vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::empty());
    vfs.mounts.set_root(mount.clone());
    mount.root_path()
}
