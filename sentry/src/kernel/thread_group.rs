//! A process: threads that share an id, signal handlers, children and fate.

use std::sync::Arc;
use std::sync::Weak;

use crate::kernel::signal::GroupSignals;
use crate::kernel::task::{Task, Tid};
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};

/// A `vfork` child lets its parent go on.
#[derive(Default)]
pub struct VforkDone {
    done: std::sync::atomic::AtomicBool,
    queue: WaitQueue,
}

impl VforkDone {
    /// Whether the child has let go of the address space.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The child lets go.
    pub fn finish(&self) {
        self.done.store(true, std::sync::atomic::Ordering::SeqCst);
        self.queue.wake(crate::kernel::wait::Events::IN);
    }

    /// Woken when it does.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
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
    /// Process group id.
    pub pgid: i32,
    /// Session id.
    pub sid: i32,
    /// Set once the whole group is to exit: the status in `wait(2)` form.
    pub exiting: Option<i32>,
}

/// A process.
pub struct ThreadGroup {
    /// Its id: that of its first thread.
    pub tgid: Tid,
    /// Its state.
    pub state: Mutex<GroupState>,
    /// Shared pending signals and handlers.
    pub signals: GroupSignals,
    /// Woken when a child changes state.
    pub child_queue: WaitQueue,
}

impl ThreadGroup {
    /// A process without threads.
    #[must_use]
    pub fn new(tgid: Tid) -> Arc<Self> {
        Arc::new(ThreadGroup {
            tgid,
            state: Mutex::new(Level::ThreadGroup, GroupState::default()),
            signals: GroupSignals::default(),
            child_queue: WaitQueue::new(),
        })
    }
}
