//! Operations that may wait.
//!
//! A system call that cannot finish at once is decoded *once* into an [`Op`]: it holds references to what it needs
//! (file descriptions, parsed vectors, an absolute deadline, its progress), never a descriptor number to look up
//! again. Waiting means enlisting the Op with wait queues and giving the worker back; a wake-up *attempts* the Op again.

use abi::Errno;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::WaitGuard;

/// How a handler leaves.
pub enum Flow {
    /// The value for `rax`.
    Return(u64),
    /// Not yet: the task waits with this.
    Block(Box<dyn Op>),
    /// The registers are already as they should be (`rt_sigreturn`, `execve`), or the task is exiting.
    Resume,
}

/// What a system call handler answers.
pub type SyscallResult = Result<Flow, Errno>;

/// `value` as a handler's answer.
///
/// # Errors
/// Never; the type is the handlers'.
pub fn ret(value: impl TryInto<u64>) -> SyscallResult {
    value.try_into().map(Flow::Return).map_err(|_| Errno::EOVERFLOW)
}

/// Zero as a handler's answer.
///
/// # Errors
/// Never; the type is the handlers'.
pub fn ok() -> SyscallResult {
    Ok(Flow::Return(0))
}

/// One try of an [`Op`].
pub enum Attempt {
    /// Finished, with what the system call answers.
    Done(Result<u64, Errno>),
    /// The condition is still false; all progress so far is inside the Op.
    Pending,
    /// This Op is over, and the call goes on as this: waits in another Op, or leaves the registers as they are.
    Then(Flow),
    /// There is nothing to wait for and still much to do, but others want the CPU or the task's death is near
    /// ([`CurrentTask::is_wanted_elsewhere`]): the task goes to the end of the queue. Handlers run after the call.
    Again,
}

/// A decoded system call that may wait. Plain data plus references to kernel objects, so that a checkpoint can save it.
pub trait Op: Send {
    /// Tries to finish. Called before the first wait, after enlisting, and after every wake-up; never concurrently.
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt;

    /// Enlists the task (`cx.waiter()`) with everything whose change could let [`Op::attempt`] finish.
    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard>;

    /// When to give up: absolute, nanoseconds on the kernel's monotonic clock. `None` waits forever.
    fn deadline(&self) -> Option<i64> {
        None
    }

    /// The answer when the deadline has passed and a last attempt was still pending.
    ///
    /// # Errors
    /// The errno for the guest.
    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::EAGAIN)
    }

    /// The answer when a signal handler must run first (or the task dies). Partial progress is returned as success;
    /// otherwise a restart code: `ERESTARTSYS` for most, `ERESTARTNOHAND` for pause, select, ..., `EINTR` for those
    /// that never restart (signal(7)), `ERESTART_RESTARTBLOCK` after setting `cx.own.restart`.
    ///
    /// # Errors
    /// As said.
    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ERESTARTSYS)
    }

    /// Whether only the task's death ends the wait (Linux's killable sleep); handlers run after it.
    fn is_killable_only(&self) -> bool {
        false
    }

    /// What stands for it in saved state: all it holds, its progress included.
    ///
    /// # Errors
    /// Where it cannot be saved.
    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused>;

    /// A short name for `/proc/PID/wchan`, logs and the debugger.
    fn name(&self) -> &'static str;
}

/// Runs `op` to its first answer: finishes at once or asks to block.
///
/// # Errors
/// What the Op answers.
pub fn start(cx: &mut CurrentTask<'_>, mut op: impl Op + 'static) -> SyscallResult {
    match op.attempt(cx) {
        Attempt::Done(answer) => answer.map(Flow::Return),
        Attempt::Then(flow) => Ok(flow),
        Attempt::Pending | Attempt::Again => Ok(Flow::Block(Box::new(op))),
    }
}

/// [`start`] for an Op of a type that the caller does not know.
///
/// # Errors
/// What the Op answers.
pub fn start_boxed(cx: &mut CurrentTask<'_>, mut op: Box<dyn Op>) -> SyscallResult {
    match op.attempt(cx) {
        Attempt::Done(answer) => answer.map(Flow::Return),
        Attempt::Then(flow) => Ok(flow),
        Attempt::Pending | Attempt::Again => Ok(Flow::Block(op)),
    }
}
