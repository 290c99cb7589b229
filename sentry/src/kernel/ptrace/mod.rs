//! ptrace(2) inside the sandbox: one guest process watches and steers threads of another. See `README.md` here.

pub mod stop;
pub mod tracer;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::kernel::signal::SigInfo;
use crate::kernel::task::{Task, flags};
use crate::kernel::thread_group::ThreadGroup;
use crate::sync::{Level, Mutex};

/// `PTRACE_O_*`.
#[allow(missing_docs, reason = "named as in ptrace(2)")]
pub mod option {
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEFORK: u32 = 1 << 1;
    pub const TRACEVFORK: u32 = 1 << 2;
    pub const TRACECLONE: u32 = 1 << 3;
    pub const TRACEEXEC: u32 = 1 << 4;
    pub const TRACEVFORKDONE: u32 = 1 << 5;
    pub const TRACEEXIT: u32 = 1 << 6;
    pub const TRACESECCOMP: u32 = 1 << 7;
    pub const EXITKILL: u32 = 1 << 20;
    pub const SUSPEND_SECCOMP: u32 = 1 << 21;
    pub const KNOWN: u32 = 0xff | EXITKILL;
}

/// `PTRACE_EVENT_*`.
#[allow(missing_docs, reason = "named as in ptrace(2)")]
pub mod event {
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const VFORK_DONE: i32 = 5;
    pub const EXIT: i32 = 6;
    pub const SECCOMP: i32 = 7;
    pub const STOP: i32 = 128;
}

/// Why a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before a system call.
    Entry,
    /// Behind one.
    Exit,
    /// A signal is about to be delivered.
    Signal,
    /// `PTRACE_EVENT_SECCOMP`, with the filter's data.
    Seccomp(u16),
    /// Another event.
    Event,
    /// Its process is stopped.
    Group,
}

/// A stop, as the tracer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Signal, and event in the second byte: the upper part of the wait status.
    pub code: i32,
    /// What PTRACE_GETSIGINFO says; nothing in a group stop.
    pub info: Option<SigInfo>,
    /// Why.
    pub kind: Kind,
}

/// What the tracer and others see and change of a traced task.
#[derive(Debug, Default)]
pub struct State {
    /// Who traces it.
    pub tracer: Weak<ThreadGroup>,
    /// By PTRACE_SEIZE.
    pub seized: bool,
    /// `PTRACE_O_*`.
    pub options: u32,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    /// The stop it is in, once its registers can be looked at.
    pub stop: Option<Stop>,
    /// The tracer has waited for it.
    pub told: bool,
    /// What the tracer let it go on with: the signal's information, as it may have changed it, and a signal number.
    pub resumed: (Option<SigInfo>, i32),
    /// PTRACE_LISTEN: stays in its group stop.
    pub listening: bool,
    /// PTRACE_INTERRUPT.
    pub interrupt: bool,
    /// A thread that has exited: its status, until the tracer has waited for it.
    pub ended: Option<i32>,
}

/// A task's tracing state.
#[derive(Debug)]
pub struct Ptrace(pub Mutex<State>);

impl Default for Ptrace {
    fn default() -> Self {
        Ptrace(Mutex::new(Level::Leaf, State::default()))
    }
}

impl Ptrace {
    /// Who traces the task.
    #[must_use]
    pub fn tracer(&self) -> Option<Arc<ThreadGroup>> {
        self.0.lock().tracer.upgrade()
    }
}

/// A stop that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// An event and its message.
    Event(i32, u64),
    /// Behind a system call, should calls be traced then.
    Exit,
}

/// What a task does when its tracer lets it go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Nothing special.
    #[default]
    Nothing,
    /// Take a signal that the tracer wants it to have.
    Inject,
    /// Do the system call.
    Call,
    /// Do the system call, which its filters sent to the tracer.
    CallAgain,
    /// Deliver the signal, or what the tracer made of it.
    Signal,
    /// Exit with this status, the whole process if so.
    Leave(i32, bool),
}

/// The task's own part.
#[derive(Default)]
pub struct Own {
    /// Stops to come.
    pub planned: VecDeque<Planned>,
    /// The stop that was just entered; shown to the tracer once the worker lets the task go.
    pub announce: Option<Stop>,
    /// What comes after it.
    pub after: After,
    /// A signal that has been shown to the tracer and is to be acted on.
    pub deliver: Option<SigInfo>,
    /// The exit has been shown.
    pub exit_shown: bool,
}

/// Whether `task` is traced.
#[must_use]
pub fn is_traced(task: &Task) -> bool {
    task.flags.load(Ordering::SeqCst) & flags::TRACED != 0
}

/// Whether `task` is traced with `option`.
#[must_use]
pub fn has_option(task: &Task, option: u32) -> bool {
    is_traced(task) && task.ptrace.0.lock().options & option != 0
}

/// Ties `task` to `tracer`.
pub fn link(task: &Arc<Task>, tracer: &Arc<ThreadGroup>, seized: bool, options: u32) {
    *task.ptrace.0.lock() = State { tracer: Arc::downgrade(tracer), seized, options, ..State::default() };
    tracer.state.lock().tracees.push(task.clone());
    task.flags.fetch_or(flags::TRACED, Ordering::SeqCst);
}

/// Sets `task` free: it runs on, with `signal` if that is not 0.
pub fn unlink(task: &Arc<Task>, signal: i32) {
    let tracer = {
        let mut state = task.ptrace.0.lock();
        let info = state.stop.take().and_then(|s| s.info);
        let tracer = state.tracer.upgrade();
        *state = State { resumed: (info, signal), ended: state.ended, ..State::default() };
        tracer
    };
    if let Some(tracer) = tracer {
        tracer.state.lock().tracees.retain(|t| !Arc::ptr_eq(t, task));
    }
    task.flags.fetch_and(!flags::TRACE_ALL, Ordering::SeqCst);
    task.notify();
}
