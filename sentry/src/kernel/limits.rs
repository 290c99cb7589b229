//! Resource limits, one set a process.

use crate::kernel::creds::Creds;
use crate::mm::MmLimits;

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// How many resources there are.
pub const COUNT: usize = 16;
/// `RLIMIT_*` numbers (`asm-generic/resource.h`), which `libc` types differently on different targets.
#[allow(missing_docs, reason = "named as in getrlimit(2)")]
pub mod resource {
    pub const CPU: u32 = 0;
    pub const FSIZE: u32 = 1;
    pub const DATA: u32 = 2;
    pub const STACK: u32 = 3;
    pub const CORE: u32 = 4;
    pub const RSS: u32 = 5;
    pub const NPROC: u32 = 6;
    pub const NOFILE: u32 = 7;
    pub const MEMLOCK: u32 = 8;
    pub const AS: u32 = 9;
    pub const LOCKS: u32 = 10;
    pub const SIGPENDING: u32 = 11;
    pub const MSGQUEUE: u32 = 12;
    pub const NICE: u32 = 13;
    pub const RTPRIO: u32 = 14;
    pub const RTTIME: u32 = 15;
}

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// Enforced.
    pub soft: u64,
    /// How far the soft one may be raised.
    pub hard: u64,
}

/// All limits of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits([Limit; COUNT]);

impl Default for Limits {
    /// What Linux gives its first process (`include/asm-generic/resource.h`), with the process limits of a small host.
    fn default() -> Self {
        let mut limits = [Limit { soft: INFINITY, hard: INFINITY }; COUNT];
        let mut set = |at: u32, soft, hard| limits[at as usize] = Limit { soft, hard };
        set(resource::STACK, 8 << 20, INFINITY);
        set(resource::CORE, 0, INFINITY);
        set(resource::NPROC, crate::kernel::pids::TASK_LIMIT as u64, crate::kernel::pids::TASK_LIMIT as u64);
        set(resource::NOFILE, 1024, 1 << 20);
        set(resource::MEMLOCK, 8 << 20, 8 << 20);
        set(resource::SIGPENDING, 30_000, 30_000);
        set(resource::MSGQUEUE, 819_200, 819_200);
        set(resource::NICE, 0, 0);
        set(resource::RTPRIO, 0, 0);
        Limits(limits)
    }
}

impl Limits {
    /// Those that concern memory, for a process that may (or not) lock without bound.
    #[must_use]
    pub fn for_memory(&self, creds: &Creds) -> MmLimits {
        const CAP_IPC_LOCK: u32 = 14;
        let soft = |at: u32| self.get(at).map_or(INFINITY, |l| l.soft);
        let memlock = if creds.has_cap(CAP_IPC_LOCK) { INFINITY } else { soft(resource::MEMLOCK) };
        MmLimits {
            address_space: soft(resource::AS),
            data: soft(resource::DATA),
            stack: soft(resource::STACK),
            memlock,
        }
    }

    /// The limits of `resource`; `None` for a number that names none.
    #[must_use]
    pub fn get(&self, resource: u32) -> Option<Limit> {
        self.0.get(resource as usize).copied()
    }

    /// Sets the limits of `resource`; a number that names none is left alone.
    pub fn set(&mut self, resource: u32, limit: Limit) {
        if let Some(slot) = self.0.get_mut(resource as usize) {
            *slot = limit;
        }
    }
}
