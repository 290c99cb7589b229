//! eventfd and timerfd calls, pipes.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::fs::eventfd::EventFd;
use crate::fs::pipe;
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::{TimerFd, TimerFdFile};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::fd::{install, install_pair};
use crate::vfs::{FdNum, OpenFlags};

syscall_table! {
    22 pipe(fds: UserAddr);
    282 signalfd(fd: FdNum, mask: UserAddr, size: usize);
    283 timerfd_create(clockid: i32, flags: u32);
    284 eventfd(initval: u32);
    286 timerfd_settime(fd: FdNum, flags: u32, new: UserAddr, old: UserAddr);
    287 timerfd_gettime(fd: FdNum, value: UserAddr);
    289 signalfd4(fd: FdNum, mask: UserAddr, size: usize, flags: u32) Partial("ready when the process that made it has a signal");
    290 eventfd2(initval: u32, flags: u32);
    293 pipe2(fds: UserAddr, flags: u32);
}

fn pipe(cx: &mut CurrentTask<'_>, fds: UserAddr) -> SyscallResult {
    pipe2(cx, fds, 0)
}

fn pipe2(cx: &mut CurrentTask<'_>, fds: UserAddr, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    // O_NOTIFICATION_PIPE (O_EXCL) is ENOPKG's; everything else unknown is EINVAL.
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let (reader, writer) = pipe::pipe(cx.kernel(), flags.difference(OpenFlags::CLOEXEC));
    install_pair(cx, reader, writer, flags, fds)
}

fn eventfd(cx: &mut CurrentTask<'_>, initval: u32) -> SyscallResult {
    eventfd2(cx, initval, 0)
}

fn eventfd2(cx: &mut CurrentTask<'_>, initval: u32, flags: u32) -> SyscallResult {
    const SEMAPHORE: u32 = 1;
    let open = OpenFlags::from_bits_retain(flags & !SEMAPHORE);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(open) {
        return Err(Errno::EINVAL);
    }
    let file = EventFd::open(u64::from(initval), flags & SEMAPHORE != 0, open.difference(OpenFlags::CLOEXEC));
    install(cx, file, open)
}

fn signalfd(cx: &mut CurrentTask<'_>, fd: FdNum, mask: UserAddr, size: usize) -> SyscallResult {
    signalfd4(cx, fd, mask, size, 0)
}

fn signalfd4(cx: &mut CurrentTask<'_>, fd: FdNum, mask: UserAddr, size: usize, flags: u32) -> SyscallResult {
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let wanted: u64 = cx.mm()?.read_obj(mask)?;
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    if fd.0 == -1 {
        let file = SignalFd::open(cx.task, wanted, flags.difference(OpenFlags::CLOEXEC));
        return install(cx, file, flags);
    }
    let file = cx.fds()?.get(fd)?;
    file.ops.as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?.set_wanted(wanted);
    ret(fd.0)
}

fn timerfd_create(cx: &mut CurrentTask<'_>, clockid: i32, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    let known = [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_REALTIME_ALARM,
        libc::CLOCK_BOOTTIME_ALARM,
    ];
    if !known.contains(&clockid) || !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let file = TimerFd::open(cx.kernel(), clockid, flags.difference(OpenFlags::CLOEXEC));
    install(cx, file, flags)
}

fn timer_of(cx: &CurrentTask<'_>, fd: FdNum) -> Result<Arc<TimerFd>, Errno> {
    let file = cx.fds()?.get(fd)?;
    file.ops.as_any().downcast_ref::<TimerFdFile>().map(|f| f.0.clone()).ok_or(Errno::EINVAL)
}

fn write_spec(cx: &CurrentTask<'_>, at: UserAddr, (value, interval): (i64, i64)) -> Result<(), Errno> {
    let spec = [Timespec::from_nanos(interval), Timespec::from_nanos(value)];
    cx.mm()?.write_obj(at, &spec)
}

fn timerfd_settime(cx: &mut CurrentTask<'_>, fd: FdNum, flags: u32, new: UserAddr, old: UserAddr) -> SyscallResult {
    const ABSTIME: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = cx.mm()?.read_obj::<[Timespec; 2]>(new)?;
    let (interval, value) = (interval.to_nanos()?, value.to_nanos()?);
    let before = timer_of(cx, fd)?.set(value, interval, flags & ABSTIME != 0)?;
    if !old.is_null() {
        write_spec(cx, old, before)?;
    }
    ok()
}

fn timerfd_gettime(cx: &mut CurrentTask<'_>, fd: FdNum, value: UserAddr) -> SyscallResult {
    let now = timer_of(cx, fd)?.get();
    write_spec(cx, value, now)?;
    ok()
}
