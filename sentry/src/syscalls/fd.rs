//! Descriptors: close, dup, fcntl, ioctl dispatch.

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::fs::pipe::PipeEnd;
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::vfs::{FdNum, FdTable, FileDescription, OpenFlags};

syscall_table! {
    3 close(fd: FdNum);
    16 ioctl(fd: FdNum, cmd: u32, arg: UserAddr);
    32 dup(fd: FdNum);
    33 dup2(old: FdNum, new: FdNum);
    72 fcntl(fd: FdNum, cmd: i32, arg: u64);
    292 dup3(old: FdNum, new: FdNum, flags: u32);
    436 close_range(first: u32, last: u32, flags: u32);
}

/// RLIMIT_NOFILE of the task.
#[must_use]
pub fn nofile(cx: &CurrentTask<'_>) -> u64 {
    cx.task.group.limit(crate::kernel::limits::resource::NOFILE)
}

/// Opens `file` at the lowest free descriptor; O_CLOEXEC in `flags` counts.
///
/// # Errors
/// `EMFILE`.
pub fn install(cx: &mut CurrentTask<'_>, file: Arc<FileDescription>, flags: OpenFlags) -> SyscallResult {
    let fd = cx.fds()?.install(file, flags.contains(OpenFlags::CLOEXEC), 0, nofile(cx))?;
    ret(fd.0)
}

/// Opens two files and writes their numbers to the guest as `int[2]`; on any failure neither stays open.
///
/// # Errors
/// `EMFILE`; `EFAULT`.
pub fn install_pair(
    cx: &mut CurrentTask<'_>,
    first: Arc<FileDescription>,
    second: Arc<FileDescription>,
    flags: OpenFlags,
    at: UserAddr,
) -> SyscallResult {
    let (fds, limit, cloexec) = (cx.fds()?, nofile(cx), flags.contains(OpenFlags::CLOEXEC));
    let a = fds.install(first, cloexec, 0, limit)?;
    let written = fds.install(second, cloexec, 0, limit).and_then(|b| {
        let done = cx.mm()?.write_obj(at, &[a.0, b.0]);
        done.inspect_err(|_| drop(fds.remove(b)))
    });
    if let Err(e) = written {
        drop(fds.remove(a));
        return Err(e);
    }
    ok()
}

/// What closing a descriptor does to its file, beyond dropping the reference.
pub fn closed(cx: &CurrentTask<'_>, fds: &FdTable, file: Arc<FileDescription>) {
    file.ops.flush(cx, &file);
    fds.lock_owner.closed(&file);
    drop(file);
}

fn close(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    let fds = cx.fds()?;
    let file = fds.remove(fd)?;
    closed(cx, &fds, file);
    ok()
}

fn dup(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    install(cx, file, OpenFlags::default())
}

fn dup_to(cx: &mut CurrentTask<'_>, old: FdNum, new: FdNum, cloexec: bool) -> SyscallResult {
    let fds = cx.fds()?;
    let file = fds.get(old)?;
    if let Some(replaced) = fds.install_at(new, file, cloexec, nofile(cx))? {
        closed(cx, &fds, replaced);
    }
    ret(new.0)
}

fn dup2(cx: &mut CurrentTask<'_>, old: FdNum, new: FdNum) -> SyscallResult {
    if old == new {
        cx.fds()?.get(old)?;
        return ret(new.0);
    }
    dup_to(cx, old, new, false)
}

fn dup3(cx: &mut CurrentTask<'_>, old: FdNum, new: FdNum, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if old == new || !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL);
    }
    dup_to(cx, old, new, flags.contains(OpenFlags::CLOEXEC))
}

fn close_range(cx: &mut CurrentTask<'_>, first: u32, last: u32, flags: u32) -> SyscallResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let mut fds = cx.fds()?;
    if flags & UNSHARE != 0 {
        fds = Arc::new(fds.fork());
        cx.task.shared.lock().fds = Some(fds.clone());
    }
    if flags & CLOEXEC != 0 {
        let within = |n: &i32| (first..=last).contains(&n.cast_unsigned());
        for fd in fds.numbers().into_iter().filter(within) {
            // A descriptor closed by a sibling meanwhile is none of our business.
            let _ = fds.set_cloexec(FdNum(fd), true);
        }
        return ok();
    }
    fds.remove_range(first, last, |_| true).into_iter().for_each(|file| closed(cx, &fds, file));
    ok()
}

fn fcntl(cx: &mut CurrentTask<'_>, fd: FdNum, cmd: i32, arg: u64) -> SyscallResult {
    let fds = cx.fds()?;
    let (file, cloexec) = fds.get_with_flags(fd)?;
    let allowed_on_path = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];
    if file.flags().contains(OpenFlags::PATH) && !allowed_on_path.contains(&cmd) {
        return Err(Errno::EBADF);
    }
    match cmd {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            let from = u32::try_from(arg).ok().filter(|from| u64::from(*from) < nofile(cx)).ok_or(Errno::EINVAL)?;
            let new = fds.install(file, cmd == libc::F_DUPFD_CLOEXEC, from, nofile(cx))?;
            ret(new.0)
        }
        libc::F_GETFD => ret(u64::from(cloexec)),
        libc::F_SETFD => {
            fds.set_cloexec(fd, arg & 1 != 0)?;
            ok()
        }
        // O_LARGEFILE is always on in a 64-bit process and shown by F_GETFL.
        libc::F_GETFL => ret((file.flags() | OpenFlags::LARGEFILE).bits()),
        libc::F_SETFL => {
            file.set_flags(OpenFlags::from_bits_truncate((arg & 0xffff_ffff) as u32));
            ok()
        }
        libc::F_GETPIPE_SZ => ret(pipe_of(&file)?.pipe().capacity()),
        libc::F_SETPIPE_SZ => {
            let size = usize::try_from(arg).map_err(|_| Errno::EINVAL)?;
            const CAP_SYS_RESOURCE: u32 = 24;
            ret(pipe_of(&file)?.pipe().set_capacity(size, cx.creds().has_cap(CAP_SYS_RESOURCE))?)
        }
        libc::F_ADD_SEALS => super::memfd::add_seals(&file, UserAddr(arg)),
        libc::F_GET_SEALS => super::memfd::get_seals(&file),
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            super::fs_lock::record_lock(cx, (fd, file), cmd, UserAddr(arg))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn pipe_of(file: &FileDescription) -> Result<&PipeEnd, Errno> {
    file.ops.as_any().downcast_ref::<PipeEnd>().ok_or(Errno::EBADF)
}

fn ioctl(cx: &mut CurrentTask<'_>, fd: FdNum, cmd: u32, arg: UserAddr) -> SyscallResult {
    let (file, _) = cx.fds()?.get_with_flags(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    match u64::from(cmd) {
        libc::FIONBIO => {
            let on = cx.mm()?.read_obj::<i32>(arg)? != 0;
            let flags = file.flags();
            file.set_flags(if on { flags | OpenFlags::NONBLOCK } else { flags.difference(OpenFlags::NONBLOCK) });
            ok()
        }
        libc::FIOCLEX | libc::FIONCLEX => {
            cx.fds()?.set_cloexec(fd, u64::from(cmd) == libc::FIOCLEX)?;
            ok()
        }
        _ => file.ops.clone().ioctl(cx, &file, cmd, arg),
    }
}
