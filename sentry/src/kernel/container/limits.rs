//! What a container may use, and has used.

pub(super) mod saved;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::boot::spec::ResourceLimits;

/// No limit.
const NONE: u64 = u64::MAX;

/// Limits and counts. Limits change at run time; nobody waits for them.
#[derive(Debug)]
pub struct Usage {
    memory: AtomicU64,
    pids: AtomicU64,
    cpu_millis: AtomicU64,
    /// Tasks that have an id, zombies included (`pids.current`).
    pub tasks: AtomicUsize,
    /// CPU time of processes that are gone, nanoseconds: in all, and in guest code.
    gone: [AtomicU64; 2],
    /// Most memory ever seen.
    peak: AtomicU64,
    /// When memory is summed up next, in bytes that the sandbox has ever taken.
    next_look: AtomicU64,
    /// Processes killed for memory.
    pub oom_kills: AtomicU64,
    /// How often the limit of memory was met.
    pub failures: AtomicU64,
}

impl Usage {
    /// Nothing used yet.
    #[must_use]
    pub fn new(limits: ResourceLimits) -> Self {
        Usage {
            memory: AtomicU64::new(limits.memory.unwrap_or(NONE)),
            pids: AtomicU64::new(limits.pids.unwrap_or(NONE)),
            cpu_millis: AtomicU64::new(limits.cpu_millis.unwrap_or(NONE)),
            tasks: AtomicUsize::new(0),
            gone: [AtomicU64::new(0), AtomicU64::new(0)],
            peak: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            oom_kills: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// New limits; `None` leaves one as it is.
    pub fn update(&self, limits: ResourceLimits) {
        let slots = [(&self.memory, limits.memory), (&self.pids, limits.pids), (&self.cpu_millis, limits.cpu_millis)];
        for (slot, limit) in slots {
            if let Some(limit) = limit {
                slot.store(limit, Ordering::Relaxed);
            }
        }
        self.look_again_at(0);
    }

    /// Bytes of memory at most.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        Some(self.memory.load(Ordering::Relaxed)).filter(|n| *n != NONE)
    }

    /// Tasks at most.
    #[must_use]
    pub fn pids_limit(&self) -> Option<u64> {
        Some(self.pids.load(Ordering::Relaxed)).filter(|n| *n != NONE)
    }

    /// CPU time per second at most, thousandths of a CPU. Told, not enforced: that is the host's.
    #[must_use]
    pub fn cpu_limit(&self) -> Option<u64> {
        Some(self.cpu_millis.load(Ordering::Relaxed)).filter(|n| *n != NONE)
    }

    /// Whether one more task would be too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.tasks.load(Ordering::Relaxed) as u64 >= self.pids.load(Ordering::Relaxed)
    }

    /// A thread is gone that has used so much CPU time.
    pub fn note_gone(&self, total: u64, user: u64) {
        self.gone[0].fetch_add(total, Ordering::Relaxed);
        self.gone[1].fetch_add(user, Ordering::Relaxed);
    }

    /// CPU time of threads that are gone: in all, and in guest code.
    #[must_use]
    pub fn gone(&self) -> (u64, u64) {
        (self.gone[0].load(Ordering::Relaxed), self.gone[1].load(Ordering::Relaxed))
    }

    /// Whether what it uses should be summed up, now that the sandbox has taken `taken` bytes in its life.
    #[must_use]
    pub fn is_look_due(&self, taken: u64) -> bool {
        taken >= self.next_look.load(Ordering::Relaxed)
    }

    /// When to do that next.
    pub fn look_again_at(&self, taken: u64) {
        self.next_look.store(taken, Ordering::Relaxed);
    }

    /// Notes that `bytes` of memory are in use now; answers the most ever seen.
    pub fn note_memory(&self, bytes: u64) -> u64 {
        self.peak.fetch_max(bytes, Ordering::Relaxed).max(bytes)
    }
}
