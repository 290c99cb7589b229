//! The kernel proper: tasks and who runs them, signals, time, identity.

pub mod chaos;
pub mod clock;
pub mod clone;
pub mod container;
pub mod creds;
pub mod exec;
pub mod exit;
pub mod file_caps;
pub mod futex;
pub mod io_pool;
pub mod limits;
pub mod oom;
pub mod op;
pub mod pidfd;
pub mod pids;
pub mod ptrace;
pub mod random;
pub mod reactor;
pub mod reap;
pub mod sched;
pub mod seccomp;
pub mod session;
pub mod signal;
pub mod task;
pub mod thread_group;
pub mod timer_set;
pub mod timers;
pub mod trip;
pub mod tsc;
pub mod usage;
pub mod vsyscall;
pub mod wait;
pub mod worker;

use std::sync::Arc;
use std::sync::OnceLock;

use memory::MemoryFile;
use platform::Platform;

use crate::boot::ExitStatus;
use crate::fs::tty::console::Console;
use crate::kernel::clock::Clock;
use crate::kernel::reactor::Reactor;
use crate::kernel::sched::Scheduler;
use crate::kernel::task::Task;
use crate::kernel::timers::{TimerHandle, TimerTarget, Timers};
use crate::loader::vdso::Vdso;
use crate::sync::{Level, Mutex};
use crate::syscalls::SyscallTable;

/// One sandbox's kernel. No global state: a process may hold several.
pub struct Kernel {
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// Guest memory.
    pub memory: Arc<MemoryFile>,
    /// Clocks.
    pub clock: Clock,
    /// Host events.
    pub reactor: Arc<Reactor>,
    /// Deadlines.
    pub timers: Timers,
    /// Run queue and workers.
    pub sched: Scheduler,
    /// Containers, and who is in them.
    pub containers: container::Containers,
    /// Who may be asked and told from outside.
    pub outside: container::Outside,
    /// System calls: table and counters.
    pub syscalls: SyscallTable,
    /// What the sandbox was started with that stays interesting.
    pub options: Options,
    /// Disorder on purpose, in tests.
    pub chaos: Option<chaos::Chaos>,
    /// The vDSO and its clock page.
    pub vdso: Vdso,
    /// The tree: mounts and names.
    pub vfs: crate::vfs::Vfs,
    /// Threads that wait for disks.
    pub io: Arc<io_pool::IoPool>,
    /// Drivers of character devices.
    pub devices: crate::fs::dev::DeviceRegistry,
    /// Advisory file locks.
    pub file_locks: Arc<crate::vfs::locks::FileLocks>,
    /// Files without names (`memfd_create`).
    pub memfds: OnceLock<Arc<crate::fs::tmpfs::TmpFs>>,
    /// Open FIFOs.
    pub fifos: crate::fs::pipe::fifo::Fifos,
    /// Bound Unix sockets.
    pub unix: crate::net::unix::address::UnixNames,
    /// Terminals that are relayed to the outside, until all that was written to them is out.
    pub consoles: Mutex<Vec<Arc<Console>>>,
    /// Futex waiters.
    pub futexes: futex::Futexes,
    /// Controlling terminals.
    pub sessions: session::Sessions,
    /// Signals queued in all queues (RLIMIT_SIGPENDING).
    pub queued_signals: signal::queue::Counter,
    /// The out-of-memory killer.
    pub oom: oom::Oom,
    /// Saved state.
    pub checkpoints: crate::checkpoint::Service,
    pub(crate) exit: OnceLock<ExitStatus>,
    pub(crate) tick: Mutex<Option<TimerHandle>>,
}

/// Settings that do not change.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Log every system call.
    pub strace: bool,
    /// Wake and retry every blocked call at random, from this seed (tests).
    pub chaos: Option<u64>,
    /// Guest CPUs: workers.
    pub cpus: usize,
}

struct Tick(std::sync::Weak<Kernel>);

impl TimerTarget for Tick {
    fn expired(&self) {
        if let Some(kernel) = self.0.upgrade() {
            kernel.sched.preempt(kernel.clock.monotonic());
        }
    }
}

impl Kernel {
    /// A kernel without tasks. Workers are started by [`crate::boot::run`].
    ///
    /// # Errors
    /// What the host says: descriptors exhausted.
    pub fn new(platform: Arc<dyn Platform>, memory: Arc<MemoryFile>, options: Options) -> std::io::Result<Arc<Self>> {
        Self::with_clock(platform, memory, options, Clock::new())
    }

    /// The same, with a clock that goes on from where it stood.
    ///
    /// # Errors
    /// What the host says: descriptors exhausted.
    pub fn with_clock(
        platform: Arc<dyn Platform>,
        memory: Arc<MemoryFile>,
        options: Options,
        clock: Clock,
    ) -> std::io::Result<Arc<Self>> {
        let reactor = Reactor::new()?;
        let offset = clock.monotonic_offset();
        let workers = options.cpus.clamp(1, platform.max_cpus());
        Ok(Arc::new_cyclic(|weak: &std::sync::Weak<Kernel>| {
            let (arm, tick) = (reactor.clone(), weak.clone());
            Kernel {
                platform,
                memory,
                clock,
                timers: Timers::new(move |deadline| arm.arm(deadline.saturating_sub(offset))),
                sched: Scheduler::new(workers, reactor.clone(), move |after| arm_tick(&tick, after)),
                reactor,
                containers: container::Containers::default(),
                outside: container::Outside::default(),
                syscalls: SyscallTable::new(),
                chaos: options.chaos.map(chaos::Chaos::new),
                options,
                vfs: crate::vfs::Vfs::new(),
                io: Arc::default(),
                devices: crate::fs::dev::DeviceRegistry::default(),
                vdso: Vdso::default(),
                file_locks: Arc::default(),
                memfds: OnceLock::new(),
                fifos: crate::fs::pipe::fifo::Fifos::default(),
                unix: crate::net::unix::address::UnixNames::default(),
                consoles: Mutex::new(Level::Leaf, Vec::new()),
                futexes: futex::Futexes::default(),
                sessions: session::Sessions::default(),
                queued_signals: signal::queue::Counter::default(),
                oom: oom::Oom::default(),
                checkpoints: crate::checkpoint::Service::default(),
                exit: OnceLock::new(),
                tick: Mutex::new(Level::Leaf, None),
            }
        }))
    }

    /// Queues a new task for the first time.
    pub fn start_task(&self, task: &Arc<Task>) {
        task.notify();
    }

    /// The sandbox's first process has ended: so does the sandbox.
    pub fn finish(&self, status: ExitStatus) {
        let _ = self.exit.set(status);
        self.sched.stop();
    }

    /// The sandbox cannot go on, through no fault of the guest's program.
    pub fn fail(&self, reason: &str) {
        self.finish(ExitStatus::Failed(reason.to_owned()));
    }

    /// How the sandbox ended; `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.exit.get().cloned()
    }
}

fn arm_tick(kernel: &std::sync::Weak<Kernel>, after: i64) {
    if let Some(k) = kernel.upgrade() {
        let handle = k.timers.add(k.clock.monotonic() + after, Arc::new(Tick(kernel.clone())));
        // The old handle is dropped after the guard: it takes the timers' lock.
        let old = k.tick.lock().replace(handle);
        drop(old);
    }
}
