//! Clocks, sleeping, timers.

use std::sync::Arc;

use abi::time::{NANOS_PER_SEC, Timeval};
use abi::{Errno, Timespec, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Restorer, Saver, Unusable};
use crate::kernel::clock::ClockRef;
use crate::kernel::exit::{USER_HZ, ticks};
use crate::kernel::op::{self, Attempt, Flow, Op, SyscallResult, ok, ret};
use crate::kernel::signal::info::NSIG;
use crate::kernel::task::{CurrentTask, TaskWaker, Tid};
use crate::kernel::timer_set::saved::ClockRefState;
use crate::kernel::timer_set::{Notify, Setting, TimerId};
use crate::kernel::timers::TimerHandle;
use crate::kernel::wait::WaitGuard;
use crate::syscall_table;

syscall_table! {
    35 nanosleep(req: UserAddr, rem: UserAddr);
    36 getitimer(which: i32, value: UserAddr);
    37 alarm(seconds: u32);
    38 setitimer(which: i32, new: UserAddr, old: UserAddr);
    96 gettimeofday(tv: UserAddr, tz: UserAddr);
    100 times(buf: UserAddr);
    159 adjtimex(buf: UserAddr) Partial("EPERM: the clock is the host's");
    164 settimeofday(tv: UserAddr, tz: UserAddr) Partial("EPERM: the clock is the host's");
    201 time(at: UserAddr);
    222 timer_create(clock: i32, event: UserAddr, id: UserAddr);
    223 timer_settime(id: i32, flags: i32, new: UserAddr, old: UserAddr);
    224 timer_gettime(id: i32, value: UserAddr);
    225 timer_getoverrun(id: i32);
    226 timer_delete(id: i32);
    227 clock_settime(clock: i32, at: UserAddr) Partial("EPERM: the clock is the host's");
    228 clock_gettime(clock: i32, at: UserAddr);
    229 clock_getres(clock: i32, res: UserAddr);
    230 clock_nanosleep(clock: i32, flags: i32, req: UserAddr, rem: UserAddr) Partial("CLOCK_REALTIME sleeps are not moved when the clock is stepped");
    305 clock_adjtime(clock: i32, buf: UserAddr) Partial("EPERM: the clock is the host's");
}

const TIMER_ABSTIME: i32 = 1;

fn clock_gettime(cx: &mut CurrentTask<'_>, clock: i32, at: UserAddr) -> SyscallResult {
    let now = ClockRef::resolve(cx.task, clock)?.read(cx.kernel(), &cx.task.group);
    cx.mm()?.write_obj(at, &Timespec::from_nanos(now))?;
    ok()
}

fn clock_getres(cx: &mut CurrentTask<'_>, clock: i32, res: UserAddr) -> SyscallResult {
    ClockRef::resolve(cx.task, clock)?;
    let coarse = matches!(clock, libc::CLOCK_REALTIME_COARSE | libc::CLOCK_MONOTONIC_COARSE);
    if !res.is_null() {
        let nsec = if coarse { 4_000_000 } else { 1 };
        cx.mm()?.write_obj(res, &Timespec { sec: 0, nsec })?;
    }
    ok()
}

fn clock_settime(cx: &mut CurrentTask<'_>, clock: i32, at: UserAddr) -> SyscallResult {
    if clock != libc::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    cx.mm()?.read_obj::<Timespec>(at)?.to_nanos()?;
    Err(Errno::EPERM)
}

fn settimeofday(_cx: &mut CurrentTask<'_>, _tv: UserAddr, _tz: UserAddr) -> SyscallResult {
    Err(Errno::EPERM)
}

fn adjtimex(_cx: &mut CurrentTask<'_>, _buf: UserAddr) -> SyscallResult {
    Err(Errno::EPERM)
}

fn clock_adjtime(_cx: &mut CurrentTask<'_>, _clock: i32, _buf: UserAddr) -> SyscallResult {
    Err(Errno::EPERM)
}

fn gettimeofday(cx: &mut CurrentTask<'_>, tv: UserAddr, tz: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    if !tv.is_null() {
        let now = Timespec::from_nanos(cx.kernel().clock.realtime());
        mm.write_obj(tv, &Timeval { sec: now.sec, usec: now.nsec / 1000 })?;
    }
    if !tz.is_null() {
        mm.write_obj(tz, &[0u32; 2])?;
    }
    ok()
}

fn time(cx: &mut CurrentTask<'_>, at: UserAddr) -> SyscallResult {
    let now = cx.kernel().clock.realtime() / NANOS_PER_SEC;
    if !at.is_null() {
        cx.mm()?.write_obj(at, &now)?;
    }
    ret(now)
}

fn times(cx: &mut CurrentTask<'_>, buf: UserAddr) -> SyscallResult {
    if !buf.is_null() {
        let own = cx.task.group.usage();
        let children = cx.task.group.state.lock().children_usage;
        let all = [ticks(own.user), ticks(own.system), ticks(children.user), ticks(children.system)];
        cx.mm()?.write_obj(buf, &all)?;
    }
    ret(cx.kernel().clock.monotonic() / (NANOS_PER_SEC / USER_HZ))
}

/// Sleeps until a time of the monotonic clock, or (for a CPU-time clock) until that clock says so.
struct SleepOp {
    clock: ClockRef,
    /// On the kernel's monotonic clock, or on `clock` where that counts CPU time.
    until: i64,
    /// Where to tell the time left; null for absolute sleeps.
    rem: UserAddr,
    absolute: bool,
    /// When to look again, for CPU-time clocks.
    look: Option<TimerHandle>,
}

/// [`SleepOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct SleepState {
    clock: ClockRefState,
    until: i64,
    rem: UserAddr,
    absolute: bool,
}

impl SleepState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let SleepState { clock, until, rem, absolute } = self;
        Ok(Box::new(SleepOp { clock: clock.restore(restorer)?, until, rem, absolute, look: None }))
    }
}

impl SleepOp {
    fn now(&self, cx: &CurrentTask<'_>) -> i64 {
        if self.clock.is_cpu() { self.clock.read(cx.kernel(), &cx.task.group) } else { cx.kernel().clock.monotonic() }
    }
}

impl Op for SleepOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let left = self.until.saturating_sub(self.now(cx));
        if left <= 0 {
            return Attempt::Done(Ok(0));
        }
        if self.clock.is_cpu() {
            // CPU time passes no faster than the CPUs together.
            let cpus = i64::try_from(cx.kernel().sched.workers.len()).unwrap_or(1).max(1);
            let look = cx.kernel().clock.monotonic().saturating_add((left / cpus).max(1_000_000));
            self.look = Some(cx.kernel().timers.add(look, Arc::new(TaskWaker(cx.task.clone()))));
        }
        Attempt::Pending
    }

    /// Time alone ends it.
    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn deadline(&self) -> Option<i64> {
        (!self.clock.is_cpu()).then_some(self.until)
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Ok(0)
    }

    fn interrupted(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.absolute {
            return Err(Errno::ERESTARTNOHAND);
        }
        let left = self.until.saturating_sub(self.now(cx));
        if left <= 0 {
            return Ok(0);
        }
        if !self.rem.is_null() {
            cx.mm()?.write_obj(self.rem, &Timespec::from_nanos(left))?;
        }
        // Only a handler or death comes here, so a restart is never due.
        Err(Errno::EINTR)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let SleepOp { clock, until, rem, absolute, look: _ } = self;
        let clock = clock.save(saver);
        Ok(OpState::Sleep(SleepState { clock, until: *until, rem: *rem, absolute: *absolute }))
    }

    fn name(&self) -> &'static str {
        "hrtimer_nanosleep"
    }
}

fn nanosleep(cx: &mut CurrentTask<'_>, req: UserAddr, rem: UserAddr) -> SyscallResult {
    let nanos = cx.mm()?.read_obj::<Timespec>(req)?.to_nanos()?;
    sleep(cx, ClockRef::System(libc::CLOCK_MONOTONIC), nanos, false, rem)
}

fn sleep(cx: &mut CurrentTask<'_>, clock: ClockRef, nanos: i64, absolute: bool, rem: UserAddr) -> SyscallResult {
    let kernel = cx.kernel();
    let until = match (clock.is_cpu(), absolute) {
        (true, true) => nanos,
        (true, false) => clock.read(kernel, &cx.task.group).saturating_add(nanos),
        (false, false) => kernel.clock.monotonic().saturating_add(nanos),
        (false, true) => {
            let ahead = nanos.saturating_sub(clock.read(kernel, &cx.task.group));
            kernel.clock.monotonic().saturating_add(ahead)
        }
    };
    op::start(cx, SleepOp { clock, until, rem, absolute, look: None })
}

fn clock_nanosleep(cx: &mut CurrentTask<'_>, clock: i32, flags: i32, req: UserAddr, rem: UserAddr) -> SyscallResult {
    // The coarse and raw clocks cannot be slept on (posix-timers.c, no nsleep).
    match clock {
        libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        libc::CLOCK_THREAD_CPUTIME_ID => return Err(Errno::EINVAL),
        _ => {}
    }
    let clock = ClockRef::resolve(cx.task, clock)?;
    let nanos = cx.mm()?.read_obj::<Timespec>(req)?.to_nanos()?;
    sleep(cx, clock, nanos, flags & TIMER_ABSTIME != 0, rem)
}

fn micros(tv: [i64; 2]) -> Result<i64, Errno> {
    if tv[0] < 0 || !(0..1_000_000).contains(&tv[1]) {
        return Err(Errno::EINVAL);
    }
    Ok(tv[0].saturating_mul(NANOS_PER_SEC).saturating_add(tv[1] * 1000))
}

fn itimerval(setting: Setting) -> [i64; 4] {
    // Never told as 0 while armed: rounded up.
    let part = |nanos: i64| {
        let micros = nanos.saturating_add(999) / 1000;
        [micros / 1_000_000, micros % 1_000_000]
    };
    let (interval, value) = (part(setting.interval), part(setting.value));
    [interval[0], interval[1], value[0], value[1]]
}

fn read_interval(cx: &CurrentTask<'_>, which: i32) -> Result<Setting, Errno> {
    if !(0..=2).contains(&which) {
        return Err(Errno::EINVAL);
    }
    let group = &cx.task.group;
    Ok(group.timers.get(group, cx.kernel(), TimerId::Interval(which)).unwrap_or_default())
}

fn getitimer(cx: &mut CurrentTask<'_>, which: i32, value: UserAddr) -> SyscallResult {
    let setting = read_interval(cx, which)?;
    cx.mm()?.write_obj(value, &itimerval(setting))?;
    ok()
}

fn setitimer(cx: &mut CurrentTask<'_>, which: i32, new: UserAddr, old: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    let raw: [i64; 4] = if new.is_null() { [0; 4] } else { mm.read_obj(new)? };
    let setting = Setting { interval: micros([raw[0], raw[1]])?, value: micros([raw[2], raw[3]])? };
    let before = read_interval(cx, which)?;
    let group = &cx.task.group;
    group.timers.set(cx.kernel(), group, TimerId::Interval(which), setting, false)?;
    if !old.is_null() {
        mm.write_obj(old, &itimerval(before))?;
    }
    ok()
}

fn alarm(cx: &mut CurrentTask<'_>, seconds: u32) -> SyscallResult {
    let before = read_interval(cx, 0)?;
    let group = &cx.task.group;
    let setting = Setting { value: i64::from(seconds) * NANOS_PER_SEC, interval: 0 };
    group.timers.set(cx.kernel(), group, TimerId::Interval(0), setting, false)?;
    // Rounded to the nearest second, but never to 0 while armed.
    let (whole, rest) = (before.value / NANOS_PER_SEC, before.value % NANOS_PER_SEC);
    let up = whole == 0 && rest > 0 || rest >= NANOS_PER_SEC / 2;
    ret(whole + i64::from(up))
}

fn notification(cx: &CurrentTask<'_>, event: UserAddr) -> Result<Box<dyn FnOnce(i32) -> Notify>, Errno> {
    if event.is_null() {
        return Ok(Box::new(|id| Notify::Process(libc::SIGALRM, u64::from(id.unsigned_abs()))));
    }
    // struct sigevent: sigval, signo, notify, tid.
    let raw: [u64; 3] = cx.mm()?.read_obj(event)?;
    let low = |word: u64| i32::from_arg_low(word);
    let (value, signo, how, tid) = (raw[0], low(raw[1]), low(raw[1] >> 32), low(raw[2]));
    let valid = (1..=NSIG).contains(&signo);
    match how {
        libc::SIGEV_NONE => Ok(Box::new(|_| Notify::None)),
        // To the kernel, SIGEV_THREAD is a signal like any other.
        libc::SIGEV_SIGNAL | libc::SIGEV_THREAD if valid => Ok(Box::new(move |_| Notify::Process(signo, value))),
        libc::SIGEV_THREAD_ID if valid => {
            let task = cx.task.pids().task(Tid(tid)).filter(|t| t.group.tgid == cx.task.group.tgid);
            let task = Arc::downgrade(&task.ok_or(Errno::EINVAL)?);
            Ok(Box::new(move |_| Notify::Thread(task, signo, value)))
        }
        _ => Err(Errno::EINVAL),
    }
}

trait FromLow {
    fn from_arg_low(word: u64) -> Self;
}

impl FromLow for i32 {
    fn from_arg_low(word: u64) -> i32 {
        u32::try_from(word & 0xffff_ffff).unwrap_or(0).cast_signed()
    }
}

fn timer_create(cx: &mut CurrentTask<'_>, clock: i32, event: UserAddr, id: UserAddr) -> SyscallResult {
    if matches!(clock, libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_MONOTONIC_COARSE) {
        return Err(Errno::EOPNOTSUPP);
    }
    let clock = ClockRef::resolve(cx.task, clock)?;
    let notify = notification(cx, event)?;
    let timers = &cx.task.group.timers;
    let made = timers.create(clock, notify)?;
    if let Err(errno) = cx.mm()?.write_obj(id, &made) {
        timers.delete(TimerId::Posix(made))?;
        return Err(errno);
    }
    ok()
}

fn itimerspec(setting: Setting) -> [Timespec; 2] {
    [Timespec::from_nanos(setting.interval), Timespec::from_nanos(setting.value)]
}

fn write_itimerspec(cx: &CurrentTask<'_>, at: UserAddr, setting: Setting) -> Result<(), Errno> {
    let [interval, value] = itimerspec(setting);
    cx.mm()?.write_obj(at, &[interval.sec, interval.nsec, value.sec, value.nsec])
}

fn timer_settime(cx: &mut CurrentTask<'_>, id: i32, flags: i32, new: UserAddr, old: UserAddr) -> SyscallResult {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let raw: [i64; 4] = cx.mm()?.read_obj(new)?;
    let part = |at: usize| Timespec { sec: raw[at], nsec: raw[at + 1] }.to_nanos();
    let setting = Setting { interval: part(0)?, value: part(2)? };
    let (group, id) = (&cx.task.group, TimerId::Posix(id));
    let before = group.timers.get(group, cx.kernel(), id).ok_or(Errno::EINVAL)?;
    group.timers.set(cx.kernel(), group, id, setting, flags & TIMER_ABSTIME != 0)?;
    if !old.is_null() {
        write_itimerspec(cx, old, before)?;
    }
    ok()
}

fn timer_gettime(cx: &mut CurrentTask<'_>, id: i32, value: UserAddr) -> SyscallResult {
    let group = &cx.task.group;
    let setting = group.timers.get(group, cx.kernel(), TimerId::Posix(id)).ok_or(Errno::EINVAL)?;
    write_itimerspec(cx, value, setting)?;
    ok()
}

fn timer_getoverrun(cx: &mut CurrentTask<'_>, id: i32) -> SyscallResult {
    let overrun = cx.task.group.timers.overrun(TimerId::Posix(id))?;
    Ok(Flow::Return(u64::from(overrun.unsigned_abs())))
}

fn timer_delete(cx: &mut CurrentTask<'_>, id: i32) -> SyscallResult {
    cx.task.group.timers.delete(TimerId::Posix(id))?;
    ok()
}
