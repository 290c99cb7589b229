//! Job control: stopping and continuing processes, and what their parents hear of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::kernel::signal::action::sa;
use crate::kernel::signal::info::{SigInfo, code};
use crate::kernel::signal::send_to_group;
use crate::kernel::task::{CurrentTask, flags};
use crate::kernel::thread_group::{JobEvent, ThreadGroup};
use crate::kernel::wait::Events;

/// A thread took a stop signal: all threads of its process stop, each at its own boundary.
pub fn begin(cx: &mut CurrentTask<'_>, signo: i32) {
    let group = &cx.task.group;
    let mut state = group.state.lock();
    if state.exiting.is_some() || state.exec.is_some() || state.stop.is_some() {
        return;
    }
    state.stop = Some(signo);
    state.stop_complete = false;
    state.job_event = None;
    for task in &state.tasks {
        task.raise(flags::STOP);
    }
}

/// The calling task has reached its boundary while its process stops.
pub fn take_part(cx: &mut CurrentTask<'_>) {
    let group = &cx.task.group;
    {
        // Under the lock, so that a continuation does not come in between.
        let state = group.state.lock();
        if state.stop.is_none() {
            cx.task.flags.fetch_and(!flags::STOP, Ordering::SeqCst);
            return;
        }
        cx.task.flags.fetch_or(flags::STOPPED, Ordering::SeqCst);
    }
    complete_if_all_stopped(group);
}

/// Tells the parent once the last thread has stopped (or has exited instead).
pub fn complete_if_all_stopped(group: &Arc<ThreadGroup>) {
    let signo = {
        let mut state = group.state.lock();
        let all = state.tasks.iter().all(|t| t.flags.load(Ordering::SeqCst) & flags::STOPPED != 0);
        let Some(signo) = state.stop.filter(|_| all && !state.stop_complete && !state.tasks.is_empty()) else { return };
        state.stop_complete = true;
        state.job_event = Some(JobEvent::Stopped(signo));
        group.news.store(true, Ordering::SeqCst);
        if let Some(task) = state.tasks.first() {
            task.pids().ever_stopped.store(true, Ordering::SeqCst);
        }
        signo
    };
    tell_parent(group, code::CLD_STOPPED, signo);
}

/// SIGCONT was sent: the process goes on, whether it handles the signal or not.
pub fn continue_group(group: &Arc<ThreadGroup>) {
    let was_complete = {
        let mut state = group.state.lock();
        if state.stop.take().is_none() {
            return;
        }
        let complete = std::mem::take(&mut state.stop_complete);
        state.job_event = complete.then_some(JobEvent::Continued);
        group.news.store(true, Ordering::SeqCst);
        for task in &state.tasks {
            task.flags.fetch_and(!(flags::STOP | flags::STOPPED), Ordering::SeqCst);
            task.notify();
        }
        complete
    };
    if was_complete {
        tell_parent(group, code::CLD_CONTINUED, libc::SIGCONT);
    }
}

/// SIGCHLD and a wake-up for the parent, unless it does not want to hear of stops.
fn tell_parent(group: &Arc<ThreadGroup>, code: i32, status: i32) {
    let (parent, task) = {
        let state = group.state.lock();
        (state.parent.upgrade(), state.tasks.first().cloned())
    };
    let (Some(parent), Some(task)) = (parent, task) else { return };
    if parent.signals.actions().get(libc::SIGCHLD).flags & sa::NOCLDSTOP == 0 {
        let usage = group.usage();
        let times = (crate::kernel::exit::ticks(usage.user), crate::kernel::exit::ticks(usage.system));
        let info = SigInfo::child(libc::SIGCHLD, code, group.tgid.0, task.creds().uid[0], status, times);
        // SIGCHLD is a standard signal: never refused.
        let _ = send_to_group(&parent, info);
    }
    parent.child_queue.wake(Events::IN);
}
