//! Changing attributes with the checks of `setattr_prepare` and `fs/open.c`.

use abi::{Errno, Timespec};

use crate::kernel::creds::Creds;
use crate::vfs::caller::{Caller, now};
use crate::vfs::inode::{Attr, FileType, Inode, SetAttr};
use crate::vfs::perm::{self, CAP_CHOWN, CAP_FSETID, MAY_WRITE};

/// `chmod(2)` of an inode.
///
/// # Errors
/// `EPERM` for who does not own it; what the file system says.
pub fn chmod(caller: &Caller<'_>, inode: &dyn Inode, mode: u32) -> Result<(), Errno> {
    let attr = inode.attr();
    if !perm::is_owner(&caller.creds, &attr) {
        return Err(Errno::EPERM);
    }
    let mut perm = mode & 0o7777;
    // Silently without set-gid for a group one is not in (chmod(2)).
    if !caller.creds.in_group(attr.gid) && !caller.creds.has_cap(CAP_FSETID) {
        perm &= !libc::S_ISGID;
    }
    inode.set_attr(&SetAttr { perm: Some(perm), ..SetAttr::default() })
}

/// `chown(2)` of an inode; `None` leaves an id as it is.
///
/// # Errors
/// `EPERM`; what the file system says.
pub fn chown(caller: &Caller<'_>, inode: &dyn Inode, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let attr = inode.attr();
    let creds = &caller.creds;
    let owns = creds.fsuid() == attr.uid;
    let uid_ok = uid.is_none_or(|u| (owns && u == attr.uid) || creds.has_cap(CAP_CHOWN));
    let gid_ok = gid.is_none_or(|g| (owns && (g == attr.gid || creds.in_group(g))) || creds.has_cap(CAP_CHOWN));
    if !uid_ok || !gid_ok {
        return Err(Errno::EPERM);
    }
    let mut change = SetAttr { uid, gid, ..SetAttr::default() };
    // Anybody's chown, root's too, takes set-id bits off files (chown_common).
    if attr.kind != FileType::Directory && attr.perm & 0o6000 != 0 {
        let perm = perm::without_set_id(attr.perm);
        change.perm = (perm != attr.perm).then_some(perm);
    }
    inode.set_attr(&change)
}

/// One of `utimensat(2)`'s times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// `UTIME_OMIT`.
    Omit,
    /// `UTIME_NOW`.
    Now,
    /// This one.
    At(Timespec),
}

/// `utimensat(2)` of an inode.
///
/// # Errors
/// `EACCES` for "now" by who may not write; `EPERM` for other times by who does not own it.
pub fn utimes(caller: &Caller<'_>, inode: &dyn Inode, atime: NewTime, mtime: NewTime) -> Result<(), Errno> {
    if (atime, mtime) == (NewTime::Omit, NewTime::Omit) {
        return Ok(());
    }
    let attr = inode.attr();
    if !perm::is_owner(&caller.creds, &attr) {
        if (atime, mtime) != (NewTime::Now, NewTime::Now) {
            return Err(Errno::EPERM);
        }
        perm::check_mode(&caller.creds, &attr, MAY_WRITE)?;
    }
    let at = |time| match time {
        NewTime::Omit => None,
        NewTime::Now => Some(now()),
        NewTime::At(t) => Some(t),
    };
    inode.set_attr(&SetAttr { atime: at(atime), mtime: at(mtime), ..SetAttr::default() })
}

/// The mode change that a write or truncation by `creds` brings (`file_remove_privs`); `None` for none.
#[must_use]
pub fn mode_after_write(creds: &Creds, attr: &Attr) -> Option<u32> {
    if attr.perm & 0o6000 == 0 || creds.has_cap(CAP_FSETID) {
        return None;
    }
    let perm = perm::without_set_id(attr.perm);
    (perm != attr.perm).then_some(perm)
}
