//! The traced side: where a task stops, and how it goes on.
//!
//! A stop is entered at the task's exit boundary like a job-control stop: the task parks. What it was about to do is
//! kept as [`After`]. The tracer sees the stop only once the worker has let the task go, so that its registers are free.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::kernel::exit;
use crate::kernel::ptrace::{After, Kind, Planned, Stop, event, has_option, is_traced, option};
use crate::kernel::signal::action::{SIG_IGN, sa};
use crate::kernel::signal::info::{SigInfo, bit};
use crate::kernel::signal::{Pending, send_to_group};
use crate::kernel::task::{CurrentTask, Task, flags};
use crate::kernel::wait::Events;
use crate::kernel::worker;

const CLD_TRAPPED: i32 = 4;
const CLD_STOPPED: i32 = 5;

fn trap_info(cx: &CurrentTask<'_>, code: i32) -> SigInfo {
    SigInfo::user(libc::SIGTRAP, code, cx.task.group.tgid.0, cx.creds().uid[0])
}

/// Enters a stop. The caller returns to its worker.
fn enter(cx: &mut CurrentTask<'_>, stop: Stop, after: After) {
    if !cx.own.waits_uninterrupted() {
        worker::interrupt_waiting(cx);
    }
    cx.own.trace_own.announce = Some(stop);
    cx.own.trace_own.after = after;
    cx.task.flags.fetch_or(flags::TRACE_STOP, Ordering::SeqCst);
}

fn enter_event(cx: &mut CurrentTask<'_>, which: i32, message: u64, after: After) {
    let code = libc::SIGTRAP | which << 8;
    cx.task.ptrace.0.lock().message = message;
    let info = Some(trap_info(cx, code));
    let kind = if let After::CallAgain = after {
        Kind::Seccomp(u16::try_from(message).unwrap_or(u16::MAX))
    } else {
        Kind::Event
    };
    enter(cx, Stop { code, info, kind }, after);
}

fn call_code(task: &Task) -> i32 {
    libc::SIGTRAP | if has_option(task, option::TRACESYSGOOD) { 0x80 } else { 0 }
}

/// A system call begins. Answers whether the task stops first.
pub fn at_entry(cx: &mut CurrentTask<'_>) -> bool {
    if cx.task.flags.load(Ordering::SeqCst) & flags::TRACE_CALLS == 0 {
        return false;
    }
    cx.own.arch.regs.rax = Errno::ENOSYS.to_rax();
    let code = call_code(cx.task);
    let info = Some(trap_info(cx, code));
    enter(cx, Stop { code, info, kind: Kind::Entry }, After::Call);
    true
}

/// A filter answered TRACE. Answers whether there is a tracer that wants to hear of it.
pub fn at_seccomp(cx: &mut CurrentTask<'_>, data: u16) -> bool {
    if !has_option(cx.task, option::TRACESECCOMP) {
        return false;
    }
    cx.own.arch.regs.rax = Errno::ENOSYS.to_rax();
    enter_event(cx, event::SECCOMP, u64::from(data), After::CallAgain);
    true
}

/// A system call has its answer, which is in the registers.
pub fn at_exit(cx: &mut CurrentTask<'_>) {
    let set = cx.task.flags.load(Ordering::SeqCst);
    if set & flags::TRACED == 0 || cx.own.exiting {
        return;
    }
    if set & flags::TRACE_STEP != 0 {
        // The call was the one instruction to be run.
        let info = SigInfo::fault(libc::SIGTRAP, 2, cx.own.arch.regs.rip);
        crate::kernel::signal::force(cx, info);
    }
    plan(cx, Planned::Exit);
}

/// Plans a stop.
pub fn plan(cx: &mut CurrentTask<'_>, planned: Planned) {
    cx.own.trace_own.planned.push_back(planned);
    cx.task.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
}

/// Plans an event stop, where the tracer asked for it; answers whether it did.
pub fn plan_event(cx: &mut CurrentTask<'_>, wanted: u32, which: i32, message: u64) -> bool {
    let asked = has_option(cx.task, wanted);
    if asked {
        plan(cx, Planned::Event(which, message));
    }
    asked
}

/// After a successful `execve`: an event, or the older SIGTRAP.
pub fn after_exec(cx: &mut CurrentTask<'_>, task: &Arc<Task>, old_tid: i32) -> Option<Planned> {
    if !is_traced(task) {
        return None;
    }
    if has_option(task, option::TRACEEXEC) {
        return Some(Planned::Event(event::EXEC, u64::from(old_tid.unsigned_abs())));
    }
    if !task.ptrace.0.lock().seized {
        // A standard signal is not refused.
        let _ = crate::kernel::signal::send_to_task(task, trap_info(cx, 0));
    }
    None
}

/// The task is about to exit. Answers whether it stops first.
pub fn before_exit(cx: &mut CurrentTask<'_>, status: i32, group: bool) -> bool {
    if !has_option(cx.task, option::TRACEEXIT) || std::mem::replace(&mut cx.own.trace_own.exit_shown, true) {
        return false;
    }
    enter_event(cx, event::EXIT, u64::from(status.unsigned_abs()), After::Leave(status, group));
    true
}

/// A signal is about to be delivered. Answers whether the task stops first, for the tracer to decide.
pub fn before_signal(cx: &mut CurrentTask<'_>, info: &SigInfo) -> bool {
    if !is_traced(cx.task) || info.signo == libc::SIGKILL {
        return false;
    }
    enter(cx, Stop { code: info.signo, info: Some(*info), kind: Kind::Signal }, After::Signal);
    true
}

/// The task's process is stopped by `signo`, and the task with it.
pub fn in_group_stop(cx: &mut CurrentTask<'_>, signo: i32) {
    let (seized, listening) = {
        let state = cx.task.ptrace.0.lock();
        (state.seized, state.listening)
    };
    if !listening {
        let code = if seized { signo | event::STOP << 8 } else { signo };
        let info = seized.then(|| trap_info(cx, code));
        enter(cx, Stop { code, info, kind: Kind::Group }, After::Nothing);
    }
}

/// What tracing wants of the task at its exit boundary.
pub fn act(cx: &mut CurrentTask<'_>) -> Option<Pending> {
    let set = cx.task.flags.load(Ordering::SeqCst);
    if set & flags::TRACE_STOP != 0 {
        return Some(Pending::Stopped);
    }
    if set & flags::TRACE_WORK == 0 {
        return None;
    }
    cx.task.flags.fetch_and(!flags::TRACE_WORK, Ordering::SeqCst);
    while let Some(planned) = cx.own.trace_own.planned.pop_front() {
        match planned {
            Planned::Exit if set & flags::TRACE_CALLS == 0 => continue,
            Planned::Exit => {
                let code = call_code(cx.task);
                let info = Some(trap_info(cx, code));
                enter(cx, Stop { code, info, kind: Kind::Exit }, After::Inject);
            }
            Planned::Event(which, message) => enter_event(cx, which, message, After::Nothing),
        }
        if !cx.own.trace_own.planned.is_empty() {
            cx.task.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
        }
        return Some(Pending::Stopped);
    }
    let stopping = set & flags::STOP != 0;
    let trap = {
        let mut state = cx.task.ptrace.0.lock();
        // A listener whose process goes on says so.
        let ended = state.listening && !stopping;
        state.listening &= stopping;
        if state.listening {
            // To be looked at again when the stop ends.
            cx.task.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
        }
        std::mem::take(&mut state.interrupt) && !stopping || ended
    };
    if trap {
        enter_event(cx, event::STOP, 0, After::Nothing);
        // An interrupted call's exit comes first only where it was planned before this.
        return Some(Pending::Stopped);
    }
    None
}

/// The tracer has let the task go on: what it was about to do happens.
pub fn go_on(cx: &mut CurrentTask<'_>) {
    if cx.task.flags.load(Ordering::SeqCst) & (flags::TRACE_STOP | flags::EXIT) != 0 {
        return;
    }
    let after = std::mem::take(&mut cx.own.trace_own.after);
    let (info, signo) = std::mem::take(&mut cx.task.ptrace.0.lock().resumed);
    match after {
        After::Nothing => {}
        After::Inject => {
            if signo != 0 {
                let info = trap_info(cx, 0);
                crate::kernel::signal::force_pending(cx.task, SigInfo { signo, ..info });
            }
        }
        After::Call => worker::run_call(cx, false),
        After::CallAgain => worker::run_call(cx, true),
        After::Signal => cx.own.trace_own.deliver = chosen(cx, info, signo),
        After::Leave(status, group) => leave(cx, status, group),
    }
}

/// The signal that the tracer wants delivered in place of `info`.
fn chosen(cx: &CurrentTask<'_>, info: Option<SigInfo>, signo: i32) -> Option<SigInfo> {
    if signo == 0 {
        return None;
    }
    let info = match info {
        Some(info) if info.signo == signo => info,
        _ => {
            let tracer = cx.task.ptrace.tracer().map_or(0, |t| t.tgid.0);
            SigInfo::user(signo, 0, tracer, 0)
        }
    };
    if cx.task.signals.mask() & bit(signo) != 0 {
        // Another one, which is blocked: it waits.
        crate::kernel::signal::force_pending(cx.task, info);
        return None;
    }
    Some(info)
}

fn leave(cx: &mut CurrentTask<'_>, status: i32, group: bool) {
    if group {
        exit::kill_group(&cx.task.group, status);
        exit::exit_current(cx, None);
    } else {
        exit::exit_current(cx, Some(status));
    }
}

/// Shows a stop to the tracer, now that the worker has let the task go.
pub fn announce(task: &Arc<Task>, stop: Stop) {
    let tracer = {
        let mut state = task.ptrace.0.lock();
        let tracer = state.tracer.upgrade();
        if tracer.is_some() {
            (state.stop, state.told) = (Some(stop), false);
        }
        tracer
    };
    let Some(tracer) = tracer else {
        // Detached meanwhile.
        task.flags.fetch_and(!flags::TRACE_STOP, Ordering::SeqCst);
        return task.notify();
    };
    let code = if stop.kind == Kind::Group { CLD_STOPPED } else { CLD_TRAPPED };
    let action = tracer.signals.actions().get(libc::SIGCHLD);
    if action.flags & sa::NOCLDSTOP == 0 && action.handler != SIG_IGN {
        let (total, user) = task.cpu_times();
        let times = (exit::ticks(user), exit::ticks(total - user));
        let uid = task.creds().uid[0];
        let info = SigInfo::child(libc::SIGCHLD, code, task.tid.0, uid, stop.code & 0x7f, times);
        // A standard signal is not refused.
        let _ = send_to_group(&tracer, info);
    }
    tracer.child_queue.wake(Events::IN);
}
