//! A container's limits and counts as saved state.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::Usage;

/// [`Usage`]. Tasks are counted again as they come.
#[derive(Serialize, Deserialize)]
pub struct UsageState {
    memory: u64,
    pids: u64,
    cpu_millis: u64,
    gone: [u64; 2],
    peak: u64,
    oom_kills: u64,
    failures: u64,
}

impl Usage {
    /// Its state.
    #[must_use]
    pub fn save(&self) -> UsageState {
        // The next look at memory is the first one after the restore.
        let Usage { memory, pids, cpu_millis, next_look: _, tasks: _, gone, peak, oom_kills, failures } = self;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        UsageState {
            memory: get(memory),
            pids: get(pids),
            cpu_millis: get(cpu_millis),
            gone: gone.each_ref().map(get),
            peak: get(peak),
            oom_kills: get(oom_kills),
            failures: get(failures),
        }
    }
}

impl UsageState {
    /// The limits and counts.
    #[must_use]
    pub fn restore(&self) -> Usage {
        Usage {
            memory: AtomicU64::new(self.memory),
            pids: AtomicU64::new(self.pids),
            cpu_millis: AtomicU64::new(self.cpu_millis),
            next_look: AtomicU64::new(0),
            tasks: AtomicUsize::new(0),
            gone: self.gone.map(AtomicU64::new),
            peak: AtomicU64::new(self.peak),
            oom_kills: AtomicU64::new(self.oom_kills),
            failures: AtomicU64::new(self.failures),
        }
    }
}
