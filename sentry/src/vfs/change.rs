//! Making and removing names: what `mkdir`, `mknod`, `symlink`, `link`, `unlink` and `rmdir` share.

use std::sync::Arc;

use abi::Errno;

use crate::vfs::caller::Caller;
use crate::vfs::inode::{Attr, DirOps, FileType, Inode, NewNode};
use crate::vfs::notify::event;
use crate::vfs::path::PathRef;
use crate::vfs::perm::{self, CAP_FSETID};
use crate::vfs::walk::{self, Last, Parent, Resolve, Walk};

/// The directory operations of a place.
pub(super) fn dir_ops(dir: &PathRef) -> Result<&dyn DirOps, Errno> {
    dir.inode().dir().ok_or(Errno::ENOTDIR)
}

/// A new inode's owner and mode, from the caller and the directory it will lie in (`inode_init_owner`). `mode` is
/// what the caller asked for; the umask is applied here.
#[must_use]
pub fn new_node(caller: &Caller<'_>, dir: &Attr, kind: FileType, mode: u32) -> NewNode {
    let mut perm = mode & 0o7777;
    if kind != FileType::Symlink {
        perm &= !caller.umask;
    }
    let mut gid = caller.creds.fsgid();
    if dir.perm & libc::S_ISGID != 0 {
        gid = dir.gid;
        if kind == FileType::Directory {
            perm |= libc::S_ISGID;
        } else if perm & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
            && !caller.creds.in_group(gid)
            && !caller.creds.has_cap(CAP_FSETID)
        {
            perm &= !libc::S_ISGID;
        }
    }
    NewNode { kind, perm, uid: caller.creds.fsuid(), gid, rdev: 0, target: Vec::new() }
}

/// Makes a regular file, which must be new, for `open`.
///
/// # Errors
/// `EROFS`; `EACCES`; `ENOSPC`; `EEXIST`.
pub fn create_file(caller: &Caller<'_>, dir: &PathRef, name: &[u8], mode: u32) -> Result<PathRef, Errno> {
    if dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    perm::may_create(&caller.creds, dir)?;
    let node = new_node(caller, &dir.inode().attr(), FileType::Regular, mode);
    let inode = dir_ops(dir)?.create(caller, name, &node)?;
    let dentry = dir.dentry.added(&caller.vfs.dentries, name, inode);
    dir.notify_created(name, dentry.inode().as_ref());
    Ok(PathRef { mount: dir.mount.clone(), dentry })
}

/// Resolves where a new name shall be (`filename_create`): the directory and the name, which does not exist.
///
/// # Errors
/// `EEXIST`; `ENOENT` for a trailing slash where no directory is made; `EROFS`; as the walk.
fn place_for(walk: &mut Walk<'_>, path: &[u8], is_dir: bool) -> Result<(PathRef, Vec<u8>), Errno> {
    let Parent { dir, last, trailing } = walk.parent(path)?;
    let Last::Name(name) = last else { return Err(Errno::EEXIST) };
    match walk.child(&dir, &name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    if trailing && !is_dir {
        return Err(Errno::ENOENT);
    }
    if dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    Ok((dir, name))
}

/// Makes a directory, device, FIFO, socket, symlink or regular file at `path`. `fill` completes the new node.
///
/// # Errors
/// As `mkdir(2)`, `mknod(2)`, `symlink(2)`; `check` may add what the type needs, after the walk.
pub fn make(
    caller: &Caller<'_>,
    start: PathRef,
    path: &[u8],
    kind: FileType,
    mode: u32,
    fill: impl FnOnce(&mut NewNode) -> Result<(), Errno>,
) -> Result<PathRef, Errno> {
    let mut walk = Walk::new(caller, start, Resolve::empty());
    let (dir, name) = place_for(&mut walk, path, kind == FileType::Directory)?;
    perm::may_create(&caller.creds, &dir)?;
    let mut node = new_node(caller, &dir.inode().attr(), kind, mode);
    fill(&mut node)?;
    let inode = dir_ops(&dir)?.create(caller, &name, &node)?;
    let dentry = dir.dentry.added(&caller.vfs.dentries, &name, inode);
    dir.notify_created(&name, dentry.inode().as_ref());
    Ok(PathRef { mount: dir.mount, dentry })
}

/// Gives `source` the further name `path` (`linkat`).
///
/// # Errors
/// As `link(2)`.
pub fn link(caller: &Caller<'_>, source: &PathRef, start: PathRef, path: &[u8]) -> Result<(), Errno> {
    let mut walk = Walk::new(caller, start, Resolve::empty());
    let (dir, name) = place_for(&mut walk, path, false)?;
    if !Arc::ptr_eq(&source.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    perm::may_create(&caller.creds, &dir)?;
    if source.inode().attr().kind == FileType::Directory {
        return Err(Errno::EPERM);
    }
    source.inode().refresh()?;
    if source.inode().attr().nlink == 0 && !source.dentry.is_linkable() {
        return Err(Errno::ENOENT);
    }
    source.dentry.set_linkable(false);
    dir_ops(&dir)?.link(caller, &name, source.inode())?;
    dir.dentry.added(&caller.vfs.dentries, &name, source.inode().clone());
    source.notify_self(event::ATTRIB);
    dir.notify_created(&name, source.inode().as_ref());
    Ok(())
}

/// Removes a name that is not a directory's.
///
/// # Errors
/// As `unlink(2)`.
pub fn unlink(caller: &Caller<'_>, start: PathRef, path: &[u8]) -> Result<(), Errno> {
    let mut walk = Walk::new(caller, start, Resolve::empty());
    let Parent { dir, last, trailing } = walk.parent(path)?;
    let Last::Name(name) = last else { return Err(Errno::EISDIR) };
    if dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let victim = walk::lookup(caller, &dir.dentry, &name)?;
    let attr = victim.inode().attr();
    if trailing {
        return Err(if attr.kind == FileType::Directory { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    perm::may_delete(&caller.creds, &dir, &attr, false)?;
    if victim.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir_ops(&dir)?.unlink(caller, &name)?;
    victim.inode().name_changed(true);
    dir.dentry.removed(&name);
    dir.notify_removed(&name, &victim);
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// As `rmdir(2)`.
pub fn rmdir(caller: &Caller<'_>, start: PathRef, path: &[u8]) -> Result<(), Errno> {
    let mut walk = Walk::new(caller, start, Resolve::empty());
    let Parent { dir, last, .. } = walk.parent(path)?;
    let name = match last {
        Last::Name(name) => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    };
    if dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let victim = walk::lookup(caller, &dir.dentry, &name)?;
    perm::may_delete(&caller.creds, &dir, &victim.inode().attr(), true)?;
    if victim.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir_ops(&dir)?.rmdir(caller, &name)?;
    victim.inode().name_changed(true);
    dir.dentry.removed(&name);
    dir.notify_removed(&name, &victim);
    Ok(())
}

/// Whether two inodes are the same.
pub(super) fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    a.attr().key == b.attr().key
}
