//! Sending signals.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::exit;
use crate::kernel::limits::resource;
use crate::kernel::pids::PidTable;
use crate::kernel::signal::action::{SIG_DFL, SIG_IGN, SigAction};
use crate::kernel::signal::info::{STOPS, SigInfo, SigSet, bit};
use crate::kernel::signal::queue::Queued;
use crate::kernel::signal::{pending_set, stop};
use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::thread_group::ThreadGroup;

fn answer(queued: Queued, info: &SigInfo) -> Result<(), Errno> {
    // Only sigqueue's signals must not be lost silently; kill's are pending without their information.
    let lost =
        queued == Queued::NoInfo && info.signo >= super::info::SIGRTMIN && info.code != super::info::code::SI_USER;
    if lost { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// What sending does before anything is queued: SIGCONT and stop signals cancel each other, and SIGCONT continues.
/// Answers whether the signal need not be queued.
fn prepare(group: &Arc<ThreadGroup>, task: &Task, tasks: &[Arc<Task>], signo: i32) -> bool {
    if bit(signo) & STOPS != 0 {
        flush(group, tasks, bit(libc::SIGCONT));
    } else if signo == libc::SIGCONT {
        flush(group, tasks, STOPS);
        stop::continue_group(group);
    }
    // A blocked signal may find a handler later; a tracer wants to hear of ignored ones too.
    !crate::kernel::ptrace::is_traced(task)
        && task.signals.mask() & bit(signo) == 0
        && group.signals.actions().ignores(signo)
}

/// Drops pending signals of a process and its threads.
pub fn flush(group: &ThreadGroup, tasks: &[Arc<Task>], unwanted: SigSet) {
    group.signals.change(|q| q.flush(unwanted));
    tasks.iter().for_each(|t| t.signals.change(|q| q.flush(unwanted)));
}

/// Sends a signal to one thread. A dead thread's are dropped.
///
/// # Errors
/// `EAGAIN` for a real-time signal of `sigqueue` over RLIMIT_SIGPENDING.
pub fn send_to_task(task: &Arc<Task>, info: SigInfo) -> Result<(), Errno> {
    let group = &task.group;
    if info.signo == libc::SIGKILL {
        exit::kill_group(group, libc::SIGKILL);
        return Ok(());
    }
    let tasks = group.tasks();
    if prepare(group, task, &tasks, info.signo) {
        return Ok(());
    }
    let limit = group.limit(resource::SIGPENDING);
    let queued = task.signals.change(|q| q.push(info, limit, &task.kernel.queued_signals));
    group.signals.announce();
    if task.signals.mask() & bit(info.signo) == 0 {
        task.notify();
    }
    answer(queued, &info)
}

/// Sends a signal to a process: any thread that does not block it takes it.
///
/// # Errors
/// As [`send_to_task`].
pub fn send_to_group(group: &Arc<ThreadGroup>, info: SigInfo) -> Result<(), Errno> {
    if info.signo == libc::SIGKILL {
        exit::kill_group(group, libc::SIGKILL);
        return Ok(());
    }
    let tasks = group.tasks();
    let Some(leader) = tasks.iter().find(|t| t.is_leader()).or_else(|| tasks.first()) else { return Ok(()) };
    if prepare(group, leader, &tasks, info.signo) {
        return Ok(());
    }
    let limit = group.limit(resource::SIGPENDING);
    let queued = group.signals.change(|q| q.push(info, limit, &leader.kernel.queued_signals));
    group.signals.announce();
    let takes = |t: &&Arc<Task>| t.signals.mask() & bit(info.signo) == 0;
    if let Some(task) = Some(leader).filter(takes).or_else(|| tasks.iter().find(takes)) {
        task.notify();
    }
    answer(queued, &info)
}

/// Sends a signal to every process of a process group; answers how many there are.
pub fn send_to_pgrp(pids: &PidTable, pgid: i32, info: SigInfo) -> usize {
    let members = pids.tree().process_group(pgid);
    for group in &members {
        // A full queue loses the signal for that member, as in Linux.
        let _ = send_to_group(group, info);
    }
    members.len()
}

/// Offers process-directed signals, which `from` will not take any more, to its siblings.
pub fn retarget(group: &ThreadGroup, from: &Task, which: SigSet) {
    for task in group.tasks() {
        if task.tid != from.tid && which & !task.signals.mask() != 0 {
            task.notify();
        }
    }
}

/// Makes the calling task take `info`, whatever it blocks or ignores: a fault. Where it does, the default happens.
pub fn force(cx: &mut CurrentTask<'_>, info: SigInfo) {
    let (task, group) = (cx.task, &cx.task.group);
    let actions = group.signals.actions();
    let blocked = task.signals.mask() & bit(info.signo) != 0;
    if blocked || actions.get(info.signo).handler == SIG_IGN {
        actions.set(info.signo, SigAction { handler: SIG_DFL, ..actions.get(info.signo) });
    }
    if blocked {
        super::set_mask(cx, task.signals.mask() & !bit(info.signo));
    }
    task.signals.change(|q| q.push(info, u64::MAX, &task.kernel.queued_signals));
    group.signals.announce();
}

/// Makes `info` pending for one thread, whatever the limits: a signal that a tracer chose.
pub fn force_pending(task: &Arc<Task>, info: SigInfo) {
    task.signals.change(|q| q.push(info, u64::MAX, &task.kernel.queued_signals));
    task.group.signals.announce();
}

/// After `sigaction` set `signo` to be ignored: what is pending goes.
pub fn forget_ignored(group: &ThreadGroup, signo: i32) {
    flush(group, &group.tasks(), bit(signo));
}

/// Makes all threads that have deliverable process signals look around (one of them just died).
pub fn redistribute(group: &ThreadGroup) {
    for task in group.tasks() {
        if pending_set(&task) & !task.signals.mask() != 0 {
            task.notify();
        }
    }
}
