//! What tasks and processes have used: `getrusage(2)`, `wait4(2)`, `/proc/PID/stat`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::task::Task;
use crate::kernel::thread_group::ThreadGroup;

/// Times in nanoseconds, and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Time in guest code.
    pub user: u64,
    /// Time in the kernel on its behalf.
    pub system: u64,
    /// Largest resident set, KiB.
    pub max_rss: u64,
    /// Page faults that were served.
    pub faults: u64,
    /// How often it gave the CPU up to wait.
    pub waits: u64,
    /// How often the CPU was taken from it.
    pub preemptions: u64,
}

impl Usage {
    /// The sum of both; the larger resident set.
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            user: self.user.saturating_add(other.user),
            system: self.system.saturating_add(other.system),
            max_rss: self.max_rss.max(other.max_rss),
            faults: self.faults.saturating_add(other.faults),
            waits: self.waits.saturating_add(other.waits),
            preemptions: self.preemptions.saturating_add(other.preemptions),
        }
    }
}

/// What a task counts as it runs, apart from its times.
#[derive(Debug, Default)]
pub struct Counts {
    /// [`Usage::faults`].
    pub faults: AtomicU64,
    /// [`Usage::waits`].
    pub waits: AtomicU64,
    /// [`Usage::preemptions`].
    pub preemptions: AtomicU64,
}

impl Task {
    /// What this thread alone has used. The resident set is its process's.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (total, user) = self.cpu_times();
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Usage {
            user,
            system: total - user,
            max_rss: self.mm().map_or(0, |mm| mm.most_resident() / 1024),
            faults: count(&self.counts.faults),
            waits: count(&self.counts.waits),
            preemptions: count(&self.counts.preemptions),
        }
    }

    /// Goes on counting where `other`, whose place it takes, stands.
    pub fn inherit_usage(&self, other: &Task) {
        let usage = other.usage();
        self.cpu_time.store(usage.user + usage.system, Ordering::Relaxed);
        self.user_time.store(usage.user, Ordering::Relaxed);
        self.counts.faults.store(usage.faults, Ordering::Relaxed);
        self.counts.waits.store(usage.waits, Ordering::Relaxed);
        self.counts.preemptions.store(usage.preemptions, Ordering::Relaxed);
    }
}

impl ThreadGroup {
    /// Own usage: living and gone threads.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (gone, tasks) = {
            let state = self.state.lock();
            (state.dead_threads, state.tasks.clone())
        };
        tasks.iter().fold(gone, |sum, task| sum.plus(task.usage()))
    }

    /// Own usage and that of the children it has waited for: what its parent is told (`RUSAGE_BOTH`).
    #[must_use]
    pub fn usage_with_children(&self) -> Usage {
        let children = self.state.lock().children_usage;
        self.usage().plus(children)
    }
}
