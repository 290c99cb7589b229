//! The kernel's clocks, as guests see them.

use std::sync::atomic::{AtomicI64, Ordering};

use std::sync::{Arc, Weak};

use abi::Errno;
use nix::time::{ClockId, clock_gettime};

use crate::kernel::Kernel;
use crate::kernel::task::{Task, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::timer_set::process_time;
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

    /// Clocks that go on from a save: monotonic time from `monotonic`, of a kernel that was started at `boot`. Real
    /// time is the host's.
    #[must_use]
    pub fn resumed(monotonic: i64, boot: i64) -> Self {
        let clock = Clock::default();
        clock.monotonic_offset.store(monotonic.saturating_sub(host(ClockId::CLOCK_MONOTONIC)), Ordering::Relaxed);
        clock.boot.store(boot, Ordering::Relaxed);
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
        host(ClockId::CLOCK_MONOTONIC).saturating_add(self.monotonic_offset.load(Ordering::Relaxed))
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

/// A clock that a timer or a sleep runs on, resolved from a `clockid_t`.
#[derive(Clone)]
pub enum ClockRef {
    /// One of the kernel's.
    System(i32),
    /// CPU time of the process that owns the timer.
    OwnProcess,
    /// Its time in guest code (ITIMER_VIRTUAL).
    OwnUserTime,
    /// CPU time of another process; `true` for guest code only.
    Process(Weak<ThreadGroup>, bool),
    /// CPU time of a thread; `true` for guest code only.
    Thread(Weak<Task>, bool),
}

impl ClockRef {
    /// Whether it counts CPU time.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        !matches!(self, ClockRef::System(_))
    }

    /// The time now, nanoseconds; `group` owns the timer. A clock whose process has gone stands still at 0.
    #[must_use]
    pub fn read(&self, kernel: &Kernel, group: &ThreadGroup) -> i64 {
        let pick = |(total, user): (i64, i64), user_only: bool| if user_only { user } else { total };
        match self {
            ClockRef::System(id) => kernel.clock.read(*id).unwrap_or(0),
            ClockRef::OwnProcess => process_time(group).0,
            ClockRef::OwnUserTime => process_time(group).1,
            ClockRef::Process(other, user) => other.upgrade().map_or(0, |g| pick(process_time(&g), *user)),
            ClockRef::Thread(task, user) => task.upgrade().map_or(0, |t| {
                let (total, guest) = t.cpu_times();
                i64::try_from(if *user { guest } else { total }).unwrap_or(i64::MAX)
            }),
        }
    }

    /// Resolves a `clockid_t` as the caller means it: the kernel's clocks, the CPU-time clocks, and those made from
    /// process and thread ids (`clock_getcpuclockid(3)`).
    ///
    /// # Errors
    /// `EINVAL` for a clock that does not exist.
    pub fn resolve(task: &Arc<Task>, id: i32) -> Result<ClockRef, Errno> {
        const PER_THREAD: i32 = 4;
        match id {
            libc::CLOCK_PROCESS_CPUTIME_ID => Ok(ClockRef::Process(Arc::downgrade(&task.group), false)),
            libc::CLOCK_THREAD_CPUTIME_ID => Ok(ClockRef::Thread(Arc::downgrade(task), false)),
            0.. => task.kernel.clock.read(id).map(|_| ClockRef::System(id)),
            _ => {
                // ~pid << 3 | PER_THREAD | kind: 0 profiling, 1 virtual, 2 scheduler; 3 is a dynamic (device) clock.
                let (pid, kind) = (!(id >> 3), id & 3);
                if kind == 3 {
                    return Err(Errno::EINVAL);
                }
                let user_only = kind == 1;
                if id & PER_THREAD != 0 {
                    let target = if pid == 0 { Some(task.clone()) } else { task.pids().task(Tid(pid)) };
                    let target = target.filter(|t| t.group.tgid == task.group.tgid).ok_or(Errno::EINVAL)?;
                    return Ok(ClockRef::Thread(Arc::downgrade(&target), user_only));
                }
                let target = if pid == 0 { Some(task.group.clone()) } else { task.pids().group(Tid(pid)) };
                Ok(ClockRef::Process(Arc::downgrade(&target.ok_or(Errno::EINVAL)?), user_only))
            }
        }
    }
}
