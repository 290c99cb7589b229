//! `renameat2(2)`.

use std::sync::Arc;

use abi::Errno;

use crate::vfs::caller::Caller;
use crate::vfs::change::{dir_ops, same_inode};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::FileType;
use crate::vfs::path::PathRef;
use crate::vfs::perm::{self, MAY_WRITE};
use crate::vfs::walk::{self, Last, Parent, Resolve, Walk};

/// `RENAME_NOREPLACE`.
pub const NOREPLACE: u32 = 1;
/// `RENAME_EXCHANGE`.
pub const EXCHANGE: u32 = 2;

/// Moves `old` to `new`.
///
/// # Errors
/// As `renameat2(2)`.
pub fn rename(
    caller: &Caller<'_>,
    (old_start, old_path): (PathRef, &[u8]),
    (new_start, new_path): (PathRef, &[u8]),
    flags: u32,
) -> Result<(), Errno> {
    // RENAME_WHITEOUT is overlayfs's own; file systems without it say EINVAL.
    if flags & !(NOREPLACE | EXCHANGE) != 0 || flags == NOREPLACE | EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let old = Walk::new(caller, old_start, Resolve::empty()).parent(old_path)?;
    let new = Walk::new(caller, new_start, Resolve::empty()).parent(new_path)?;
    if !Arc::ptr_eq(&old.dir.mount, &new.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(old_name) = &old.last else { return Err(Errno::EBUSY) };
    let Last::Name(new_name) = &new.last else {
        return Err(if flags & NOREPLACE != 0 { Errno::EEXIST } else { Errno::EBUSY });
    };
    if old.dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let _guard = caller.vfs.rename.lock();
    let source = walk::lookup(caller, &old.dir.dentry, old_name)?;
    let target = match walk::lookup(caller, &new.dir.dentry, new_name) {
        Ok(target) => Some(target),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    check_shape(&old, &new, &source, target.as_ref(), flags)?;
    if target.as_ref().is_some_and(|t| same_inode(t.inode(), source.inode())) {
        return Ok(());
    }
    check_permissions(caller, &old, &new, &source, target.as_ref(), flags)?;
    if source.is_mountpoint() || target.as_ref().is_some_and(|t| t.is_mountpoint()) {
        return Err(Errno::EBUSY);
    }
    dir_ops(&old.dir)?.rename(caller, old_name, new.dir.inode(), new_name, flags)?;
    let exchange = flags & EXCHANGE != 0;
    source.inode().name_changed(false);
    if let Some(target) = &target {
        target.inode().name_changed(!exchange);
    }
    old.dir.dentry.renamed(old_name, &new.dir.dentry, new_name, exchange);
    let replaced = target.as_ref().filter(|_| !exchange);
    old.dir.notify_renamed((old_name, &source), (&new.dir, new_name), replaced);
    if let Some(other) = target.as_ref().filter(|_| exchange) {
        new.dir.notify_renamed((new_name, other), (&old.dir, old_name), None);
    }
    Ok(())
}

fn is_dir(dentry: &Dentry) -> bool {
    dentry.inode().attr().kind == FileType::Directory
}

/// What does not depend on who asks (`do_renameat2`).
fn check_shape(
    old: &Parent,
    new: &Parent,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    flags: u32,
) -> Result<(), Errno> {
    let exchange = flags & EXCHANGE != 0;
    if flags & NOREPLACE != 0 && target.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange {
        let target = target.ok_or(Errno::ENOENT)?;
        if !is_dir(target) && new.trailing {
            return Err(Errno::ENOTDIR);
        }
    }
    if !is_dir(source) && (old.trailing || (!exchange && new.trailing)) {
        return Err(Errno::ENOTDIR);
    }
    if new.dir.dentry.is_within(source) {
        return Err(Errno::EINVAL);
    }
    if target.is_some_and(|t| old.dir.dentry.is_within(t)) {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    Ok(())
}

/// What does (`vfs_rename`).
fn check_permissions(
    caller: &Caller<'_>,
    old: &Parent,
    new: &Parent,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    flags: u32,
) -> Result<(), Errno> {
    let creds = &caller.creds;
    let exchange = flags & EXCHANGE != 0;
    perm::may_delete(creds, &old.dir, &source.inode().attr(), is_dir(source))?;
    match target {
        None => perm::may_create(creds, &new.dir)?,
        Some(t) => {
            let as_dir = if exchange { is_dir(t) } else { is_dir(source) };
            perm::may_delete(creds, &new.dir, &t.inode().attr(), as_dir)?;
        }
    }
    // A directory that gets another parent is itself written: its `..` changes.
    if !Arc::ptr_eq(&old.dir.dentry, &new.dir.dentry) {
        if is_dir(source) {
            perm::check_mode(creds, &source.inode().attr(), MAY_WRITE)?;
        }
        if let Some(t) = target.filter(|t| exchange && is_dir(t)) {
            perm::check_mode(creds, &t.inode().attr(), MAY_WRITE)?;
        }
    }
    Ok(())
}
