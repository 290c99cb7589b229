//! A process's interval timers (`setitimer(2)`) and POSIX timers (`timer_create(2)`).
//!
//! Wall-clock timers lie in the kernel's queue of deadlines. Timers on CPU time do too: when one is looked at, the CPU
//! time that is still missing is the soonest it can be due (divided by the CPUs that may run at once), so it is looked
//! at again then. Nothing ticks.

pub mod saved;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::kernel::Kernel;
use crate::kernel::clock::ClockRef;
use crate::kernel::limits::resource;
use crate::kernel::signal::info::{SigInfo, code};
use crate::kernel::signal::{send_to_group, send_to_task};
use crate::kernel::task::Task;
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::timers::{TimerHandle, TimerTarget};
use crate::sync::{Level, Mutex};

/// Most POSIX timers of a process.
const MAX_TIMERS: usize = 1024;
/// CPU-time timers are not looked at more often than this, nanoseconds.
const MIN_LOOK: i64 = 1_000_000;

/// What an expiry does.
#[derive(Clone)]
pub enum Notify {
    /// Nothing (SIGEV_NONE).
    None,
    /// A signal to the process, with this `sigval`; `si_code` SI_TIMER.
    Process(i32, u64),
    /// A signal to one thread (SIGEV_THREAD_ID).
    Thread(Weak<Task>, i32, u64),
    /// An interval timer's signal: SI_KERNEL.
    Interval(i32),
    /// RLIMIT_CPU.
    CpuLimit,
}

/// The interval timer behind RLIMIT_CPU, which `setitimer(2)` cannot name.
const CPU_LIMIT: i32 = 3;

/// The process has used the CPU time that RLIMIT_CPU allows, or another second of it (`check_process_timers`).
fn over_cpu_limit(group: &Arc<ThreadGroup>) {
    let Some(limit) = group.limits.lock().get(resource::CPU) else { return };
    let used = u64::try_from(process_time(group).0).unwrap_or(0);
    if used >= limit.hard.saturating_mul(1_000_000_000) {
        return crate::kernel::exit::kill_group(group, libc::SIGKILL);
    }
    // A standard signal is not refused.
    let _ = send_to_group(group, SigInfo::kernel(libc::SIGXCPU));
}

/// RLIMIT_CPU of `group` is `seconds` now (`u64::MAX` for none).
pub fn set_cpu_limit(kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, seconds: u64) {
    // A limit of 0 means 1 second, as in Linux.
    let value = i64::try_from(seconds.max(1)).ok().and_then(|s| s.checked_mul(1_000_000_000)).unwrap_or(0);
    let setting = Setting { value, interval: if value == 0 { 0 } else { 1_000_000_000 } };
    // Interval timers always exist.
    let _ = group.timers.set(kernel, group, TimerId::Interval(CPU_LIMIT), setting, true);
}

struct Timer {
    clock: ClockRef,
    notify: Notify,
    /// On the timer's own clock, nanoseconds; `None` while disarmed.
    deadline: Option<i64>,
    interval: i64,
    /// Expiries since the queued signal was sent.
    overrun: i64,
    /// What `timer_getoverrun` says: of the signal delivered last.
    last_overrun: i32,
    /// Tells a stale expiry from a current one.
    generation: u64,
    pending: Option<TimerHandle>,
}

/// Names a timer of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum TimerId {
    /// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
    Interval(i32),
    /// A `timer_t`.
    Posix(i32),
}

/// All timers of a process.
pub struct TimerSet(Mutex<Set>);

#[derive(Default)]
struct Set {
    timers: BTreeMap<TimerId, Timer>,
    next: i32,
    generation: u64,
}

impl Default for TimerSet {
    fn default() -> Self {
        TimerSet(Mutex::new(Level::ProcessTimers, Set::default()))
    }
}

/// Remaining time and interval, nanoseconds; both 0 while disarmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until the next expiry.
    pub value: i64,
    /// Between expiries; 0 for one-shot.
    pub interval: i64,
}

struct Expiry {
    kernel: Weak<Kernel>,
    group: Weak<ThreadGroup>,
    id: TimerId,
    generation: u64,
}

impl TimerTarget for Expiry {
    fn expired(&self) {
        if let (Some(kernel), Some(group)) = (self.kernel.upgrade(), self.group.upgrade()) {
            group.timers.look(&kernel, &group, self.id, self.generation);
        }
    }
}

/// How many intervals lie between `deadline` and `now`, and the next deadline.
fn advance(deadline: i64, interval: i64, now: i64) -> (i64, i64) {
    let missed = now.saturating_sub(deadline).max(0) / interval.max(1);
    (missed, deadline.saturating_add(missed.saturating_add(1).saturating_mul(interval)))
}

impl TimerSet {
    /// Drops all: the process has ended.
    pub fn clear(&self) {
        let old = std::mem::take(&mut self.0.lock().timers);
        drop(old);
    }

    /// Drops the POSIX timers; interval timers survive `execve`.
    pub fn clear_posix(&self) {
        let mut set = self.0.lock();
        let old = set.timers.split_off(&TimerId::Posix(i32::MIN));
        drop(set);
        drop(old);
    }

    /// Makes a POSIX timer.
    ///
    /// # Errors
    /// `EAGAIN` where the process has too many.
    pub fn create(&self, clock: ClockRef, notify: impl FnOnce(i32) -> Notify) -> Result<i32, Errno> {
        let mut set = self.0.lock();
        if set.timers.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let id = set.next;
        set.next = set.next.checked_add(1).unwrap_or(0);
        set.timers.insert(TimerId::Posix(id), Timer::new(clock, notify(id)));
        Ok(id)
    }

    /// Deletes a timer.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub fn delete(&self, id: TimerId) -> Result<(), Errno> {
        let old = self.0.lock().timers.remove(&id);
        old.map(drop).ok_or(Errno::EINVAL)
    }

    /// Remaining time and interval.
    #[must_use]
    pub fn get(&self, group: &Arc<ThreadGroup>, kernel: &Kernel, id: TimerId) -> Option<Setting> {
        let (clock, deadline, interval) = {
            let set = self.0.lock();
            let timer = set.timers.get(&id)?;
            (timer.clock.clone(), timer.deadline, timer.interval)
        };
        let now = clock.read(kernel, group);
        // An armed timer whose expiry is just under way still has a moment left.
        let value = deadline.map_or(0, |d| {
            if d > now {
                d - now
            } else if interval > 0 {
                advance(d, interval, now).1 - now
            } else {
                0
            }
        });
        Some(Setting { value, interval })
    }

    /// Arms or (with a zero value) disarms a timer; an interval timer is made where there is none yet. `absolute`: the
    /// value is a time of the timer's clock.
    ///
    /// # Errors
    /// `EINVAL` where there is no such timer.
    pub fn set(
        &self,
        kernel: &Arc<Kernel>,
        group: &Arc<ThreadGroup>,
        id: TimerId,
        new: Setting,
        absolute: bool,
    ) -> Result<(), Errno> {
        let clock = {
            let mut set = self.0.lock();
            if let TimerId::Interval(which) = id {
                set.timers.entry(id).or_insert_with(|| Timer::interval(which));
            }
            set.timers.get(&id).ok_or(Errno::EINVAL)?.clock.clone()
        };
        let now = clock.read(kernel, group);
        let deadline = if absolute { new.value } else { now.saturating_add(new.value) };
        let (generation, old) = {
            let mut set = self.0.lock();
            set.generation += 1;
            let generation = set.generation;
            let timer = set.timers.get_mut(&id).ok_or(Errno::EINVAL)?;
            timer.deadline = (new.value != 0).then_some(deadline);
            timer.interval = new.interval;
            (timer.overrun, timer.last_overrun, timer.generation) = (0, 0, generation);
            (generation, timer.pending.take())
        };
        drop(old);
        if new.value != 0 {
            self.schedule(kernel, group, id, generation);
        }
        Ok(())
    }

    /// What `timer_getoverrun` says.
    ///
    /// # Errors
    /// `EINVAL` where there is no such timer.
    pub fn overrun(&self, id: TimerId) -> Result<i32, Errno> {
        self.0.lock().timers.get(&id).map(|t| t.last_overrun).ok_or(Errno::EINVAL)
    }

    /// Puts a timer into the kernel's queue.
    fn schedule(&self, kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, id: TimerId, generation: u64) {
        let (clock, deadline) = {
            let set = self.0.lock();
            let Some(timer) = set.timers.get(&id).filter(|t| t.generation == generation) else { return };
            let Some(deadline) = timer.deadline else { return };
            (timer.clock.clone(), deadline)
        };
        let missing = deadline.saturating_sub(clock.read(kernel, group)).max(0);
        let cpus = i64::try_from(kernel.sched.workers.len()).unwrap_or(1).max(1);
        let wait = if clock.is_cpu() { (missing / cpus).max(MIN_LOOK) } else { missing };
        let target = Expiry { kernel: Arc::downgrade(kernel), group: Arc::downgrade(group), id, generation };
        let handle = kernel.timers.add(kernel.clock.monotonic().saturating_add(wait), Arc::new(target));
        let mut set = self.0.lock();
        let unused = match set.timers.get_mut(&id).filter(|t| t.generation == generation) {
            Some(timer) => timer.pending.replace(handle),
            None => Some(handle),
        };
        drop(set);
        drop(unused);
    }

    /// The deadline of a timer may have passed.
    fn look(&self, kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, id: TimerId, generation: u64) {
        let clock = {
            let set = self.0.lock();
            let Some(timer) = set.timers.get(&id).filter(|t| t.generation == generation) else { return };
            timer.clock.clone()
        };
        let now = clock.read(kernel, group);
        let (fired, again) = {
            let mut set = self.0.lock();
            let Some(timer) = set.timers.get_mut(&id).filter(|t| t.generation == generation) else { return };
            match timer.deadline {
                Some(deadline) if deadline <= now => {
                    let missed = timer.fire(deadline, now);
                    (Some((timer.notify.clone(), missed)), timer.deadline.is_some())
                }
                deadline => (None, deadline.is_some()),
            }
        };
        if let Some((notify, overrun)) = fired {
            notify.send(group, id, overrun);
        }
        if again {
            self.schedule(kernel, group, id, generation);
        }
    }
}

impl Timer {
    fn new(clock: ClockRef, notify: Notify) -> Self {
        Timer { clock, notify, deadline: None, interval: 0, overrun: 0, last_overrun: 0, generation: 0, pending: None }
    }

    fn interval(which: i32) -> Self {
        match which {
            1 => Timer::new(ClockRef::OwnUserTime, Notify::Interval(libc::SIGVTALRM)),
            2 => Timer::new(ClockRef::OwnProcess, Notify::Interval(libc::SIGPROF)),
            CPU_LIMIT => Timer::new(ClockRef::OwnProcess, Notify::CpuLimit),
            _ => Timer::new(ClockRef::System(libc::CLOCK_MONOTONIC), Notify::Interval(libc::SIGALRM)),
        }
    }

    /// Notes an expiry; answers the overrun its signal tells.
    fn fire(&mut self, deadline: i64, now: i64) -> i32 {
        if self.interval <= 0 {
            self.deadline = None;
            return 0;
        }
        let (missed, next) = advance(deadline, self.interval, now);
        self.deadline = Some(next);
        self.overrun = missed;
        self.last_overrun = i32::try_from(missed).unwrap_or(i32::MAX);
        self.last_overrun
    }
}

impl Notify {
    fn send(&self, group: &Arc<ThreadGroup>, id: TimerId, overrun: i32) {
        let TimerId::Posix(number) = id else {
            if let Notify::CpuLimit = self {
                over_cpu_limit(group);
            }
            if let Notify::Interval(signo) = self {
                let _ = send_to_group(group, SigInfo::kernel(*signo));
            }
            return;
        };
        // Full queues lose expiries, as in Linux.
        match self {
            Notify::None | Notify::Interval(_) | Notify::CpuLimit => {}
            Notify::Process(signo, value) => {
                if !merge_overrun(group, None, *signo, number, overrun) {
                    let _ = send_to_group(group, SigInfo::timer(*signo, number, overrun, *value));
                }
            }
            Notify::Thread(task, signo, value) => {
                if let Some(task) = task.upgrade()
                    && !merge_overrun(group, Some(&task), *signo, number, overrun)
                {
                    let _ = send_to_task(&task, SigInfo::timer(*signo, number, overrun, *value));
                }
            }
        }
    }
}

/// A timer's signal is queued once; further expiries count in it.
fn merge_overrun(group: &ThreadGroup, task: Option<&Task>, signo: i32, number: i32, overrun: i32) -> bool {
    let merge = |queue: &mut crate::kernel::signal::PendingQueue| {
        let same = |i: &SigInfo| i.signo == signo && i.code == code::SI_TIMER && i.pid() == number;
        queue.find_mut(same).is_some_and(|info| {
            let so_far = i32::try_from(info.uid()).unwrap_or(i32::MAX);
            info.set_overrun(so_far.saturating_add(overrun).saturating_add(1));
            true
        })
    };
    match task {
        Some(task) => task.signals.change(merge),
        None => group.signals.change(merge),
    }
}

/// CPU time of a process, and the part in guest code, nanoseconds.
#[must_use]
pub fn process_time(group: &ThreadGroup) -> (i64, i64) {
    let usage = group.usage();
    let total = usage.user.saturating_add(usage.system);
    (i64::try_from(total).unwrap_or(i64::MAX), i64::try_from(usage.user).unwrap_or(i64::MAX))
}

/// CPU time of a thread, nanoseconds.
#[must_use]
pub fn thread_time(task: &Task) -> i64 {
    i64::try_from(task.cpu_times().0).unwrap_or(i64::MAX)
}
