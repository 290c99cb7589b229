//! Who exists: ids of tasks, processes, process groups and sessions.
//!
//! The table's lock is also the *tree lock* (Linux's `tasklist_lock`): see [`crate::kernel::thread_group`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kernel::task::{Task, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::sync::{Level, Mutex, MutexGuard};

/// Highest id given out (`/proc/sys/kernel/pid_max` is one more).
pub const PID_LIMIT: i32 = 4_194_303;
/// Most tasks a sandbox has at a time (its `pids.max`): a fork bomb ends at EAGAIN. Zombies count.
pub const TASK_LIMIT: usize = 32_768;

/// A process and its leader task, out of the table; dropped after the tree lock.
pub type Forgotten = (Option<Arc<ThreadGroup>>, Option<Arc<Task>>);

/// The table's content; held, nobody is born, reaped, or moved in the tree.
#[derive(Default)]
pub struct Tree {
    last: i32,
    wrapped: bool,
    /// The namespace's first process has ended: nobody is born any more.
    closed: bool,
    tasks: BTreeMap<Tid, Arc<Task>>,
    groups: BTreeMap<Tid, Arc<ThreadGroup>>,
}

impl Tree {
    /// Whether `id` names a task, process, process group or session.
    fn in_use(&self, id: Tid) -> bool {
        self.tasks.contains_key(&id) || self.groups.contains_key(&id) || self.names_group(id.0)
    }

    fn names_group(&self, id: i32) -> bool {
        self.groups.values().any(|g| {
            let state = g.state.lock();
            state.pgid == id || state.sid == id
        })
    }

    /// The id given out last, and whether they have begun anew, for saved state.
    #[must_use]
    pub fn counter(&self) -> (i32, bool) {
        (self.last, self.wrapped)
    }

    /// Goes on from what [`Tree::counter`] said.
    pub fn set_counter(&mut self, (last, wrapped): (i32, bool)) {
        (self.last, self.wrapped) = (last.clamp(0, PID_LIMIT), wrapped);
    }

    /// Whether nobody is to be born here any more (`PIDNS_ADDING` is gone).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The process with this id.
    #[must_use]
    pub fn group(&self, tgid: Tid) -> Option<&Arc<ThreadGroup>> {
        self.groups.get(&tgid)
    }

    /// The task with this id.
    #[must_use]
    pub fn task(&self, tid: Tid) -> Option<&Arc<Task>> {
        self.tasks.get(&tid)
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// Forgets a task. The caller drops the answer outside the lock.
    #[must_use]
    pub fn remove_task(&mut self, tid: Tid) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&tid)?;
        task.container().usage.tasks.fetch_sub(1, Ordering::Relaxed);
        Some(task)
    }

    /// Adds a task, and its process where it leads one.
    pub fn add(&mut self, task: &Arc<Task>) {
        task.container().usage.tasks.fetch_add(1, Ordering::Relaxed);
        self.tasks.insert(task.tid, task.clone());
        if task.is_leader() {
            task.container().process_born();
            self.groups.insert(task.group.tgid, task.group.clone());
        }
    }

    /// All processes.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<ThreadGroup>> {
        self.groups.values()
    }

    /// The members of process group `pgid`.
    #[must_use]
    pub fn process_group(&self, pgid: i32) -> Vec<Arc<ThreadGroup>> {
        self.groups.values().filter(|g| g.state.lock().pgid == pgid).cloned().collect()
    }

    /// Forgets a process and its leader task. The caller drops the answer outside the lock.
    #[must_use]
    pub fn forget(&mut self, tgid: Tid) -> Forgotten {
        (self.groups.remove(&tgid), self.remove_task(tgid))
    }

    /// Makes `task` the one that its id names.
    #[must_use]
    pub fn replace_task(&mut self, task: &Arc<Task>) -> Option<Arc<Task>> {
        self.tasks.insert(task.tid, task.clone())
    }

    /// Tasks that exist.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }
}

/// A pid namespace: its tasks and thread groups by id. Namespaces do not nest: each is a tree of its own, and nobody has
/// ids in two.
pub struct PidTable {
    /// Its number in `/proc/PID/ns`.
    pub ino: u32,
    ids: Mutex<Tree>,
    /// Whether any process has ever stopped: until then nobody need look for orphaned process groups.
    pub ever_stopped: AtomicBool,
}

impl PidTable {
    /// An empty table; the first id is 1.
    #[must_use]
    pub fn new(ino: u32) -> Self {
        PidTable { ino, ids: Mutex::new(Level::PidTable, Tree::default()), ever_stopped: AtomicBool::new(false) }
    }

    /// Lets nobody be born any more; answers who is there.
    #[must_use]
    pub fn close(&self) -> Vec<Arc<ThreadGroup>> {
        let mut ids = self.ids.lock();
        ids.closed = true;
        ids.groups.values().cloned().collect()
    }

    /// Takes the tree lock.
    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.ids.lock()
    }

    /// A fresh id: the next free one, cyclically, as Linux gives them. `None` where the sandbox has as many tasks as
    /// it may.
    #[must_use]
    pub fn allocate(&self) -> Option<Tid> {
        let mut ids = self.ids.lock();
        if ids.tasks.len() >= TASK_LIMIT {
            return None;
        }
        for _ in 0..PID_LIMIT {
            if ids.last >= PID_LIMIT {
                ids.wrapped = true;
                ids.last = 299;
            }
            ids.last += 1;
            let tid = Tid(ids.last);
            // Before the first wrap no id can be in use; the search is for long-lived sandboxes.
            if !ids.wrapped || !ids.in_use(tid) {
                return Some(tid);
            }
        }
        None
    }

    /// The task with this id.
    #[must_use]
    pub fn task(&self, tid: Tid) -> Option<Arc<Task>> {
        self.ids.lock().tasks.get(&tid).cloned()
    }

    /// The process with this id.
    #[must_use]
    pub fn group(&self, tgid: Tid) -> Option<Arc<ThreadGroup>> {
        self.ids.lock().groups.get(&tgid).cloned()
    }

    /// All tasks.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.ids.lock().tasks.values().cloned().collect()
    }

    /// All processes.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.ids.lock().groups.values().cloned().collect()
    }
}
