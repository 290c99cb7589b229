//! Scheduling: policies are kept and shown, affinity too; all tasks share the guest's CPUs alike.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::kernel::limits::resource;
use crate::kernel::op::{Flow, SyscallResult, ok, ret};
use crate::kernel::task::{CurrentTask, SchedAttr, Task, Tid};
use crate::syscall_table;
use crate::syscalls::rlimit::may_nice;

syscall_table! {
    24 sched_yield();
    142 sched_setparam(pid: i32, param: UserAddr) Partial("kept and shown");
    143 sched_getparam(pid: i32, param: UserAddr);
    144 sched_setscheduler(pid: i32, policy: i32, param: UserAddr) Partial("kept and shown");
    145 sched_getscheduler(pid: i32);
    146 sched_get_priority_max(policy: i32);
    147 sched_get_priority_min(policy: i32);
    148 sched_rr_get_interval(pid: i32, interval: UserAddr);
    203 sched_setaffinity(pid: i32, len: usize, mask: UserAddr) Partial("kept and shown; a task may still run elsewhere");
    204 sched_getaffinity(pid: i32, len: usize, mask: UserAddr);
    309 getcpu(cpu: UserAddr, node: UserAddr, cache: u64);
    314 sched_setattr(pid: i32, attr: UserAddr, flags: u32) Partial("kept and shown; no SCHED_DEADLINE");
    315 sched_getattr(pid: i32, attr: UserAddr, size: u32, flags: u32);
}

const SCHED_OTHER: i32 = 0;
const SCHED_FIFO: i32 = 1;
const SCHED_RR: i32 = 2;
const SCHED_BATCH: i32 = 3;
const SCHED_IDLE: i32 = 5;
const SCHED_DEADLINE: i32 = 6;
const RESET_ON_FORK: i32 = 0x4000_0000;
const CAP_SYS_NICE: u32 = 23;

fn target(cx: &CurrentTask<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    match pid {
        0 => Ok(cx.task.clone()),
        p if p < 0 => Err(Errno::EINVAL),
        p => cx.task.pids().task(Tid(p)).ok_or(Errno::ESRCH),
    }
}

/// The task goes behind all others once it has its answer.
fn sched_yield(cx: &mut CurrentTask<'_>) -> SyscallResult {
    let worker = cx.task.last_cpu.load(std::sync::atomic::Ordering::Relaxed);
    cx.kernel().sched.yield_worker(worker);
    ok()
}

fn priority_range(policy: i32) -> Result<(i32, i32), Errno> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_get_priority_max(_cx: &mut CurrentTask<'_>, policy: i32) -> SyscallResult {
    ret(priority_range(policy)?.1)
}

fn sched_get_priority_min(_cx: &mut CurrentTask<'_>, policy: i32) -> SyscallResult {
    ret(priority_range(policy)?.0)
}

/// Applies a policy after the checks of `__sched_setscheduler`.
fn apply(cx: &CurrentTask<'_>, task: &Task, new: SchedAttr) -> Result<(), Errno> {
    let (low, high) = priority_range(new.policy)?;
    if new.policy == SCHED_DEADLINE || !(low..=high).contains(&new.priority) {
        return Err(Errno::EINVAL);
    }
    let (me, them) = (cx.creds(), task.creds());
    let privileged = me.has_cap(CAP_SYS_NICE);
    if !privileged {
        let real_time = matches!(new.policy, SCHED_FIFO | SCHED_RR);
        let allowed = task.group.limit(resource::RTPRIO);
        let old = *task.sched_attr.lock();
        let too_high = real_time && new.priority > old.priority && u64::from(new.priority.unsigned_abs()) > allowed;
        let foreign = me.euid() != them.euid() && me.euid() != them.uid[0];
        if too_high || foreign || !may_nice(cx, task, new.nice) || old.reset_on_fork && !new.reset_on_fork {
            return Err(Errno::EPERM);
        }
    }
    *task.sched_attr.lock() = new;
    Ok(())
}

fn sched_setscheduler(cx: &mut CurrentTask<'_>, pid: i32, policy: i32, param: UserAddr) -> SyscallResult {
    if policy < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = cx.mm()?.read_obj(param)?;
    let task = target(cx, pid)?;
    let old = *task.sched_attr.lock();
    let reset_on_fork = policy & RESET_ON_FORK != 0;
    apply(cx, &task, SchedAttr { policy: policy & !RESET_ON_FORK, priority, reset_on_fork, ..old })?;
    ok()
}

fn sched_setparam(cx: &mut CurrentTask<'_>, pid: i32, param: UserAddr) -> SyscallResult {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = cx.mm()?.read_obj(param)?;
    let task = target(cx, pid)?;
    let old = *task.sched_attr.lock();
    apply(cx, &task, SchedAttr { priority, ..old })?;
    ok()
}

fn sched_getparam(cx: &mut CurrentTask<'_>, pid: i32, param: UserAddr) -> SyscallResult {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = target(cx, pid)?.sched_attr.lock().priority;
    cx.mm()?.write_obj(param, &priority)?;
    ok()
}

fn sched_getscheduler(cx: &mut CurrentTask<'_>, pid: i32) -> SyscallResult {
    let attr = *target(cx, pid)?.sched_attr.lock();
    ret(attr.policy | if attr.reset_on_fork { RESET_ON_FORK } else { 0 })
}

fn sched_rr_get_interval(cx: &mut CurrentTask<'_>, pid: i32, interval: UserAddr) -> SyscallResult {
    let policy = target(cx, pid)?.sched_attr.lock().policy;
    let nanos = match policy {
        SCHED_RR => 100_000_000,
        SCHED_FIFO => 0,
        _ => crate::kernel::sched::TIME_SLICE,
    };
    cx.mm()?.write_obj(interval, &Timespec::from_nanos(nanos))?;
    ok()
}

/// `SCHED_ATTR_SIZE_VER0` and with the utilisation clamps.
const ATTR_V0: u32 = 48;
const ATTR_V1: usize = 56;
const FLAG_RESET_ON_FORK: u64 = 1;
const FLAGS_KNOWN: u64 = 0x7f;

fn sched_setattr(cx: &mut CurrentTask<'_>, pid: i32, attr: UserAddr, flags: u32) -> SyscallResult {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    let size: u32 = mm.read_obj(attr)?;
    let size = if size == 0 { ATTR_V0 } else { size };
    if size < ATTR_V0 || u64::from(size) > abi::PAGE_SIZE {
        mm.write_obj(attr, &56u32)?;
        return Err(Errno::E2BIG);
    }
    let mut raw = vec![0u8; (size as usize).max(ATTR_V1)];
    mm.read_bytes(attr, &mut raw[..size as usize])?;
    if raw[ATTR_V1..].iter().any(|b| *b != 0) {
        mm.write_obj(attr, &56u32)?;
        return Err(Errno::E2BIG);
    }
    let word = |at: usize| i32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let flags = u64::from(word(8).cast_unsigned()) | u64::from(word(12).cast_unsigned()) << 32;
    if flags & !FLAGS_KNOWN != 0 || word(4) < 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(cx, pid)?;
    let old = *task.sched_attr.lock();
    let nice = if matches!(word(4), SCHED_OTHER | SCHED_BATCH) { word(16).clamp(-20, 19) } else { old.nice };
    let new =
        SchedAttr { policy: word(4), nice, priority: word(20), reset_on_fork: flags & FLAG_RESET_ON_FORK != 0, ..old };
    apply(cx, &task, new)?;
    ok()
}

fn sched_getattr(cx: &mut CurrentTask<'_>, pid: i32, attr: UserAddr, size: u32, flags: u32) -> SyscallResult {
    if attr.is_null() || u64::from(size) > abi::PAGE_SIZE || size < ATTR_V0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let now = *target(cx, pid)?.sched_attr.lock();
    let mut raw = [0u8; ATTR_V1];
    let told = (size as usize).min(ATTR_V1);
    raw[0..4].copy_from_slice(&u32::try_from(told).unwrap_or(ATTR_V0).to_le_bytes());
    raw[4..8].copy_from_slice(&now.policy.to_le_bytes());
    raw[8..16].copy_from_slice(&u64::from(now.reset_on_fork).to_le_bytes());
    raw[16..20].copy_from_slice(&now.nice.to_le_bytes());
    raw[20..24].copy_from_slice(&now.priority.to_le_bytes());
    if told == ATTR_V1 {
        raw[52..56].copy_from_slice(&1024u32.to_le_bytes());
    }
    cx.mm()?.write_bytes(attr, &raw[..told])?;
    ok()
}

/// All guest CPUs, as a mask.
fn all_cpus(cx: &CurrentTask<'_>) -> u64 {
    let n = cx.kernel().sched.workers.len().min(64);
    u64::MAX >> (64 - n.max(1))
}

fn sched_setaffinity(cx: &mut CurrentTask<'_>, pid: i32, len: usize, mask: UserAddr) -> SyscallResult {
    let mut raw = [0u8; 8];
    cx.mm()?.read_bytes(mask, &mut raw[..len.min(8)])?;
    let task = target(cx, pid).map_err(|_| Errno::ESRCH)?;
    let (me, them) = (cx.creds(), task.creds());
    if me.euid() != them.euid() && me.euid() != them.uid[0] && !me.has_cap(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let wanted = u64::from_le_bytes(raw) & all_cpus(cx);
    if wanted == 0 {
        return Err(Errno::EINVAL);
    }
    task.sched_attr.lock().affinity = wanted;
    ok()
}

fn sched_getaffinity(cx: &mut CurrentTask<'_>, pid: i32, len: usize, mask: UserAddr) -> SyscallResult {
    // Room for every CPU, in whole longs.
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let set = target(cx, pid).map_err(|_| Errno::ESRCH)?.sched_attr.lock().affinity;
    let set = if set == 0 { all_cpus(cx) } else { set };
    cx.mm()?.write_obj(mask, &set)?;
    Ok(Flow::Return(8))
}

fn getcpu(cx: &mut CurrentTask<'_>, cpu: UserAddr, node: UserAddr, _cache: u64) -> SyscallResult {
    let mm = cx.mm()?;
    if !cpu.is_null() {
        let index = cx.task.last_cpu.load(std::sync::atomic::Ordering::Relaxed);
        mm.write_obj(cpu, &u32::try_from(index).unwrap_or(0))?;
    }
    if !node.is_null() {
        mm.write_obj(node, &0u32)?;
    }
    ok()
}
