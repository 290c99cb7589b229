//! The tracing side: whom a process traces, and what of them it waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::kernel::exit::wait_code;
use crate::kernel::pids::{Forgotten, Tree};
use crate::kernel::ptrace::{Stop, option, unlink};
use crate::kernel::task::{CurrentTask, Task, flags};
use crate::kernel::thread_group::ThreadGroup;

/// The signal numbers that may be injected, 0 for none.
///
/// # Errors
/// `EIO`.
pub fn signal_number(data: u64) -> Result<i32, Errno> {
    i32::try_from(data).ok().filter(|s| (0..=64).contains(s)).ok_or(Errno::EIO)
}

/// Lets a stopped task go on.
pub fn resume(task: &Arc<Task>, mode: u32, signo: i32) {
    {
        let mut state = task.ptrace.0.lock();
        let info = state.stop.take().and_then(|s| s.info);
        state.resumed = (info, signo);
        state.listening = false;
    }
    // It goes on even where its process is stopped.
    let clear = flags::TRACE_CALLS | flags::TRACE_STEP | flags::STOP | flags::STOPPED;
    task.flags.fetch_and(!clear, Ordering::SeqCst);
    task.flags.fetch_or(mode, Ordering::SeqCst);
    task.flags.fetch_and(!flags::TRACE_STOP, Ordering::SeqCst);
    task.notify();
}

/// PTRACE_LISTEN: the task stays in its group stop, and tells of its end.
///
/// # Errors
/// `EIO` where it is not in an event stop of a seized task.
pub fn listen(task: &Arc<Task>) -> Result<(), Errno> {
    {
        let mut state = task.ptrace.0.lock();
        let fits = state.seized && state.stop.is_some_and(|s| s.code >> 8 == super::event::STOP);
        if !fits {
            return Err(Errno::EIO);
        }
        state.stop = None;
        state.listening = true;
    }
    task.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
    task.flags.fetch_and(!flags::TRACE_STOP, Ordering::SeqCst);
    task.notify();
    Ok(())
}

/// The traced task of the caller with this id, stopped.
///
/// # Errors
/// `ESRCH`.
pub fn stopped(cx: &CurrentTask<'_>, task: &Arc<Task>) -> Result<Stop, Errno> {
    let state = task.ptrace.0.lock();
    let mine = state.tracer.upgrade().is_some_and(|t| Arc::ptr_eq(&t, &cx.task.group));
    state.stop.filter(|_| mine).ok_or(Errno::ESRCH)
}

/// What a wait of the tracer finds of a traced task: status in `wait(2)` form, code and status of the information, and
/// whether the task has ended.
#[must_use]
pub fn news(task: &Arc<Task>, exited: bool, keep: bool) -> Option<(i32, i32, i32, bool)> {
    const CLD_TRAPPED: i32 = 4;
    let ended = {
        let mut state = task.ptrace.0.lock();
        if let Some(stop) = state.stop
            && !state.told
        {
            state.told = !keep;
            return Some((stop.code << 8 | 0x7f, CLD_TRAPPED, stop.code, false));
        }
        state.ended
    };
    let raw = ended.filter(|_| exited)?;
    let (code, status) = wait_code(raw);
    Some((raw, code, status, true))
}

/// A traced thread that has ended was waited for, or its tracer has gone: it is forgotten. A process's first thread
/// stays a zombie for its parent.
#[must_use]
pub fn release(tree: &mut Tree, task: &Arc<Task>) -> Forgotten {
    unlink(task, 0);
    if task.is_leader() { (None, None) } else { (None, tree.remove_task(task.tid)) }
}

/// A tracing process has ended: its tracees go on alone, or die with it. Answers those that have ended themselves.
pub fn gone(group: &Arc<ThreadGroup>) -> Vec<Arc<Task>> {
    let tracees = std::mem::take(&mut group.state.lock().tracees);
    let mut ended = Vec::new();
    for task in tracees {
        let (kill, over) = {
            let state = task.ptrace.0.lock();
            (state.options & option::EXITKILL != 0, state.ended.is_some())
        };
        if over {
            ended.push(task);
            continue;
        }
        unlink(&task, 0);
        if kill {
            crate::kernel::exit::kill_group(&task.group, libc::SIGKILL);
        }
    }
    ended
}
