//! Process groups and sessions.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::{CurrentTask, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::syscall_table;

syscall_table! {
    109 setpgid(pid: i32, pgid: i32);
    111 getpgrp();
    112 setsid();
    121 getpgid(pid: i32);
    124 getsid(pid: i32);
    153 vhangup() Partial("EPERM: terminals hang up from their other side only");
}

fn getpgrp(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.task.group.pgid())
}

fn of(cx: &CurrentTask<'_>, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    if pid == 0 {
        return Ok(cx.task.group.clone());
    }
    cx.task.pids().task(Tid(pid)).map(|t| t.group.clone()).ok_or(Errno::ESRCH)
}

fn getpgid(cx: &mut CurrentTask<'_>, pid: i32) -> SyscallResult {
    ret(of(cx, pid)?.pgid())
}

fn getsid(cx: &mut CurrentTask<'_>, pid: i32) -> SyscallResult {
    ret(of(cx, pid)?.sid())
}

fn setpgid(cx: &mut CurrentTask<'_>, pid: i32, pgid: i32) -> SyscallResult {
    let me = &cx.task.group;
    let pid = if pid == 0 { me.tgid.0 } else { pid };
    let pgid = if pgid == 0 { pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let tree = cx.task.pids().tree();
    let group = tree.group(Tid(pid)).cloned().ok_or_else(|| {
        // A thread that is not the first is no process.
        if tree.task(Tid(pid)).is_some() { Errno::EINVAL } else { Errno::ESRCH }
    })?;
    let my_sid = me.sid();
    if !Arc::ptr_eq(&group, me) {
        let state = group.state.lock();
        if !state.parent.upgrade().is_some_and(|p| Arc::ptr_eq(&p, me)) {
            return Err(Errno::ESRCH);
        }
        if state.sid != my_sid {
            return Err(Errno::EPERM);
        }
        if state.did_exec {
            return Err(Errno::EACCES);
        }
    }
    if group.sid() == group.tgid.0 {
        return Err(Errno::EPERM);
    }
    if pgid != pid && !tree.process_group(pgid).iter().any(|g| g.sid() == my_sid) {
        return Err(Errno::EPERM);
    }
    group.state.lock().pgid = pgid;
    ok()
}

fn setsid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    let me = &cx.task.group;
    let tree = cx.task.pids().tree();
    let id = me.tgid.0;
    // A group leader would leave its members behind in another session.
    if !tree.process_group(id).is_empty() {
        return Err(Errno::EPERM);
    }
    let mut state = me.state.lock();
    (state.pgid, state.sid) = (id, id);
    ret(id)
}

fn vhangup(_cx: &mut CurrentTask<'_>) -> SyscallResult {
    Err(Errno::EPERM)
}
