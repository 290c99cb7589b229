//! `inotify(7)`'s calls.

use std::sync::Arc;

use abi::Errno;

use crate::fs::inotify::{ALL_EVENTS, Inotify, MASK_ADD, MASK_CREATE};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fd::install;
use crate::syscalls::fs_at::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, Place, resolve};
use crate::vfs::perm::{self, MAY_READ};
use crate::vfs::{Caller, FdNum, FileDescription, FileType, OpenFlags};

syscall_table! {
    253 inotify_init();
    254 inotify_add_watch(fd: FdNum, path: UserStr, mask: u32);
    255 inotify_rm_watch(fd: FdNum, wd: i32);
    294 inotify_init1(flags: u32);
}

fn inotify_init(cx: &mut CurrentTask<'_>) -> SyscallResult {
    inotify_init1(cx, 0)
}

fn inotify_init1(cx: &mut CurrentTask<'_>, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let vfs = &cx.kernel().vfs;
    let file = Inotify::open(&vfs.mounts.watches, &vfs.inotify, flags.difference(OpenFlags::CLOEXEC))?;
    install(cx, file, flags)
}

fn instance(file: &Arc<FileDescription>) -> Result<&Inotify, Errno> {
    file.ops.as_any().downcast_ref::<Inotify>().ok_or(Errno::EINVAL)
}

fn inotify_add_watch(cx: &mut CurrentTask<'_>, fd: FdNum, path: UserStr, mask: u32) -> SyscallResult {
    /// `IN_ONLYDIR`.
    const ONLYDIR: u32 = 0x0100_0000;
    /// `IN_DONT_FOLLOW`.
    const DONT_FOLLOW: u32 = 0x0200_0000;
    /// All bits that mean something, `IN_UNMOUNT` and the like included.
    const VALID: u32 = ALL_EVENTS | 0xf700_e000;
    if mask & VALID == 0 {
        return Err(Errno::EINVAL);
    }
    let file = cx.fds()?.get(fd)?;
    if mask & MASK_ADD != 0 && mask & MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    let inotify = instance(&file)?;
    let caller = Caller::of(cx.task)?;
    let flags = if mask & DONT_FOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    let Place::Path(place) = resolve(cx, &caller, AT_FDCWD, path, flags)? else { return Err(Errno::EINVAL) };
    let attr = place.inode().attr();
    if mask & ONLYDIR != 0 && attr.kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    perm::check_mode(&caller.creds, &attr, MAY_READ)?;
    ret(inotify.watch(place.inode(), mask)?)
}

fn inotify_rm_watch(cx: &mut CurrentTask<'_>, fd: FdNum, wd: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    instance(&file)?.unwatch(wd)?;
    ok()
}
