//! Who may do what: `fs/namei.c`'s permission checks.

use abi::Errno;

use crate::kernel::creds::Creds;
use crate::vfs::inode::{Attr, FileType};
use crate::vfs::path::PathRef;

/// `CAP_CHOWN`.
pub const CAP_CHOWN: u32 = 0;
/// `CAP_DAC_OVERRIDE`.
pub const CAP_DAC_OVERRIDE: u32 = 1;
/// `CAP_DAC_READ_SEARCH`.
pub const CAP_DAC_READ_SEARCH: u32 = 2;
/// `CAP_FOWNER`.
pub const CAP_FOWNER: u32 = 3;
/// `CAP_FSETID`.
pub const CAP_FSETID: u32 = 4;
/// `CAP_SYS_CHROOT`.
pub const CAP_SYS_CHROOT: u32 = 18;
/// `CAP_SYS_PTRACE`.
pub const CAP_SYS_PTRACE: u32 = 19;
/// `CAP_SYS_ADMIN`.
pub const CAP_SYS_ADMIN: u32 = 21;
/// `CAP_SYS_RESOURCE`.
pub const CAP_SYS_RESOURCE: u32 = 24;
/// `CAP_MKNOD`.
pub const CAP_MKNOD: u32 = 27;
/// `CAP_SETFCAP`.
pub const CAP_SETFCAP: u32 = 31;

/// Execute or search.
pub const MAY_EXEC: u32 = 1;
/// Write.
pub const MAY_WRITE: u32 = 2;
/// Read.
pub const MAY_READ: u32 = 4;

/// Checks the mode bits and capabilities (`generic_permission`).
///
/// # Errors
/// `EACCES`.
pub fn check_mode(creds: &Creds, attr: &Attr, mask: u32) -> Result<(), Errno> {
    let class = if creds.fsuid() == attr.uid {
        attr.perm >> 6
    } else if creds.in_group(attr.gid) {
        attr.perm >> 3
    } else {
        attr.perm
    };
    if mask & !class & 7 == 0 {
        return Ok(());
    }
    let read_search = creds.has_cap(CAP_DAC_READ_SEARCH);
    let override_all = creds.has_cap(CAP_DAC_OVERRIDE);
    let allowed = if attr.kind == FileType::Directory {
        override_all || (read_search && mask & MAY_WRITE == 0)
    } else {
        // Nobody executes what has no execute bit at all.
        (read_search && mask == MAY_READ) || (override_all && (mask & MAY_EXEC == 0 || attr.perm & 0o111 != 0))
    };
    if allowed { Ok(()) } else { Err(Errno::EACCES) }
}

/// Checks access to a place: its file system's and mount's state, then its mode.
///
/// # Errors
/// `EROFS` for writing to a file, directory or symlink of a read-only mount; `EACCES`.
pub fn check(creds: &Creds, path: &PathRef, mask: u32) -> Result<(), Errno> {
    let attr = path.inode().attr();
    let stored = matches!(attr.kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    if mask & MAY_WRITE != 0 && stored && path.mount.sb.readonly {
        return Err(Errno::EROFS);
    }
    check_mode(creds, &attr, mask)
}

/// Whether `creds` own the file or may act as if (`inode_owner_or_capable`).
#[must_use]
pub fn is_owner(creds: &Creds, attr: &Attr) -> bool {
    creds.fsuid() == attr.uid || creds.has_cap(CAP_FOWNER)
}

/// Whether a sticky directory keeps `creds` from removing `victim`.
#[must_use]
pub fn sticky_forbids(creds: &Creds, dir: &Attr, victim: &Attr) -> bool {
    dir.perm & libc::S_ISVTX != 0
        && creds.fsuid() != victim.uid
        && creds.fsuid() != dir.uid
        && !creds.has_cap(CAP_FOWNER)
}

/// Checks that something may be made in `dir` (`may_create`).
///
/// # Errors
/// `ENOENT` in a removed directory; `EROFS`; `EACCES`.
pub fn may_create(creds: &Creds, dir: &PathRef) -> Result<(), Errno> {
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    check(creds, dir, MAY_WRITE | MAY_EXEC)
}

/// Checks that `victim` may be taken out of `dir` (`may_delete`).
///
/// # Errors
/// `EACCES`; `EPERM` in a sticky directory; `ENOTDIR` or `EISDIR` where it is not what `is_dir` says.
pub fn may_delete(creds: &Creds, dir: &PathRef, victim: &Attr, is_dir: bool) -> Result<(), Errno> {
    check(creds, dir, MAY_WRITE | MAY_EXEC)?;
    if sticky_forbids(creds, &dir.inode().attr(), victim) {
        return Err(Errno::EPERM);
    }
    match (is_dir, victim.kind == FileType::Directory) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

/// The permission bits that stay when somebody without CAP_FSETID writes to or changes the owner of a file
/// (`setattr_should_drop_suidgid`): set-uid goes, set-gid goes where the group may execute.
#[must_use]
pub fn without_set_id(perm: u32) -> u32 {
    let perm = perm & !libc::S_ISUID;
    if perm & libc::S_IXGRP != 0 { perm & !libc::S_ISGID } else { perm }
}
