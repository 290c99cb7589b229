//! An empty root.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Error, Result, check};

/// Replaces the root of this process's (own) mount namespace by an empty read-only tmpfs, detaches everything else,
/// and stands in it. Nothing of the host's file system can be named afterwards.
///
/// Uses the mount file descriptors of Linux 5.2 (`fsopen(2)`), since these need no directory to mount on: the tmpfs is
/// laid over the old root itself, and `pivot_root(".", ".")` then swaps the two (`pivot_root(2)`, notes).
///
/// # Errors
/// What the calls say: `EPERM` without CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
pub fn enter_empty_root() -> Result<()> {
    // Changes here must not travel to the host's namespace.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|e| Error::new("mount (make private)", e))?;
    let root = empty_tmpfs()?;
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: strings are constants.
    let rc = unsafe {
        libc::syscall(libc::SYS_move_mount, root.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, c"/".as_ptr(), flags)
    };
    check("move_mount (empty root)", rc)?;
    nix::unistd::fchdir(&root).map_err(|e| Error::new("fchdir (empty root)", e))?;
    nix::unistd::pivot_root(".", ".").map_err(|e| Error::new("pivot_root", e))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| Error::new("umount2 (old root)", e))?;
    nix::unistd::chdir("/").map_err(|e| Error::new("chdir (empty root)", e))
}

/// `FSCONFIG_SET_STRING` and `FSCONFIG_CMD_CREATE` of `linux/mount.h`.
const SET_STRING: u32 = 1;
const CMD_CREATE: u32 = 6;
/// `MOUNT_ATTR_RDONLY | NOSUID | NODEV | NOEXEC`.
const EMPTY_ROOT_ATTRS: u32 = 1 | 2 | 4 | 8;

/// A detached mount of a tmpfs that can hold nothing.
fn empty_tmpfs() -> Result<OwnedFd> {
    // SAFETY: the string is a constant; a non-negative answer is a fresh descriptor.
    let context = unsafe {
        let fd = check("fsopen(tmpfs)", libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1))?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    let configure = |cmd: u32, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: strings are constants or null, as the commands want.
        let rc = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), cmd, key, value, 0) };
        check("fsconfig(tmpfs)", rc)
    };
    configure(SET_STRING, c"size".as_ptr(), c"4k".as_ptr())?;
    configure(SET_STRING, c"nr_inodes".as_ptr(), c"1".as_ptr())?;
    configure(SET_STRING, c"mode".as_ptr(), c"0555".as_ptr())?;
    configure(CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: no pointers; a non-negative answer is a fresh descriptor.
    unsafe {
        let fd = check("fsmount", libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, EMPTY_ROOT_ATTRS))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// `OPEN_TREE_CLONE` and `AT_RECURSIVE`, of `linux/mount.h` and `linux/fcntl.h`.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV`.
const ATTR_RDONLY: u64 = 1;
const ATTR_GUARDED: u64 = 2 | 4;

/// A private copy of the mounts at and below `path`, attached nowhere: what the descriptor reaches, and nothing above
/// it. Set-id bits and devices mean nothing in it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; what `open_tree` and `mount_setattr` say.
pub fn clone_tree(path: &CStr, readonly: bool) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path ends in NUL; a non-negative answer is a fresh descriptor.
    let tree = unsafe {
        let fd = check("open_tree", libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    let attr_set = ATTR_GUARDED | if readonly { ATTR_RDONLY } else { 0 };
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let at = libc::AT_EMPTY_PATH.cast_unsigned() | AT_RECURSIVE;
    // SAFETY: the structure is valid for the length given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            at,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check("mount_setattr", rc)?;
    Ok(tree)
}

/// A procfs of this process's pid namespace, attached nowhere, which shows processes alone.
///
/// # Errors
/// What `fsopen`, `fsconfig` and `fsmount` say.
pub fn private_proc() -> Result<OwnedFd> {
    // SAFETY: the string is a constant; a non-negative answer is a fresh descriptor.
    let context = unsafe {
        let fd = check("fsopen(proc)", libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), 1))?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    let configure = |cmd: u32, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: strings are constants or null, as the commands want.
        let rc = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), cmd, key, value, 0) };
        check("fsconfig(proc)", rc)
    };
    configure(SET_STRING, c"subset".as_ptr(), c"pid".as_ptr())?;
    configure(CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: no pointers; a non-negative answer is a fresh descriptor.
    unsafe {
        let fd = check("fsmount(proc)", libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 2 | 4 | 8))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}
