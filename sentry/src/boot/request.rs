//! What the outside asks of a sandbox, what it is answered, and what it is told unasked.

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use abi::Errno;

use crate::boot::spec::{ContainerSpec, ProcessSpec, ResourceLimits};
use crate::checkpoint::Destination;

/// Ties an answer to its request; chosen by the source.
pub type Token = u64;

/// A request.
pub struct Request {
    /// For its answer.
    pub token: Token,
    /// What is wanted.
    pub control: Control,
}

/// What is wanted. Each is answered once, through [`ControlSource::reply`], some of them later than others that came
/// after; unknown containers are ENOENT.
pub enum Control {
    /// Makes a container with its first process, which has its user, its directory and its program, but does not run
    /// yet. `Done`; EEXIST; what the start of a program says, see [`Reply`].
    Create(Box<ContainerSpec>),
    /// Lets the first process run. `Pid` as the container sees it; EINVAL where it has been started.
    Start {
        /// The container.
        id: String,
    },
    /// Runs one more process in a container that was started (or created). `Pid` once its program runs; what the start of a program says.
    Exec {
        /// The container.
        id: String,
        /// The process.
        process: Box<ProcessSpec>,
    },
    /// Sends a signal. `Done`; ESRCH.
    Signal {
        /// The container.
        id: String,
        /// To whom.
        target: Target,
        /// Which; 0 only asks whether there is somebody.
        signo: i32,
    },
    /// The terminal of a process has a new size. `Done`; ENOTTY where it has none.
    WindowSize {
        /// The container.
        id: String,
        /// Whose terminal: a process that was created or executed; 0 for the first one.
        pid: i32,
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// Stops all tasks of a container until [`Control::Resume`]; answered when none runs guest code any more.
    Pause {
        /// The container.
        id: String,
    },
    /// Goes on.
    Resume {
        /// The container.
        id: String,
    },
    /// `Processes`.
    Processes {
        /// The container.
        id: String,
    },
    /// `Stats`. Also of a container that has stopped.
    Stats {
        /// The container.
        id: String,
    },
    /// Saves the sandbox of this container. `Done` when the snapshot is written, from when on the sandbox goes on, or
    /// ends as if by SIGKILL ([`Destination::stop_after`]); EOPNOTSUPP where something cannot be saved: nothing has changed
    /// then; EBUSY where another checkpoint is waited for.
    Checkpoint {
        /// The container.
        id: String,
        /// Where it is written.
        destination: Box<Destination>,
        /// Not now, but when a program says that it is ready (`/proc/nanovisor/checkpoint`).
        at_ready: bool,
    },
    /// Kills what is left of a container, takes its tree apart and forgets it. `Done`, once all its memory is free.
    Destroy {
        /// The container.
        id: String,
    },
    /// New limits; those that are `None` stay. `Done`.
    Update {
        /// The container.
        id: String,
        /// The limits.
        limits: ResourceLimits,
    },
    /// Kills everything and ends the sandbox. Not answered.
    Shutdown,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first process.
    Init,
    /// This process, by its id in the container.
    Process(i32),
    /// All processes.
    All,
}

/// The answer to a request: what was asked for, or an errno with a sentence for people.
///
/// A program that cannot be started is answered like execvp(3): ENOENT where it (or its interpreter) is missing,
/// EACCES where it may not be run, ENOEXEC where it is no program. Sentences about the user begin with `user`, those
/// about the working directory with `working directory`.
pub type Reply = Result<Answer, (Errno, String)>;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A process, by its id in its container.
    Pid(i32),
    /// All processes of a container.
    Processes(Vec<ProcessInfo>),
    /// What a container uses.
    Stats(Box<Stats>),
}

/// A process, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id in the container.
    pub pid: i32,
    /// Its parent's; 0 for the first and for what was executed from outside.
    pub ppid: i32,
    /// Real user id.
    pub uid: u32,
    /// When it started.
    pub start: SystemTime,
    /// CPU time, nanoseconds.
    pub cpu: u64,
    /// Threads.
    pub threads: usize,
    /// Its command line, arguments separated by spaces; its name in brackets where it has none.
    pub command: Vec<u8>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory.
    pub memory: MemoryStats,
    /// CPU.
    pub cpu: CpuStats,
    /// Tasks now.
    pub pids: u64,
    /// Tasks at most; `None` for the sandbox's own limit.
    pub pids_limit: Option<u64>,
}

/// Memory, bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Now, all kinds together.
    pub usage: u64,
    /// Most ever seen.
    pub max_usage: u64,
    /// At most; `None` for the sandbox's own limit.
    pub limit: Option<u64>,
    /// How often the limit was met.
    pub failcnt: u64,
    /// Processes killed for memory.
    pub oom_kills: u64,
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of files in memory (tmpfs, the writable layer, shared memory).
    pub file: u64,
    /// The kernel's own objects.
    pub kernel: u64,
}

/// CPU time, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All.
    pub total: u64,
    /// In guest code.
    pub user: u64,
    /// In the kernel on its behalf.
    pub system: u64,
}

/// What the outside is told unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process that was created or executed from outside has ended.
    Exited {
        /// The container.
        id: String,
        /// Its id in the container.
        pid: i32,
        /// In `wait(2)` form.
        status: i32,
        /// When.
        when: SystemTime,
    },
    /// A process of the container was killed for memory.
    Oom {
        /// The container.
        id: String,
    },
}

/// Where requests come from and answers go: a descriptor the reactor watches, and calls that never block.
///
/// The descriptor may be an epoll instance with many connections in it: the sentry sees one source.
pub trait ControlSource: Send {
    /// Readable where something may have come; non-blocking, watched edge-triggered.
    fn fd(&self) -> &OwnedFd;
    /// The next request; `None` where there is none now. Called until it answers `None`, from any thread, one at a time.
    fn next(&mut self) -> Option<Request>;
    /// Takes the answer to a request.
    fn reply(&mut self, token: Token, reply: Reply);
    /// Takes an event. All events of a process come after the answer that named it.
    fn event(&mut self, event: Event);
}
