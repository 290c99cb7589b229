//! Signals: queues, masks, actions, delivery. See `README.md` here.

pub mod action;
pub mod deliver;
pub mod fault;
pub mod frame;
pub mod info;
pub mod queue;
pub mod saved;
pub mod send;
pub mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, UserAddr};

use crate::kernel::task::{CurrentTask, Task, flags};
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

pub use action::{Actions, SigAction};
pub use deliver::{Pending, handle_pending, is_stopped};
pub use fault::{FaultContext, force_exception, force_fault};
pub use info::{SigInfo, SigSet, bit};
pub use queue::PendingQueue;
pub use send::{force, force_pending, send_to_group, send_to_pgrp, send_to_task};

/// A thread's own pending signals and its mask.
#[derive(Debug)]
pub struct TaskSignals {
    /// Blocked signals: bit `n - 1` for signal `n`. Only the owner writes.
    pub mask: AtomicU64,
    /// Pending signals, same bits: what `queue` holds.
    pub pending: AtomicU64,
    queue: Mutex<PendingQueue>,
}

impl Default for TaskSignals {
    fn default() -> Self {
        Self::with_mask(0)
    }
}

impl TaskSignals {
    /// Nothing pending; these blocked.
    #[must_use]
    pub fn with_mask(mask: SigSet) -> Self {
        TaskSignals {
            mask: AtomicU64::new(mask),
            pending: AtomicU64::new(0),
            queue: Mutex::new(Level::Signals, PendingQueue::default()),
        }
    }

    /// Blocked signals.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        self.mask.load(Ordering::SeqCst)
    }

    /// Changes the queue, and what `pending` says of it.
    pub fn change<R>(&self, change: impl FnOnce(&mut PendingQueue) -> R) -> R {
        let mut queue = self.queue.lock();
        let answer = change(&mut queue);
        self.pending.store(queue.set(), Ordering::SeqCst);
        answer
    }

    /// Moves what is pending to another task (`execve` in a thread that is not the first).
    pub fn take_queue(&self) -> PendingQueue {
        self.change(std::mem::take)
    }

    /// Takes over what [`TaskSignals::take_queue`] gave.
    pub fn adopt_queue(&self, from: PendingQueue) {
        self.change(|queue| *queue = from);
    }
}

/// A process's pending signals and actions.
pub struct GroupSignals {
    /// Pending signals: what `queue` holds.
    pub pending: AtomicU64,
    queue: Mutex<PendingQueue>,
    actions: Mutex<Arc<Actions>>,
    arrivals: WaitQueue,
}

impl GroupSignals {
    /// Nothing pending, these handlers.
    #[must_use]
    pub fn new(actions: Arc<Actions>) -> Self {
        GroupSignals {
            pending: AtomicU64::new(0),
            queue: Mutex::new(Level::Signals, PendingQueue::default()),
            actions: Mutex::new(Level::Leaf, actions),
            arrivals: WaitQueue::new(),
        }
    }

    /// The handlers.
    #[must_use]
    pub fn actions(&self) -> Arc<Actions> {
        self.actions.lock().clone()
    }

    /// Replaces the handlers (`execve` stops sharing them).
    pub fn set_actions(&self, actions: Arc<Actions>) {
        let old = std::mem::replace(&mut *self.actions.lock(), actions);
        drop(old);
    }

    /// Woken (with `IN`) whenever a signal becomes pending for the process or one of its threads: `signalfd`,
    /// `sigtimedwait`.
    #[must_use]
    pub fn arrivals(&self) -> &WaitQueue {
        &self.arrivals
    }

    /// Changes the queue, and what `pending` says of it.
    pub fn change<R>(&self, change: impl FnOnce(&mut PendingQueue) -> R) -> R {
        let mut queue = self.queue.lock();
        let answer = change(&mut queue);
        self.pending.store(queue.set(), Ordering::SeqCst);
        answer
    }

    fn announce(&self) {
        self.arrivals.wake(Events::IN);
    }
}

/// What is pending for `task`, its own and its process's.
#[must_use]
pub fn pending_set(task: &Task) -> SigSet {
    task.signals.pending.load(Ordering::SeqCst) | task.group.signals.pending.load(Ordering::SeqCst)
}

/// Takes the next pending signal of `wanted`: the task's own before its process's (`signalfd`, `sigtimedwait`,
/// delivery).
#[must_use]
pub fn dequeue(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    if pending_set(task) & wanted == 0 {
        return None;
    }
    task.signals.change(|q| q.take(wanted)).or_else(|| task.group.signals.change(|q| q.take(wanted)))
}

/// Whether an unblocked signal, a stop or an exit waits for `task` (Linux's `signal_pending`).
#[must_use]
pub fn wants_attention(task: &Task) -> bool {
    task.flags.load(Ordering::SeqCst) & (flags::EXIT | flags::STOP | flags::TRACE_STOP | flags::TRACE_WORK) != 0
        || pending_set(task) & !task.signals.mask() != 0
}

/// Sets the calling task's mask. Process-directed signals that it now blocks are offered to its siblings.
pub fn set_mask(cx: &mut CurrentTask<'_>, mask: SigSet) {
    let mask = mask & !info::UNBLOCKABLE;
    let old = cx.task.signals.mask.swap(mask, Ordering::SeqCst);
    let handed_on = mask & !old & cx.task.group.signals.pending.load(Ordering::SeqCst);
    if handed_on != 0 {
        send::retarget(&cx.task.group, cx.task, handed_on);
    }
}

/// Sets a mask for the length of one call (`ppoll`, `pselect6`, `epoll_pwait`, `rt_sigsuspend`): the old one comes back
/// when the call ends, or after the handler that ended it.
pub fn set_temporary_mask(cx: &mut CurrentTask<'_>, mask: SigSet) {
    if cx.own.saved_sigmask.is_none() {
        cx.own.saved_sigmask = Some(cx.task.signals.mask());
    }
    set_mask(cx, mask);
}

/// A thread's alternate signal stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_DISABLE` and `SS_AUTODISARM`.
    pub flags: u32,
    /// Bytes; 0 where there is none.
    pub size: u64,
}

/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;

impl Default for AltStack {
    fn default() -> Self {
        AltStack { sp: 0, flags: SS_DISABLE, size: 0 }
    }
}

impl AltStack {
    /// Whether `sp` lies on it, whatever the flags.
    #[must_use]
    pub fn holds(&self, sp: u64) -> bool {
        sp > self.sp && sp - self.sp <= self.size
    }

    /// Whether a program with stack pointer `sp` runs on it (`on_sig_stack`).
    #[must_use]
    pub fn in_use(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.holds(sp)
    }

    /// `sas_ss_flags`: disabled, in use, or free.
    #[must_use]
    pub fn state(&self, sp: u64) -> u32 {
        match (self.size, self.in_use(sp)) {
            (0, _) => SS_DISABLE,
            (_, true) => SS_ONSTACK,
            (_, false) => 0,
        }
    }
}

/// Sets the signal mask for the length of one call (`ppoll`, `pselect6`, `epoll_pwait`): null changes nothing. The
/// old mask comes back when the call ends, or after the handler that ends it.
///
/// # Errors
/// `EINVAL` for a wrong set size; `EFAULT`.
pub fn set_call_mask(cx: &mut CurrentTask<'_>, set: UserAddr, size: usize) -> Result<(), Errno> {
    if set.is_null() {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = cx.mm()?.read_obj::<u64>(set)?;
    set_temporary_mask(cx, mask);
    Ok(())
}

/// The task wrote to a pipe or socket without readers: SIGPIPE, to the thread.
pub fn send_sigpipe(cx: &mut CurrentTask<'_>) {
    send_self(cx, libc::SIGPIPE);
}

/// Sends the calling thread `signo`, as the kernel does for what a call of its own brought about.
pub fn send_self(cx: &mut CurrentTask<'_>, signo: i32) {
    let info = SigInfo::user(signo, info::code::SI_USER, cx.task.group.tgid.0, cx.creds().uid[0]);
    // A standard signal is never refused.
    let _ = send_to_task(cx.task, info);
}
