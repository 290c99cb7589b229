//! Resource limits and priorities.

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::kernel::limits::{Limit, resource};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::{CurrentTask, Task, Tid};
use crate::syscall_table;

syscall_table! {
    97 getrlimit(resource: u32, limit: UserAddr);
    140 getpriority(which: i32, who: i32);
    141 setpriority(which: i32, who: i32, prio: i32) Partial("kept and shown; all tasks run alike");
    160 setrlimit(resource: u32, limit: UserAddr) Partial("RLIMIT_RSS, RLIMIT_RTTIME are kept and shown only");
    251 ioprio_set(which: i32, who: i32, prio: i32) Partial("kept and shown");
    252 ioprio_get(which: i32, who: i32);
    302 prlimit64(pid: i32, resource: u32, new: UserAddr, old: UserAddr) Partial("as setrlimit");
}

const CAP_SYS_RESOURCE: u32 = 24;
const CAP_SYS_NICE: u32 = 23;

fn target(cx: &CurrentTask<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    if pid == 0 { Ok(cx.task.clone()) } else { cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH) }
}

fn set(cx: &CurrentTask<'_>, task: &Task, which: u32, new: Limit) -> Result<Limit, Errno> {
    let privileged = cx.creds().has_cap(CAP_SYS_RESOURCE);
    let nr_open = crate::vfs::fd_table::NR_OPEN;
    if new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    if which == resource::NOFILE && new.hard > nr_open {
        return Err(Errno::EPERM);
    }
    let (old, all) = {
        let mut limits = task.group.limits.lock();
        let old = limits.get(which).ok_or(Errno::EINVAL)?;
        if new.hard > old.hard && !privileged {
            return Err(Errno::EPERM);
        }
        limits.set(which, new);
        (old, *limits)
    };
    if which == resource::CPU {
        crate::kernel::timer_set::set_cpu_limit(cx.kernel(), &task.group, new.soft);
    }
    if let Some(mm) = task.mm() {
        mm.set_limits(all.for_memory(&task.creds()));
    }
    Ok(old)
}

fn getrlimit(cx: &mut CurrentTask<'_>, resource: u32, limit: UserAddr) -> SyscallResult {
    let now = cx.task.group.limits.lock().get(resource).ok_or(Errno::EINVAL)?;
    cx.mm()?.write_obj(limit, &[now.soft, now.hard])?;
    ok()
}

fn setrlimit(cx: &mut CurrentTask<'_>, resource: u32, limit: UserAddr) -> SyscallResult {
    let [soft, hard]: [u64; 2] = cx.mm()?.read_obj(limit)?;
    set(cx, cx.task, resource, Limit { soft, hard })?;
    ok()
}

fn prlimit64(cx: &mut CurrentTask<'_>, pid: i32, resource: u32, new: UserAddr, old: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    let new = if new.is_null() { None } else { Some(mm.read_obj::<[u64; 2]>(new)?) };
    let task = target(cx, pid)?;
    if task.group.tgid != cx.task.group.tgid {
        let (me, them) = (cx.creds(), task.creds());
        let same = them.uid[..3].iter().all(|u| *u == me.uid[0]) && them.gid[..3].iter().all(|g| *g == me.gid[0]);
        if !same && !me.has_cap(CAP_SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let before = match new {
        Some([soft, hard]) => set(cx, &task, resource, Limit { soft, hard })?,
        None => task.group.limits.lock().get(resource).ok_or(Errno::EINVAL)?,
    };
    if !old.is_null() {
        mm.write_obj(old, &[before.soft, before.hard])?;
    }
    ok()
}

/// The tasks that `which` and `who` name: 0 a thread, 1 a process group, 2 a user.
fn named(cx: &CurrentTask<'_>, which: i32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let all = || cx.task.pids().tasks();
    let found: Vec<_> = match which {
        0 => vec![target(cx, who)?],
        1 => {
            let pgid = if who == 0 { cx.task.group.pgid() } else { who };
            all().into_iter().filter(|t| t.group.pgid() == pgid).collect()
        }
        2 => {
            let uid = if who == 0 { cx.creds().uid[0] } else { who.cast_unsigned() };
            all().into_iter().filter(|t| t.creds().uid[0] == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// The highest priority of those named, as 20 minus the nice value.
fn getpriority(cx: &mut CurrentTask<'_>, which: i32, who: i32) -> SyscallResult {
    let best = named(cx, which, who)?.iter().map(|t| 20 - t.sched_attr.lock().nice).max();
    ret(best.unwrap_or(20))
}

/// Whether the caller may lower the nice value of a task to `nice`.
pub fn may_nice(cx: &CurrentTask<'_>, task: &Task, nice: i32) -> bool {
    let floor = 20 - i32::try_from(task.group.limit(resource::NICE).min(40)).unwrap_or(40);
    nice >= task.sched_attr.lock().nice || nice >= floor || cx.creds().has_cap(CAP_SYS_NICE)
}

fn owns(cx: &CurrentTask<'_>, task: &Task) -> bool {
    let (me, them) = (cx.creds(), task.creds());
    them.uid[0] == me.euid() || them.euid() == me.euid() || me.has_cap(CAP_SYS_NICE)
}

fn setpriority(cx: &mut CurrentTask<'_>, which: i32, who: i32, prio: i32) -> SyscallResult {
    let nice = prio.clamp(-20, 19);
    let mut answer = ok();
    for task in named(cx, which, who)? {
        if !owns(cx, &task) {
            answer = Err(Errno::EPERM);
        } else if !may_nice(cx, &task, nice) {
            answer = Err(Errno::EACCES);
        } else {
            task.sched_attr.lock().nice = nice;
        }
    }
    answer
}

/// `IOPRIO_WHO_*` count from 1.
fn ioprio_set(cx: &mut CurrentTask<'_>, which: i32, who: i32, prio: i32) -> SyscallResult {
    match prio >> 13 {
        0 if prio & 0x1fff != 0 => return Err(Errno::EINVAL),
        1 if !cx.creds().has_cap(CAP_SYS_NICE) => return Err(Errno::EPERM),
        0..=3 => {}
        _ => return Err(Errno::EINVAL),
    }
    for task in named(cx, which.saturating_sub(1), who)? {
        if !owns(cx, &task) {
            return Err(Errno::EPERM);
        }
        task.sched_attr.lock().io_priority = prio;
    }
    ok()
}

fn ioprio_get(cx: &mut CurrentTask<'_>, which: i32, who: i32) -> SyscallResult {
    let tasks = named(cx, which.saturating_sub(1), who)?;
    // Without one of its own, a task has best-effort 4.
    let of = |t: &Arc<Task>| Some(t.sched_attr.lock().io_priority).filter(|p| *p != 0).unwrap_or(2 << 13 | 4);
    ret(tasks.iter().map(of).min().unwrap_or(0))
}
