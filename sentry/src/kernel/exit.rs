//! The end of threads and processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::kernel::futex;
use crate::kernel::pids::{Forgotten, Tree};
use crate::kernel::ptrace;
use crate::kernel::session;
use crate::kernel::signal::action::{SIG_IGN, sa};
use crate::kernel::signal::info::{SigInfo, code};
use crate::kernel::signal::{self, send_to_group, send_to_task, stop};
use crate::kernel::task::{CurrentTask, Task, Tid, flags};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::Events;

/// Clock ticks a second, as `times(2)` counts (USER_HZ).
pub const USER_HZ: i64 = 100;

/// Nanoseconds as clock ticks.
#[must_use]
pub fn ticks(nanos: u64) -> i64 {
    i64::try_from(nanos / 10_000_000).unwrap_or(i64::MAX)
}

/// Makes all threads of a process exit; the first status stays. In `wait(2)` form: a signal number for a kill.
pub fn kill_group(group: &ThreadGroup, status: i32) {
    let mut state = group.state.lock();
    state.exiting.get_or_insert(status);
    for task in &state.tasks {
        task.raise(flags::EXIT);
    }
}

/// `exit_group(2)` by the calling task.
pub fn exit_group(cx: &mut CurrentTask<'_>, status: i32) {
    kill_group(&cx.task.group, (status & 0xff) << 8);
    exit_current(cx, None);
}

/// Ends the calling task. `status` is what `exit(2)` was given, in `wait(2)` form; `None` takes the process's.
pub fn exit_current(cx: &mut CurrentTask<'_>, status: Option<i32>) {
    if std::mem::replace(&mut cx.own.exiting, true) {
        return;
    }
    // Held places in wait queues go first, with what the call held.
    cx.own.waiting = None;
    cx.own.restart = crate::kernel::task::Restart::None;
    let status = status.or(cx.task.group.state.lock().exiting).unwrap_or(0);
    cx.task.exit_status.store(status, Ordering::SeqCst);
    release_memory(cx);
    drop(cx.own.sem_undo.take());
    release_files(cx);
    leave_group(cx);
}

/// Lets go of the address space: robust futexes, `clear_tid`, a waiting `vfork` parent, then the memory itself.
pub fn release_memory(cx: &mut CurrentTask<'_>) {
    futex::robust::exit(cx);
    if let (tid, Ok(mm)) = (std::mem::take(&mut cx.own.clear_tid), cx.mm())
        && tid != 0
        && Arc::strong_count(&mm) > 1
    {
        // A bad address is the program's own business.
        let _ = mm.write_obj(abi::UserAddr(tid), &0u32);
        let _ = futex::wake_at(cx, abi::UserAddr(tid), 1);
    }
    let shared = cx.task.shared.lock().mm.take();
    let mm = cx.own.mm.take();
    if let Some(mm) = &mm {
        let mut state = cx.task.group.state.lock();
        state.dead_threads.max_rss = state.dead_threads.max_rss.max(mm.most_resident() / 1024);
        drop(state);
        // Ours, the copy others may read, and nobody else: no task will run in it again.
        if Arc::strong_count(mm) <= 2 {
            cx.cpu.forget(&mm.space());
        }
    }
    drop(shared);
    drop(mm);
    if let Some(vfork) = cx.own.vfork_done.take() {
        vfork.finish();
    }
}

fn release_files(cx: &mut CurrentTask<'_>) {
    let (fds, fs) = {
        let mut shared = cx.task.shared.lock();
        (shared.fds.take(), shared.fs.take())
    };
    if let Some(Ok(table)) = fds.map(Arc::try_unwrap) {
        for file in table.remove_range(0, u32::MAX, |_| true) {
            file.ops.flush(cx, &file);
        }
    }
    drop(fs);
}

/// What to do once the tree lock is given up.
#[derive(Default)]
struct Aftermath {
    signals: Vec<(Arc<ThreadGroup>, SigInfo)>,
    task_signals: Vec<(Arc<Task>, SigInfo)>,
    wake: Vec<Arc<ThreadGroup>>,
    orphan_candidates: Vec<i32>,
    session_leader: Option<i32>,
    dropped: Vec<Forgotten>,
}

fn leave_group(cx: &mut CurrentTask<'_>) {
    let (kernel, task, group) = (cx.kernel().clone(), cx.task.clone(), cx.task.group.clone());
    let mut after = Aftermath::default();
    let tracer = end_tracing(&task);
    let (last, exec) = {
        let mut tree = task.pids().tree();
        let (last, exec) = remove_thread(&task);
        if !task.is_leader() && tracer.is_none() {
            after.dropped.push((None, tree.remove_task(task.tid)));
        }
        if last {
            bury(&mut tree, &group, &mut after);
        }
        (last, exec)
    };
    if let Some(tracer) = tracer.filter(|_| !task.is_leader()) {
        // A standard signal is not refused.
        let info = SigInfo::child(libc::SIGCHLD, code::CLD_EXITED, task.tid.0, task.creds().uid[0], 0, (0, 0));
        let _ = send_to_group(&tracer, info);
        tracer.child_queue.wake(Events::IN);
    }
    if !last {
        signal::send::redistribute(&group);
        stop::complete_if_all_stopped(&group);
        if let Some(exec) = exec {
            exec.notify();
        }
        return;
    }
    let status = group.state.lock().zombie.unwrap_or(0);
    settle(&kernel, &group, after);
    kernel.process_ended(&group, status);
}

/// A traced task ends: its tracer waits for it like for a child. Answers the tracer.
fn end_tracing(task: &Arc<Task>) -> Option<Arc<ThreadGroup>> {
    let tracer = task.ptrace.tracer()?;
    let status = task.exit_status.load(Ordering::SeqCst);
    let mut state = task.ptrace.0.lock();
    state.stop = None;
    // A process's first thread ends, for waits, when the process does.
    state.ended = (!task.is_leader()).then_some(status);
    Some(tracer)
}

/// Takes a thread out of its process; answers whether it was the last, and who waits for it in `execve`.
fn remove_thread(task: &Arc<Task>) -> (bool, Option<Arc<Task>>) {
    let mut state = task.group.state.lock();
    let before = state.tasks.len();
    state.tasks.retain(|t| !Arc::ptr_eq(t, task));
    if before != state.tasks.len() {
        let usage = task.usage();
        task.container().usage.note_gone(usage.user + usage.system, usage.user);
        state.dead_threads = state.dead_threads.plus(usage);
    }
    let exec = state.exec.and_then(|tid| state.tasks.iter().find(|t| t.tid == tid).cloned());
    (state.tasks.is_empty(), exec)
}

/// The process has no thread left: a zombie, childless.
fn bury(tree: &mut Tree, group: &Arc<ThreadGroup>, after: &mut Aftermath) {
    let leader_status = tree.task(group.tgid).map_or(0, |t| t.exit_status.load(Ordering::SeqCst));
    let (children, parent, pgid, sid) = {
        let mut state = group.state.lock();
        state.zombie = Some(state.exiting.unwrap_or(leader_status));
        group.news.store(true, Ordering::SeqCst);
        state.stop = None;
        (std::mem::take(&mut state.children), state.parent.upgrade(), state.pgid, state.sid)
    };
    group.timers.clear();
    reparent(tree, group, children, after);
    after.orphan_candidates.push(pgid);
    if sid == group.tgid.0 {
        after.session_leader = Some(sid);
    }
    forget_tracees(tree, group, after);
    let tracer = tree.task(group.tgid).and_then(|leader| leader.ptrace.tracer());
    match tracer.filter(|tracer| parent.as_ref().is_none_or(|p| !Arc::ptr_eq(p, tracer))) {
        // The parent hears of it after the tracer.
        Some(tracer) => {
            let status = group.state.lock().zombie.unwrap_or(0);
            if let Some(leader) = tree.task(group.tgid) {
                leader.ptrace.0.lock().ended = Some(status);
            }
            after.signals.push((tracer.clone(), child_info(tree, group, libc::SIGCHLD, status)));
            after.wake.push(tracer);
        }
        None => tell_parent(tree, group, parent, after),
    }
}

/// The process traces nobody any more; those that have ended are forgotten, or left to their parents.
fn forget_tracees(tree: &mut Tree, group: &Arc<ThreadGroup>, after: &mut Aftermath) {
    for task in ptrace::tracer::gone(group) {
        after.dropped.push(ptrace::tracer::release(tree, &task));
        if task.is_leader() {
            tell_of_released(tree, &task, after);
        }
    }
}

/// A zombie whose tracer is through with it is its parent's again.
fn tell_of_released(tree: &mut Tree, leader: &Arc<Task>, after: &mut Aftermath) {
    let parent = leader.group.state.lock().parent.upgrade();
    if leader.group.is_zombie() {
        tell_parent(tree, &leader.group, parent, after);
    }
}

/// A tracer has waited for the end of `task`: it is forgotten, or left to its parent. The tree lock is not held.
pub fn release_traced(kernel: &Arc<crate::kernel::Kernel>, task: &Arc<Task>) {
    let mut after = Aftermath::default();
    {
        let mut tree = task.pids().tree();
        after.dropped.push(ptrace::tracer::release(&mut tree, task));
        task.ptrace.0.lock().ended = None;
        if task.is_leader() {
            tell_of_released(&mut tree, task, &mut after);
        }
    }
    settle(kernel, &task.group, after);
}

/// Finds children a new parent: the nearest living subreaper above, else the first process.
fn reparent(tree: &mut Tree, group: &Arc<ThreadGroup>, children: Vec<Arc<ThreadGroup>>, after: &mut Aftermath) {
    if children.is_empty() {
        return;
    }
    let heir = heir_of(tree, group);
    for child in children {
        {
            let mut state = child.state.lock();
            state.parent = heir.as_ref().map(Arc::downgrade).unwrap_or_default();
            state.exit_signal = libc::SIGCHLD;
            after.orphan_candidates.push(state.pgid);
            for task in &state.tasks {
                let signo = task.death_signal.load(Ordering::Relaxed);
                if signo != 0 {
                    let info = SigInfo::user(signo, code::SI_USER, group.tgid.0, 0);
                    after.task_signals.push((task.clone(), info));
                }
            }
        }
        if let Some(heir) = &heir {
            heir.state.lock().children.push(child.clone());
        }
        if child.is_zombie() {
            tell_parent(tree, &child, heir.clone(), after);
        }
    }
}

fn heir_of(tree: &Tree, group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let mut at = group.state.lock().parent.upgrade();
    while let Some(candidate) = at {
        let state = candidate.state.lock();
        if state.subreaper && state.zombie.is_none() && !state.tasks.is_empty() {
            drop(state);
            return Some(candidate);
        }
        at = state.parent.upgrade();
        drop(state);
    }
    tree.group(Tid(1)).filter(|init| !Arc::ptr_eq(init, group) && !init.is_zombie()).cloned()
}

/// A zombie's parent hears of it; one that ignores its children never sees it.
fn tell_parent(tree: &mut Tree, group: &Arc<ThreadGroup>, parent: Option<Arc<ThreadGroup>>, after: &mut Aftermath) {
    let (signo, status) = {
        let state = group.state.lock();
        (state.exit_signal, state.zombie.unwrap_or(0))
    };
    let Some(parent) = parent else {
        // Made from outside, or an orphan whose namespace's first process has ended: nobody will wait for it.
        after.dropped.push(tree.forget(group.tgid));
        return;
    };
    let action = parent.signals.actions().get(libc::SIGCHLD);
    let ignored = signo == libc::SIGCHLD && (action.handler == SIG_IGN || action.flags & sa::NOCLDWAIT != 0);
    if signo != 0 && !(ignored && action.handler == SIG_IGN) {
        after.signals.push((parent.clone(), child_info(tree, group, signo, status)));
    }
    if ignored {
        parent.state.lock().forget_child(group);
        after.dropped.push(tree.forget(group.tgid));
    }
    after.wake.push(parent);
}

fn child_info(tree: &Tree, group: &ThreadGroup, signo: i32, status: i32) -> SigInfo {
    let uid = tree.task(group.tgid).map_or(0, |t| t.creds().uid[0]);
    let usage = group.state.lock().dead_threads;
    let (code, status) = wait_code(status);
    SigInfo::child(signo, code, group.tgid.0, uid, status, (ticks(usage.user), ticks(usage.system)))
}

/// `si_code` and `si_status` of a `wait(2)` status.
#[must_use]
pub fn wait_code(status: i32) -> (i32, i32) {
    match status & 0x7f {
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        signo => (code::CLD_KILLED, signo),
    }
}

fn settle(kernel: &crate::kernel::Kernel, group: &Arc<ThreadGroup>, after: Aftermath) {
    if let Some(sid) = after.session_leader {
        session::leader_gone(kernel, &group.container.ns.pids, sid, true);
    }
    for (task, info) in after.task_signals {
        // A full queue loses it, as in Linux.
        let _ = send_to_task(&task, info);
    }
    for (parent, info) in after.signals {
        let _ = send_to_group(&parent, info);
    }
    for parent in after.wake {
        parent.child_queue.wake(Events::IN);
    }
    session::wake_orphans(&group.container.ns.pids, &after.orphan_candidates);
    group.exit_queue.wake(Events::IN | Events::RDNORM);
    drop(after.dropped);
}
