//! Who exists: ids of tasks, processes, process groups and sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kernel::task::{Task, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::sync::{Level, Mutex};

/// Highest id given out (`/proc/sys/kernel/pid_max` is one more).
pub const PID_LIMIT: i32 = 4_194_303;

#[derive(Default)]
struct Ids {
    last: i32,
    tasks: BTreeMap<Tid, Arc<Task>>,
    groups: BTreeMap<Tid, Arc<ThreadGroup>>,
}

/// All tasks and thread groups by id. One pid namespace for now.
pub struct PidTable {
    ids: Mutex<Ids>,
}

impl Default for PidTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PidTable {
    /// An empty table; the first id is 1.
    #[must_use]
    pub fn new() -> Self {
        PidTable { ids: Mutex::new(Level::PidTable, Ids::default()) }
    }

    /// A fresh id: the next free one, cyclically, as Linux gives them.
    #[must_use]
    pub fn allocate(&self) -> Option<Tid> {
        let mut ids = self.ids.lock();
        for _ in 0..PID_LIMIT {
            ids.last = if ids.last >= PID_LIMIT { 300 } else { ids.last + 1 };
            let tid = Tid(ids.last);
            if !ids.tasks.contains_key(&tid) && !ids.groups.contains_key(&tid) {
                return Some(tid);
            }
        }
        None
    }

    /// Makes a task findable, and its thread group where it is the leader.
    pub fn insert(&self, task: &Arc<Task>) {
        let mut ids = self.ids.lock();
        ids.tasks.insert(task.tid, task.clone());
        if task.is_leader() {
            ids.groups.insert(task.group.tgid, task.group.clone());
        }
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

    /// Forgets a task that has been reaped.
    pub fn remove_task(&self, tid: Tid) {
        let removed = self.ids.lock().tasks.remove(&tid);
        drop(removed);
    }

    /// Forgets a process that has been reaped.
    pub fn remove_group(&self, tgid: Tid) {
        let removed = self.ids.lock().groups.remove(&tgid);
        drop(removed);
    }
}
