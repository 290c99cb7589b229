//! What a task does at its exit boundary: exit, stop, run handlers, restart interrupted calls.

use std::sync::atomic::Ordering;

use abi::Errno;

use crate::kernel::exit;
use crate::kernel::ptrace::stop as ptrace;
use crate::kernel::signal::action::{self, Disposition, SIG_DFL, SIG_IGN, SigAction, sa};
use crate::kernel::signal::info::{SigInfo, bit};
use crate::kernel::signal::{self, SS_AUTODISARM, frame, send, stop};
use crate::kernel::task::{CurrentTask, Task, flags};
use crate::kernel::worker;

/// Number of `restart_syscall(2)`.
const NR_RESTART_SYSCALL: u64 = 219;

/// What [`handle_pending`] leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Go on: nothing was pending, or the registers now point at a handler.
    Continue,
    /// The process is stopped; the task parks until it is continued or killed.
    Stopped,
    /// The task has exited.
    Dead,
}

/// Whether the task counts as stopped: its waiting call is not tried until it is continued.
#[must_use]
pub fn is_stopped(task: &Task) -> bool {
    task.flags.load(Ordering::SeqCst) & (flags::STOPPED | flags::TRACE_STOP) != 0
}

/// Acts on everything that waits for this task at its exit boundary: group exit, stop, signals. Ends a waiting call
/// (`worker::interrupt_waiting`) only where a handler runs or the task dies.
pub fn handle_pending(cx: &mut CurrentTask<'_>) -> Pending {
    if cx.own.exiting {
        return Pending::Dead;
    }
    // A call with a mask of its own that has its answer gives the old mask back before anything is delivered.
    if cx.own.waiting.is_none() && cx.own.syscall_nr < 0 {
        restore_mask(cx);
    }
    while signal::wants_attention(cx.task) || cx.own.trace_own.deliver.is_some() {
        match act_once(cx) {
            Some(done) => return done,
            None if cx.own.waits_uninterrupted() => break,
            None => {}
        }
    }
    if cx.own.waiting.is_none() {
        restart_without_handler(cx);
        restore_mask(cx);
    }
    Pending::Continue
}

/// One thing to act on; `None` to look again.
fn act_once(cx: &mut CurrentTask<'_>) -> Option<Pending> {
    let set = cx.task.flags.load(Ordering::SeqCst);
    if set & flags::EXIT != 0 {
        exit::exit_current(cx, None);
        return Some(Pending::Dead);
    }
    if let Some(stopped) = ptrace::act(cx) {
        return Some(stopped);
    }
    if cx.own.waits_uninterrupted() {
        return None;
    }
    if set & flags::STOP != 0 {
        stop::take_part(cx);
        if set & flags::TRACED != 0
            && let Some(signo) = cx.task.group.state.lock().stop
        {
            ptrace::in_group_stop(cx, signo);
            return Some(Pending::Stopped);
        }
        // SIGCONT may have come in between.
        return (cx.task.flags.load(Ordering::SeqCst) & flags::STOP != 0).then_some(Pending::Stopped);
    }
    if let Some(info) = cx.own.trace_own.deliver.take() {
        return deliver(cx, &info);
    }
    if set & flags::TRACED != 0 && signal::pending_set(cx.task) & !cx.task.signals.mask() != 0 {
        // The tracer sees the call's end before the signal.
        worker::interrupt_waiting(cx);
        if let Some(stopped) = ptrace::act(cx) {
            return Some(stopped);
        }
    }
    let info = signal::dequeue(cx.task, !cx.task.signals.mask())?;
    if ptrace::before_signal(cx, &info) {
        return Some(Pending::Stopped);
    }
    deliver(cx, &info)
}

fn deliver(cx: &mut CurrentTask<'_>, info: &SigInfo) -> Option<Pending> {
    let actions = cx.task.group.signals.actions();
    let action = actions.get(info.signo);
    match (action.handler, action::default_action(info.signo)) {
        (SIG_IGN, _) | (SIG_DFL, Disposition::Ignore) => None,
        (SIG_DFL, Disposition::Stop) => {
            // The terminal's stop signals do nothing where no shell could continue the process.
            if info.signo == libc::SIGSTOP || !crate::kernel::session::is_orphaned(cx.task) {
                stop::begin(cx, info.signo);
            }
            None
        }
        (SIG_DFL, Disposition::Terminate) if ptrace::before_exit(cx, info.signo, true) => Some(Pending::Stopped),
        (SIG_DFL, Disposition::Terminate) => {
            exit::kill_group(&cx.task.group, info.signo);
            exit::exit_current(cx, None);
            Some(Pending::Dead)
        }
        _ => {
            if action.flags & sa::RESETHAND != 0 {
                actions.reset(info.signo);
            }
            run_handler(cx, info, &action);
            None
        }
    }
}

/// Points the registers at a handler. Where its frame cannot be written, SIGSEGV takes its place.
fn run_handler(cx: &mut CurrentTask<'_>, info: &SigInfo, action: &SigAction) {
    worker::interrupt_waiting(cx);
    restart_for_handler(cx, action.flags & sa::RESTART != 0);
    let mask = cx.task.signals.mask();
    let saved = cx.own.saved_sigmask.take().unwrap_or(mask);
    if frame::push(cx, info, action, saved).is_err() {
        if info.signo == libc::SIGSEGV {
            cx.task.group.signals.actions().reset(libc::SIGSEGV);
        }
        send::force(cx, SigInfo::kernel(libc::SIGSEGV));
        return;
    }
    if cx.own.altstack.flags & SS_AUTODISARM != 0 {
        cx.own.altstack = signal::AltStack::default();
    }
    let own_bit = if action.flags & sa::NODEFER != 0 { 0 } else { bit(info.signo) };
    signal::set_mask(cx, mask | action.mask | own_bit);
}

/// The restart code that an interrupted call left in `rax`, if one did; it is forgotten.
fn take_restart_code(cx: &mut CurrentTask<'_>) -> Option<Errno> {
    if cx.own.syscall_nr < 0 {
        return None;
    }
    cx.own.syscall_nr = -1;
    let code = i32::try_from(cx.own.arch.regs.rax.cast_signed().wrapping_neg()).ok()?;
    Some(Errno::from_raw(code)).filter(|e| e.is_restart())
}

fn rewind(cx: &mut CurrentTask<'_>, nr: u64) {
    let regs = &mut cx.own.arch.regs;
    regs.rax = nr;
    // The length of the `syscall` instruction.
    regs.rip = regs.rip.wrapping_sub(2);
}

fn restart_for_handler(cx: &mut CurrentTask<'_>, sa_restart: bool) {
    let Some(code) = take_restart_code(cx) else { return };
    if code == Errno::ERESTARTNOINTR || code == Errno::ERESTARTSYS && sa_restart {
        rewind(cx, cx.own.arch.regs.orig_rax);
    } else {
        cx.own.arch.regs.rax = Errno::EINTR.to_rax();
    }
}

fn restart_without_handler(cx: &mut CurrentTask<'_>) {
    let Some(code) = take_restart_code(cx) else { return };
    let nr = if code == Errno::ERESTART_RESTARTBLOCK { NR_RESTART_SYSCALL } else { cx.own.arch.regs.orig_rax };
    rewind(cx, nr);
}

fn restore_mask(cx: &mut CurrentTask<'_>) {
    if let Some(mask) = cx.own.saved_sigmask.take() {
        signal::set_mask(cx, mask);
    }
}
