//! The kernel's clocks, as guests see them.

use std::sync::atomic::{AtomicI64, Ordering};

use abi::Errno;
use nix::time::{ClockId, clock_gettime};

use crate::kernel::tsc::{Sample, TscClock};

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Monotonic and real time. The offsets are zero until a restore steps them.
#[derive(Debug, Default)]
pub struct Clock {
    monotonic_offset: AtomicI64,
    boot: AtomicI64,
    /// Counts ticks, as the vDSO does, where the processor's counter is fit for it.
    pub tsc: TscClock,
}

fn host(id: ClockId) -> i64 {
    clock_gettime(id).map_or(0, |t| t.tv_sec().saturating_mul(NANOS).saturating_add(t.tv_nsec()))
}

impl Clock {
    /// Clocks that run with the host's.
    #[must_use]
    pub fn new() -> Self {
        let clock = Clock::default();
        clock.boot.store(clock.monotonic(), Ordering::Relaxed);
        clock
    }

    /// CLOCK_MONOTONIC, nanoseconds.
    #[must_use]
    pub fn monotonic(&self) -> i64 {
        match self.tsc.read(|| self.sample()) {
            Some((mono, _)) => mono,
            None => self.host_monotonic(),
        }
    }

    /// CLOCK_REALTIME, nanoseconds since 1970.
    #[must_use]
    pub fn realtime(&self) -> i64 {
        match self.tsc.read(|| self.sample()) {
            Some((mono, offset)) => mono.saturating_add(offset),
            None => host(ClockId::CLOCK_REALTIME),
        }
    }

    fn host_monotonic(&self) -> i64 {
        host(ClockId::CLOCK_MONOTONIC) + self.monotonic_offset.load(Ordering::Relaxed)
    }

    /// The host's clocks beside the counter: of a few tries the tightest.
    fn sample(&self) -> Sample {
        let try_once = || {
            let tsc = memory::tsc::now();
            let mono = self.host_monotonic();
            (memory::tsc::now().saturating_sub(tsc), Sample { tsc, mono, real_offset: 0 })
        };
        let first = try_once();
        let best = [try_once(), try_once()].into_iter().fold(first, |a, b| if b.0 < a.0 { b } else { a });
        let real_offset = host(ClockId::CLOCK_REALTIME).saturating_sub(self.host_monotonic());
        Sample { real_offset, ..best.1 }
    }

    /// What to add to a host monotonic time to get the guest's.
    #[must_use]
    pub fn monotonic_offset(&self) -> i64 {
        self.monotonic_offset.load(Ordering::Relaxed)
    }

    /// When this kernel started, on its monotonic clock.
    #[must_use]
    pub fn boot_time(&self) -> i64 {
        self.boot.load(Ordering::Relaxed)
    }

    /// The time of `clockid` (a `CLOCK_*` number that is not a CPU-time clock), nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` for an unknown clock.
    pub fn read(&self, clockid: i32) -> Result<i64, Errno> {
        match clockid {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_REALTIME_ALARM | libc::CLOCK_TAI => {
                Ok(self.realtime())
            }
            libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_BOOTTIME
            | libc::CLOCK_BOOTTIME_ALARM => Ok(self.monotonic()),
            _ => Err(Errno::EINVAL),
        }
    }
}
