//! A process: threads that share an id, signal handlers, children and fate.
//!
//! `parent`, `children`, `pgid` and `sid` form the process tree. They change only while the [`PidTable`]'s tree lock is
//! held (and the group's own lock for the write), so whoever holds the tree lock sees the whole tree stand still.
//!
//! [`PidTable`]: crate::kernel::pids::PidTable

pub mod saved;

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};

use crate::kernel::container::Container;
use crate::kernel::limits::Limits;
use crate::kernel::signal::{Actions, GroupSignals};
use crate::kernel::task::{Task, Tid};
use crate::kernel::timer_set::TimerSet;
use crate::kernel::usage::Usage;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

/// A `vfork` child lets its parent go on.
#[derive(Default)]
pub struct VforkDone {
    done: AtomicBool,
    queue: WaitQueue,
}

impl VforkDone {
    /// Whether the child has let go of the address space.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// The child lets go.
    pub fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.queue.wake(Events::IN);
    }

    /// Woken when it does.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

impl GroupState {
    /// Takes `child` out of the children. The oldest, who mostly goes first, is found first.
    pub fn forget_child(&mut self, child: &Arc<ThreadGroup>) {
        if let Some(at) = self.children.iter().position(|c| Arc::ptr_eq(c, child)) {
            self.children.remove(at);
        }
    }
}

/// A change that a parent may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum JobEvent {
    /// Stopped by this signal.
    Stopped(i32),
    /// Continued.
    Continued,
}

/// What changes in a process.
#[derive(Default)]
pub struct GroupState {
    /// Its living threads.
    pub tasks: Vec<Arc<Task>>,
    /// The process it reports to.
    pub parent: Weak<ThreadGroup>,
    /// Its children, zombies included.
    pub children: Vec<Arc<ThreadGroup>>,
    /// The tasks it traces.
    pub tracees: Vec<Arc<Task>>,
    /// Process group id.
    pub pgid: i32,
    /// Session id.
    pub sid: i32,
    /// Set once the whole group is to exit: the status in `wait(2)` form.
    pub exiting: Option<i32>,
    /// The thread that is in `execve` and waits for the others to go.
    pub exec: Option<Tid>,
    /// All threads have gone: the status for the parent, in `wait(2)` form.
    pub zombie: Option<i32>,
    /// The signal the parent gets at the end; 0 for none.
    pub exit_signal: i32,
    /// The stop that is under way or in effect: its signal.
    pub stop: Option<i32>,
    /// Whether all threads have stopped and the parent was told.
    pub stop_complete: bool,
    /// A stop or continuation that nobody has waited for yet.
    pub job_event: Option<JobEvent>,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub subreaper: bool,
    /// Has called `execve` since it was forked (`setpgid` then refuses: EACCES).
    pub did_exec: bool,
    /// Usage of threads that have gone.
    pub dead_threads: Usage,
    /// Usage of children that were waited for.
    pub children_usage: Usage,
}

/// A process.
pub struct ThreadGroup {
    /// Its id: that of its first thread.
    pub tgid: Tid,
    /// The container it belongs to.
    pub container: Arc<Container>,
    /// It was made from outside and is known there: its end is told.
    pub reported: AtomicBool,
    /// Its state.
    pub state: Mutex<GroupState>,
    /// Whether its parent may find something to wait for here: a hint that spares a look at every other child. Set
    /// with `state` held, after what it tells of.
    pub news: AtomicBool,
    /// Shared pending signals and handlers.
    pub signals: GroupSignals,
    /// Woken when a child changes state.
    pub child_queue: WaitQueue,
    /// Woken when it ends (`pidfd_open`).
    pub exit_queue: WaitQueue,
    /// Resource limits.
    pub limits: Mutex<Limits>,
    /// `PR_SET_DUMPABLE`: 0, 1 or 2.
    pub dumpable: AtomicU8,
    /// `personality(2)`; inherited.
    pub personality: AtomicU32,
    /// `/proc/PID/oom_score_adj`, -1000..=1000; inherited.
    pub oom_score_adj: AtomicI32,
    /// `membarrier(2)` commands it is registered for.
    pub membarrier: AtomicU32,
    /// Interval timers and POSIX timers.
    pub timers: TimerSet,
}

impl ThreadGroup {
    /// A process without threads, with these handlers and limits.
    #[must_use]
    pub fn with(tgid: Tid, container: &Arc<Container>, actions: Arc<Actions>, limits: Limits) -> Arc<Self> {
        let state = GroupState { exit_signal: libc::SIGCHLD, ..GroupState::default() };
        Arc::new(ThreadGroup {
            tgid,
            container: container.clone(),
            reported: AtomicBool::new(false),
            state: Mutex::new(Level::ThreadGroup, state),
            news: AtomicBool::new(false),
            signals: GroupSignals::new(actions),
            child_queue: WaitQueue::new(),
            exit_queue: WaitQueue::new(),
            limits: Mutex::new(Level::Leaf, limits),
            dumpable: AtomicU8::new(1),
            personality: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
            membarrier: AtomicU32::new(0),
            timers: TimerSet::default(),
        })
    }

    /// Whether others of the same user may look into it.
    #[must_use]
    pub fn is_dumpable(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed) == 1
    }

    /// Its living threads.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.state.lock().tasks.clone()
    }

    /// Its first living thread, the leader while that lives.
    #[must_use]
    pub fn first_task(&self) -> Option<Arc<Task>> {
        let state = self.state.lock();
        state.tasks.iter().find(|t| t.is_leader()).or_else(|| state.tasks.first()).cloned()
    }

    /// Its parent's id as `getppid(2)` tells it; 0 where there is none.
    #[must_use]
    pub fn parent_tgid(&self) -> i32 {
        let parent = self.state.lock().parent.upgrade();
        parent.map_or(0, |p| p.tgid.0)
    }

    /// Process group id.
    #[must_use]
    pub fn pgid(&self) -> i32 {
        self.state.lock().pgid
    }

    /// Session id.
    #[must_use]
    pub fn sid(&self) -> i32 {
        self.state.lock().sid
    }

    /// Whether it has ended and waits to be reaped.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.state.lock().zombie.is_some()
    }

    /// The soft limit of `resource` (`RLIMIT_*`).
    #[must_use]
    pub fn limit(&self, resource: u32) -> u64 {
        self.limits.lock().get(resource).map_or(u64::MAX, |l| l.soft)
    }
}
