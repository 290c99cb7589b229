//! futex and its kin.

use abi::{Errno, Timespec, UserAddr};

use crate::kernel::futex::op::{self as ops, Requeue};
use crate::kernel::futex::wait::{self, Word};
use crate::kernel::futex::{ANY, pi, robust};
use crate::kernel::op::{Flow, SyscallResult, ok};
use crate::kernel::task::{CurrentTask, Tid};
use crate::syscall_table;

syscall_table! {
    202 futex(addr: UserAddr, op: u32, val: u32, timeout: UserAddr, addr2: UserAddr, val3: u32) Partial("no FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI, FUTEX_FD");
    273 set_robust_list(head: u64, len: u64);
    274 get_robust_list(pid: i32, head: UserAddr, len: UserAddr) Partial("of the calling thread only");
    449 futex_waitv(waiters: UserAddr, count: u32, flags: u32, timeout: UserAddr, clock: i32);
}

const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// A deadline on the kernel's monotonic clock. The difference of the clocks is taken now: a later step of the real
/// time does not move a wait under way.
fn absolute(cx: &CurrentTask<'_>, at: i64, realtime: bool) -> i64 {
    let clock = &cx.kernel().clock;
    if realtime { at.saturating_sub(clock.realtime()).saturating_add(clock.monotonic()) } else { at }
}

fn deadline(cx: &CurrentTask<'_>, timeout: UserAddr, relative: bool, realtime: bool) -> Result<Option<i64>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    let nanos = cx.mm()?.read_obj::<Timespec>(timeout)?.to_nanos()?;
    Ok(Some(if relative { cx.kernel().clock.monotonic().saturating_add(nanos) } else { absolute(cx, nanos, realtime) }))
}

/// A count argument: an int, whose negative values the kernel takes as one.
fn count(value: u32) -> u32 {
    if value.cast_signed() <= 0 { 1 } else { value }
}

fn second_count(value: u64) -> Result<u32, Errno> {
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    if low.cast_signed() < 0 { Err(Errno::EINVAL) } else { Ok(low) }
}

fn futex(
    cx: &mut CurrentTask<'_>,
    addr: UserAddr,
    op: u32,
    val: u32,
    timeout: UserAddr,
    addr2: UserAddr,
    val3: u32,
) -> SyscallResult {
    let private = op & PRIVATE != 0;
    let realtime = op & CLOCK_REALTIME != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    // FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_LOCK_PI2 know the flag.
    if realtime && !matches!(command, 9 | 11 | 13) {
        return Err(Errno::ENOSYS);
    }
    let requeue = |cx: &CurrentTask<'_>, expected| {
        // nr_wake below zero is an error here, and zero wakes none.
        let wake = second_count(u64::from(val))?;
        let moved = second_count(timeout.0)?;
        ops::requeue(cx, &Requeue { from: addr, to: addr2, private, wake, requeue: moved, expected })
    };
    match command {
        0 | 9 => {
            let bitset = if command == 0 { ANY } else { val3 };
            if bitset == 0 {
                return Err(Errno::EINVAL);
            }
            let deadline = deadline(cx, timeout, command == 0, realtime)?;
            wait::wait(cx, vec![Word { addr, value: val, bitset, private }], deadline)
        }
        1 => ops::wake(cx, addr, private, count(val), ANY).map(Flow::Return),
        10 => ops::wake(cx, addr, private, count(val), val3).map(Flow::Return),
        3 => requeue(cx, None).map(Flow::Return),
        4 => requeue(cx, Some(val3)).map(Flow::Return),
        5 => {
            let second = count(u32::try_from(timeout.0 & 0xffff_ffff).unwrap_or(0));
            ops::wake_op(cx, (addr, addr2), private, (count(val), second), val3).map(Flow::Return)
        }
        6 | 13 => {
            // FUTEX_LOCK_PI's timeout is always on the real-time clock.
            let deadline = deadline(cx, timeout, false, command == 6 || realtime)?;
            pi::lock(cx, addr, private, false, deadline)
        }
        8 => pi::lock(cx, addr, private, true, None),
        7 => pi::unlock(cx, addr, private).map(Flow::Return),
        _ => Err(Errno::ENOSYS),
    }
}

fn futex_waitv(
    cx: &mut CurrentTask<'_>,
    waiters: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserAddr,
    clock: i32,
) -> SyscallResult {
    const FUTEX2_SIZE_U32: u32 = 2;
    if flags != 0 || count == 0 || count > 128 || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let deadline = if timeout.is_null() {
        None
    } else {
        if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) {
            return Err(Errno::EINVAL);
        }
        deadline(cx, timeout, false, clock == libc::CLOCK_REALTIME)?
    };
    let mut raw = vec![[0u64; 3]; count as usize];
    cx.mm()?.read_bytes(waiters, zerocopy::IntoBytes::as_mut_bytes(raw.as_mut_slice()))?;
    let mut words = Vec::with_capacity(raw.len());
    for [value, addr, packed] in raw {
        let (flags, reserved) = (packed & 0xffff_ffff, packed >> 32);
        let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        if reserved != 0 || flags & !PRIVATE != FUTEX2_SIZE_U32 || value >> 32 != 0 {
            return Err(Errno::EINVAL);
        }
        let value = u32::try_from(value).map_err(|_| Errno::EINVAL)?;
        words.push(Word { addr: UserAddr(addr), value, bitset: ANY, private: flags & PRIVATE != 0 });
    }
    wait::wait(cx, words, deadline)
}

fn set_robust_list(cx: &mut CurrentTask<'_>, head: u64, len: u64) -> SyscallResult {
    if len != robust::HEAD_LEN {
        return Err(Errno::EINVAL);
    }
    cx.own.robust_list = (head, len);
    ok()
}

fn get_robust_list(cx: &mut CurrentTask<'_>, pid: i32, head: UserAddr, len: UserAddr) -> SyscallResult {
    if pid != 0 && pid != cx.task.tid.0 {
        cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?;
        return Err(Errno::EPERM);
    }
    let mm = cx.mm()?;
    mm.write_obj(len, &robust::HEAD_LEN)?;
    mm.write_obj(head, &cx.own.robust_list.0)?;
    ok()
}
