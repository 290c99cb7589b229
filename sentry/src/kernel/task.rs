//! A guest thread, as data.
//!
//! What only the owner touches (the worker that runs the task, or whoever finds it parked) lies in [`TaskOwned`]
//! behind `Task::own`; what others may look at lies in [`TaskShared`]; scheduling state is atomic in [`RunState`].

pub mod saved;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use platform::{ArchState, Cpu};

use crate::kernel::Kernel;
use crate::kernel::chaos::Disturbance;
use crate::kernel::container::{Container, Namespaces};
use crate::kernel::creds::Creds;
use crate::kernel::op::Op;
use crate::kernel::pids::PidTable;
use crate::kernel::signal::{AltStack, FaultContext, TaskSignals};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::timers::{TimerHandle, TimerTarget};
use crate::kernel::wait::{Events, WaitGuard, WaitTarget};
use crate::mm::Mm;
use crate::sync::{Level, Mutex};
use crate::vfs::{FdTable, FsContext};

/// A thread id, unique in its pid namespace while the task exists (and until it is reaped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub i32);

/// Where a task is between guest code, queue and sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Run {
    /// A worker owns it.
    Running = 0,
    /// A worker owns it and somebody wants it to look around before it sleeps or runs guest code.
    Notified = 1,
    /// Nobody owns it; a wake-up queues it.
    Blocked = 2,
    /// It lies in a run queue.
    Queued = 3,
    /// It has exited.
    Dead = 4,
}

/// The scheduling state of a task: one atomic, so that wake-ups need no lock.
#[derive(Debug)]
pub struct RunState {
    state: AtomicU8,
    /// The worker that runs the task, while one does.
    worker: AtomicUsize,
}

/// What a wake-up has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeAction {
    /// Put the task into a run queue.
    Enqueue,
    /// The task runs on this worker: kick it if it is in guest code.
    Kick(usize),
    /// Somebody else's wake-up does it, or the task is gone.
    Nothing,
}

impl RunState {
    fn new() -> Self {
        RunState { state: AtomicU8::new(Run::Blocked as u8), worker: AtomicUsize::new(usize::MAX) }
    }

    /// The state now; may be stale when it is read.
    #[must_use]
    pub fn get(&self) -> Run {
        match self.state.load(Ordering::SeqCst) {
            0 => Run::Running,
            1 => Run::Notified,
            2 => Run::Blocked,
            3 => Run::Queued,
            _ => Run::Dead,
        }
    }

    fn swap(&self, from: Run, to: Run) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Notes that something changed for the task.
    #[must_use]
    pub fn wake(&self) -> WakeAction {
        loop {
            let (from, to, action) = match self.get() {
                Run::Running => (Run::Running, Run::Notified, WakeAction::Kick(0)),
                Run::Blocked => (Run::Blocked, Run::Queued, WakeAction::Enqueue),
                Run::Notified | Run::Queued | Run::Dead => return WakeAction::Nothing,
            };
            if self.swap(from, to) {
                return match action {
                    WakeAction::Kick(_) => WakeAction::Kick(self.worker.load(Ordering::SeqCst)),
                    other => other,
                };
            }
        }
    }

    /// The worker took the task off its queue.
    pub(crate) fn start(&self, worker: usize) {
        self.worker.store(worker, Ordering::SeqCst);
        self.state.store(Run::Running as u8, Ordering::SeqCst);
    }

    /// Clears a notification; answers whether there was one.
    pub(crate) fn take_notification(&self) -> bool {
        self.swap(Run::Notified, Run::Running)
    }

    /// Whether somebody wants the running task to look around.
    pub(crate) fn is_notified(&self) -> bool {
        self.get() == Run::Notified
    }

    /// The worker gives the task up to sleep. `false`: it was notified meanwhile and is `Queued` now; queue it.
    pub(crate) fn park(&self) -> bool {
        if self.swap(Run::Running, Run::Blocked) {
            return true;
        }
        self.state.store(Run::Queued as u8, Ordering::SeqCst);
        false
    }

    /// The worker gives the task up but wants it run again.
    pub(crate) fn requeue(&self) {
        self.state.store(Run::Queued as u8, Ordering::SeqCst);
    }

    pub(crate) fn die(&self) {
        self.state.store(Run::Dead as u8, Ordering::SeqCst);
    }
}

/// A call that waits, with what keeps it enlisted.
pub struct Waiting {
    /// The decoded call.
    pub op: Box<dyn Op>,
    /// Its places in wait queues; empty until enlisted.
    pub guards: Vec<WaitGuard>,
    /// Its deadline's timer.
    pub timer: Option<TimerHandle>,
    /// Whether it has been enlisted.
    pub enlisted: bool,
    /// It goes on by itself as soon as it has the CPU again.
    pub again: bool,
    /// Its spurious wake-ups, in tests.
    pub chaos: Disturbance,
}

impl Waiting {
    /// A call that has not been enlisted yet.
    #[must_use]
    pub fn new(op: Box<dyn Op>) -> Self {
        Waiting { op, guards: Vec::new(), timer: None, enlisted: false, again: false, chaos: Disturbance::default() }
    }
}

/// What `restart_syscall(2)` continues.
pub enum Restart {
    /// Nothing: `EINTR`.
    None,
    /// This call.
    Op(Box<dyn Op>),
}

/// What only the task's owner touches.
pub struct TaskOwned {
    /// Registers and FPU state.
    pub arch: ArchState,
    /// The address space; `None` after exit.
    pub mm: Option<Arc<Mm>>,
    /// The call it waits in.
    pub waiting: Option<Waiting>,
    /// What `restart_syscall` continues.
    pub restart: Restart,
    /// Signal mask to put back after a handler (`sigsuspend`, `ppoll`, ...), 0-based bits.
    pub saved_sigmask: Option<u64>,
    /// `set_tid_address` / CLONE_CHILD_CLEARTID: zeroed and futex-woken at exit.
    pub clear_tid: u64,
    /// `set_robust_list` head and length.
    pub robust_list: (u64, u64),
    /// `vfork`'s parent to wake when the address space is let go.
    pub vfork_done: Option<Arc<crate::kernel::thread_group::VforkDone>>,
    /// Number of the system call being served, for restarts and strace; -1 outside of one.
    pub syscall_nr: i64,
    /// The strace line being served.
    pub trace: Option<String>,
    /// `set_mempolicy(2)`: mode and nodes.
    pub mempolicy: (u32, u64),
    /// A page could not be had: others go first.
    pub starved: bool,
    /// Whether the task has begun to exit, so that it does so once.
    pub exiting: bool,
    /// `sigaltstack(2)`.
    pub altstack: AltStack,
    /// The last fault or exception, for signal frames: trap number, error code, cr2.
    pub fault: FaultContext,
    /// Stops of its tracer's, to come and under way.
    pub trace_own: crate::kernel::ptrace::Own,
    /// What ends with it of System V semaphores; shared by CLONE_SYSVSEM.
    pub sem_undo: Option<Arc<crate::ipc::sem::UndoList>>,
    /// `PR_SET_TIMERSLACK`, nanoseconds; stored, since our timers have none.
    pub timer_slack: u64,
}

impl TaskOwned {
    /// Whether the waiting call ends for death only (`vfork`, de-threading in `execve`, a long copy under way).
    #[must_use]
    pub fn waits_uninterrupted(&self) -> bool {
        self.waiting.as_ref().is_some_and(|w| w.again || w.op.is_killable_only())
    }
}

/// What others may read of a task. The owner keeps it current.
pub struct TaskShared {
    /// The address space; `None` for a zombie.
    pub mm: Option<Arc<Mm>>,
    /// Open descriptors; `None` for a zombie.
    pub fds: Option<Arc<FdTable>>,
    /// Root, working directory, umask; `None` for a zombie.
    pub fs: Option<Arc<FsContext>>,
    /// Credentials.
    pub creds: Arc<Creds>,
    /// `comm`, at most 15 bytes.
    pub name: Vec<u8>,
}

/// Bits of [`Task::flags`]. Anybody sets them and notifies; the owner acts at its exit boundary.
pub mod flags {
    /// The task must exit: group exit, or another thread's `execve`.
    pub const EXIT: u32 = 1;
    /// The task's process is stopping or stopped.
    pub const STOP: u32 = 2;
    /// The task counts among its process's stopped threads.
    pub const STOPPED: u32 = 4;
    /// The task is traced.
    pub const TRACED: u32 = 8;
    /// It is in a stop of its tracer's.
    pub const TRACE_STOP: u32 = 16;
    /// A stop is planned or asked for.
    pub const TRACE_WORK: u32 = 32;
    /// It stops at system calls.
    pub const TRACE_CALLS: u32 = 64;
    /// It runs one instruction.
    pub const TRACE_STEP: u32 = 128;
    /// All about tracing.
    pub const TRACE_ALL: u32 = TRACED | TRACE_STOP | TRACE_WORK | TRACE_CALLS | TRACE_STEP;
}

/// What `sched_setattr(2)`, `setpriority(2)` and `sched_setaffinity(2)` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SchedAttr {
    /// `SCHED_*`.
    pub policy: i32,
    /// Real-time priority, 0 for the ordinary policies.
    pub priority: i32,
    /// -20..=19.
    pub nice: i32,
    /// `SCHED_FLAG_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// CPUs it may run on, bit by bit; 0 means all.
    pub affinity: u64,
    /// `ioprio_set(2)`.
    pub io_priority: i32,
}

/// A guest thread.
pub struct Task {
    /// Its kernel.
    pub kernel: Arc<Kernel>,
    /// Its id.
    pub tid: Tid,
    /// Its process.
    pub group: Arc<ThreadGroup>,
    /// Scheduling state.
    pub run: RunState,
    /// The owner's part.
    pub own: Mutex<TaskOwned>,
    /// Everybody's part.
    pub shared: Mutex<TaskShared>,
    /// Pending signals, mask.
    pub signals: TaskSignals,
    /// CPU time spent in guest code and on its behalf, nanoseconds, up to when it last left a worker.
    pub cpu_time: AtomicU64,
    /// The part of it spent in guest code.
    pub user_time: AtomicU64,
    /// What it counts, apart from these times.
    pub counts: crate::kernel::usage::Counts,
    /// Since when it has been on a worker, monotonic nanoseconds; 0 while it is on none.
    pub on_cpu_since: AtomicI64,
    /// What it must look at before it runs guest code: [`flags`] bits.
    pub flags: AtomicU32,
    /// `PR_SET_PDEATHSIG`: the signal when the parent dies, 0 for none.
    pub death_signal: AtomicI32,
    /// Scheduling settings that are kept and shown: policy, priority, nice, affinity.
    pub sched_attr: Mutex<SchedAttr>,
    /// Who traces it, and how.
    pub ptrace: crate::kernel::ptrace::Ptrace,
    /// System call filters.
    pub seccomp: crate::kernel::seccomp::Seccomp,
    /// Exit status in `wait(2)` form, once dead.
    pub exit_status: AtomicI32,
    /// When it started, monotonic nanoseconds.
    pub start_time: i64,
    /// The CPU (worker) it ran on last: `getcpu`, and where it is queued again.
    pub last_cpu: AtomicUsize,
}

impl Task {
    /// A new task, parked; [`Kernel::start_task`] queues it.
    #[must_use]
    pub fn new(
        kernel: &Arc<Kernel>,
        tid: Tid,
        group: Arc<ThreadGroup>,
        arch: ArchState,
        shared: TaskShared,
        signals: TaskSignals,
    ) -> Arc<Self> {
        Self::with(kernel, tid, group, arch, shared, signals, |_| {})
    }

    /// A new task, parked, whose owner's part `setup` has changed.
    #[must_use]
    pub fn with(
        kernel: &Arc<Kernel>,
        tid: Tid,
        group: Arc<ThreadGroup>,
        arch: ArchState,
        shared: TaskShared,
        signals: TaskSignals,
        setup: impl FnOnce(&mut TaskOwned),
    ) -> Arc<Self> {
        let mut own = TaskOwned {
            arch,
            mm: shared.mm.clone(),
            waiting: None,
            restart: Restart::None,
            saved_sigmask: None,
            clear_tid: 0,
            robust_list: (0, 0),
            vfork_done: None,
            syscall_nr: -1,
            trace: None,
            starved: false,
            mempolicy: (0, 0),
            exiting: false,
            altstack: AltStack::default(),
            fault: FaultContext::default(),
            trace_own: crate::kernel::ptrace::Own::default(),
            sem_undo: None,
            timer_slack: 50_000,
        };
        setup(&mut own);
        Arc::new(Task {
            kernel: kernel.clone(),
            tid,
            group,
            run: RunState::new(),
            own: Mutex::new(Level::TaskOwn, own),
            shared: Mutex::new(Level::TaskShared, shared),
            signals,
            cpu_time: AtomicU64::new(0),
            user_time: AtomicU64::new(0),
            counts: crate::kernel::usage::Counts::default(),
            on_cpu_since: AtomicI64::new(0),
            flags: AtomicU32::new(0),
            death_signal: AtomicI32::new(0),
            sched_attr: Mutex::new(Level::Leaf, SchedAttr::default()),
            ptrace: crate::kernel::ptrace::Ptrace::default(),
            seccomp: crate::kernel::seccomp::Seccomp::default(),
            exit_status: AtomicI32::new(0),
            start_time: kernel.clock.monotonic(),
            last_cpu: AtomicUsize::new(0),
        })
    }

    /// Makes the task look around: retry its call, notice a signal or a flag. From any thread, at any time.
    pub fn notify(self: &Arc<Self>) {
        match self.run.wake() {
            WakeAction::Enqueue => self.kernel.sched.enqueue(self.clone()),
            WakeAction::Kick(worker) => self.kernel.sched.kick(worker),
            WakeAction::Nothing => {}
        }
    }

    /// Sets [`flags`] bits and makes the task look at them.
    pub fn raise(self: &Arc<Self>, bits: u32) {
        self.flags.fetch_or(bits, Ordering::SeqCst);
        self.notify();
    }

    /// CPU time up to now, nanoseconds, and the part of it spent in guest code.
    #[must_use]
    pub fn cpu_times(&self) -> (u64, u64) {
        let since = self.on_cpu_since.load(Ordering::Relaxed);
        let running = if since == 0 { 0 } else { self.kernel.clock.monotonic().saturating_sub(since).max(0) };
        let total = self.cpu_time.load(Ordering::Relaxed).saturating_add(running.cast_unsigned());
        (total, self.user_time.load(Ordering::Relaxed).min(total))
    }

    /// The container it belongs to.
    #[must_use]
    pub fn container(&self) -> &Arc<Container> {
        &self.group.container
    }

    /// Its namespaces.
    #[must_use]
    pub fn ns(&self) -> &Namespaces {
        &self.group.container.ns
    }

    /// Its pid namespace.
    #[must_use]
    pub fn pids(&self) -> &Arc<PidTable> {
        &self.group.container.ns.pids
    }

    /// Credentials now.
    #[must_use]
    pub fn creds(&self) -> Arc<Creds> {
        self.shared.lock().creds.clone()
    }

    /// Open descriptors; `None` once it has exited.
    #[must_use]
    pub fn fds(&self) -> Option<Arc<FdTable>> {
        self.shared.lock().fds.clone()
    }

    /// Root and working directory; `None` once it has exited.
    #[must_use]
    pub fn fs(&self) -> Option<Arc<FsContext>> {
        self.shared.lock().fs.clone()
    }

    /// Address space; `None` once it has exited.
    #[must_use]
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.shared.lock().mm.clone()
    }

    /// Whether this is its process's first thread.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.tid == self.group.tgid
    }
}

impl TimerTarget for TaskWaker {
    fn expired(&self) {
        self.0.notify();
    }
}

impl WaitTarget for TaskWaker {
    fn wake(&self, _: Events) {
        self.0.notify();
    }
}

/// A task as the target of wait queues and timers.
pub struct TaskWaker(pub Arc<Task>);

/// The task that the calling worker runs, with all that a system call handler may use.
pub struct CurrentTask<'a> {
    /// The task.
    pub task: &'a Arc<Task>,
    /// The part only we touch.
    pub own: &'a mut TaskOwned,
    /// Our virtual CPU.
    pub cpu: &'a mut dyn Cpu,
}

impl CurrentTask<'_> {
    /// Whether a call that takes long should answer [`Attempt::Again`] now: its time slice is over, or the task is to
    /// die or to stand still.
    ///
    /// [`Attempt::Again`]: crate::kernel::op::Attempt::Again
    #[must_use]
    pub fn is_wanted_elsewhere(&self) -> bool {
        let sched = &self.kernel().sched;
        self.task.flags.load(Ordering::Relaxed) & flags::EXIT != 0
            || sched.should_resched(self.task.last_cpu.load(Ordering::Relaxed))
            || sched.is_stopped()
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.task.kernel
    }

    /// The address space. A running task always has one; after exit an empty one cannot be entered any more.
    ///
    /// # Errors
    /// `ESRCH` once the task has let go of it.
    pub fn mm(&self) -> Result<Arc<Mm>, abi::Errno> {
        self.own.mm.clone().ok_or(abi::Errno::ESRCH)
    }

    /// The descriptor table.
    ///
    /// # Errors
    /// `EBADF` once the task has let go of it.
    pub fn fds(&self) -> Result<Arc<FdTable>, abi::Errno> {
        self.task.fds().ok_or(abi::Errno::EBADF)
    }

    /// Root, working directory, umask.
    ///
    /// # Errors
    /// `ENOENT` once the task has let go of it.
    pub fn fs(&self) -> Result<Arc<FsContext>, abi::Errno> {
        self.task.fs().ok_or(abi::Errno::ENOENT)
    }

    /// Credentials.
    #[must_use]
    pub fn creds(&self) -> Arc<Creds> {
        self.task.creds()
    }

    /// This task as a wait target.
    #[must_use]
    pub fn waiter(&self) -> Arc<dyn WaitTarget> {
        Arc::new(TaskWaker(self.task.clone()))
    }

    /// Brings registers and FPU state wholly into `own.arch`, for signal frames, fork and tracing.
    pub fn save_fpu(&mut self) {
        if let Some(mm) = &self.own.mm {
            self.cpu.save_fpu(&mm.space(), &mut self.own.arch);
        }
    }
}
