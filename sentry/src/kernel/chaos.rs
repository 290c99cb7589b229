//! Disorder on purpose, for tests (`nanovisor do --chaos SEED`).
//!
//! A wake-up is a hint to look again, never a promise; nothing may depend on there being none. With chaos, every blocked
//! call is woken and tried again at random times, some are tried several times in a row, and running tasks lose their
//! CPU at random system calls. Programs must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::timers::{TimerHandle, TimerTarget};

/// The longest first delay until a spurious wake-up, nanoseconds; it doubles with every further one.
const FIRST_DELAY: u64 = 100_000;
/// How often the delay doubles: those who wait for long are left at about 50 ms.
const DOUBLINGS: u32 = 9;
/// One system call in so many gives up the CPU.
const YIELD: u64 = 24;
/// One attempt in so many is made again at once.
const AGAIN: u64 = 4;

/// Random decisions from a seed (splitmix64). The order in which tasks take them is the machine's.
#[derive(Debug)]
pub struct Chaos(AtomicU64);

/// The disturbance of one waiting call.
#[derive(Default)]
pub struct Disturbance {
    turns: u32,
    _timer: Option<TimerHandle>,
}

struct Spurious(Arc<Task>);

impl TimerTarget for Spurious {
    fn expired(&self) {
        self.0.notify();
    }
}

impl Chaos {
    /// Decisions from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Chaos(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Whether the task is to give up its CPU now.
pub(super) fn yields(cx: &CurrentTask<'_>) -> bool {
    cx.kernel().chaos.as_ref().is_some_and(|c| c.one_in(YIELD))
}

/// Whether a call that is still pending is to be attempted once more for nothing.
pub(super) fn again(cx: &CurrentTask<'_>) -> bool {
    cx.kernel().chaos.as_ref().is_some_and(|c| c.one_in(AGAIN))
}

/// The task is about to sleep in its call: it will be woken without cause.
pub(super) fn disturb(cx: &mut CurrentTask<'_>) {
    let kernel = cx.kernel().clone();
    let (Some(chaos), Some(waiting)) = (&kernel.chaos, &mut cx.own.waiting) else { return };
    let turns = waiting.chaos.turns;
    let most = FIRST_DELAY << turns.min(DOUBLINGS);
    let delay = i64::try_from(chaos.next() % most).unwrap_or(0);
    let timer = kernel.timers.add(kernel.clock.monotonic() + delay, Arc::new(Spurious(cx.task.clone())));
    waiting.chaos = Disturbance { turns: turns.saturating_add(1), _timer: Some(timer) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats() {
        let (a, b) = (Chaos::new(7), Chaos::new(7));
        let first: Vec<u64> = (0..100).map(|_| a.next()).collect();
        assert_eq!(first, (0..100).map(|_| b.next()).collect::<Vec<_>>());
        let hits = (0..10_000).filter(|_| a.one_in(10)).count();
        assert!((800..1200).contains(&hits), "{hits}");
    }
}
