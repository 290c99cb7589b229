//! `timerfd_create(2)`: expirations to read.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::Kernel;
use crate::kernel::timers::{TimerHandle, TimerTarget};
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FileDescription, FileOps, IoSink, OpenFlags};

#[derive(Default)]
struct State {
    /// Next expiry, kernel monotonic nanoseconds.
    next: Option<i64>,
    /// Period, nanoseconds; 0 for a single shot.
    interval: i64,
    expirations: u64,
    handle: Option<TimerHandle>,
}

/// A timerfd.
pub struct TimerFd {
    kernel: Arc<Kernel>,
    clock: i32,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// [`TimerFd`] as saved state.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct TimerFdState {
    clock: i32,
    next: Option<i64>,
    interval: i64,
    expirations: u64,
}

impl TimerFdState {
    /// The timer, armed if it was.
    #[must_use]
    pub fn restore(self, kernel: &Arc<Kernel>) -> Arc<TimerFdFile> {
        let interval = self.interval.max(0);
        let state = State { next: self.next, interval, expirations: self.expirations, handle: None };
        let state = Mutex::new(Level::File, state);
        let timer = Arc::new(TimerFd { kernel: kernel.clone(), clock: self.clock, state, queue: WaitQueue::new() });
        if let Some(next) = self.next {
            let handle = kernel.timers.add(next, Arc::new(Expiry(Arc::downgrade(&timer))));
            let previous = timer.state.lock().handle.replace(handle);
            drop(previous);
        }
        Arc::new(TimerFdFile(timer))
    }
}

struct Expiry(Weak<TimerFd>);

impl TimerTarget for Expiry {
    fn expired(&self) {
        if let Some(timer) = self.0.upgrade() {
            timer.expire();
        }
    }
}

impl TimerFd {
    /// A disarmed timer on `clock`, as an open file.
    #[must_use]
    pub fn open(kernel: &Arc<Kernel>, clock: i32, flags: OpenFlags) -> Arc<FileDescription> {
        let state = Mutex::new(Level::File, State::default());
        let timer = Arc::new(TimerFd { kernel: kernel.clone(), clock, state, queue: WaitQueue::new() });
        FileDescription::anonymous(Arc::new(TimerFdFile(timer)), flags | OpenFlags::RDWR)
    }

    /// Time left until the next expiry and the period, nanoseconds; zeros when disarmed.
    #[must_use]
    pub fn get(&self) -> (i64, i64) {
        let now = self.kernel.clock.monotonic();
        let state = self.state.lock();
        (state.next.map_or(0, |next| (next - now).max(1)), state.interval)
    }

    /// Arms for `value` (0 disarms), then every `interval`; answers what [`TimerFd::get`] said before.
    ///
    /// # Errors
    /// `EINVAL` where the clock cannot be read.
    pub fn set(self: &Arc<Self>, value: i64, interval: i64, absolute: bool) -> Result<(i64, i64), Errno> {
        let old = self.get();
        let monotonic = self.kernel.clock.monotonic();
        let next = match (value, absolute) {
            (0, _) => None,
            (value, false) => Some(monotonic.saturating_add(value)),
            (value, true) => Some(monotonic.saturating_add(value.saturating_sub(self.kernel.clock.read(self.clock)?))),
        };
        // Timers are added outside our lock: an expiry takes it.
        let handle = next.map(|at| self.kernel.timers.add(at, Arc::new(Expiry(Arc::downgrade(self)))));
        let previous = {
            let mut state = self.state.lock();
            state.next = next;
            state.interval = interval;
            state.expirations = 0;
            std::mem::replace(&mut state.handle, handle)
        };
        drop(previous);
        Ok(old)
    }

    /// Its state.
    #[must_use]
    pub fn save(&self) -> TimerFdState {
        let TimerFd { kernel: _, clock, state, queue: _ } = self;
        let state = state.lock();
        let State { next, interval, expirations, handle: _ } = &*state;
        TimerFdState { clock: *clock, next: *next, interval: *interval, expirations: *expirations }
    }

    fn expire(self: &Arc<Self>) {
        let now = self.kernel.clock.monotonic();
        let next = {
            let mut state = self.state.lock();
            let Some(due) = state.next.filter(|due| *due <= now) else { return };
            let periods = if state.interval > 0 { (now - due) / state.interval + 1 } else { 1 };
            state.expirations = state.expirations.saturating_add(periods.cast_unsigned());
            let step = state.interval.saturating_mul(periods);
            state.next = (state.interval > 0).then(|| due.saturating_add(step));
            state.next
        };
        if let Some(at) = next {
            let handle = self.kernel.timers.add(at, Arc::new(Expiry(Arc::downgrade(self))));
            let previous = self.state.lock().handle.replace(handle);
            drop(previous);
        }
        self.queue.wake(Events::READABLE);
    }
}

/// The timer as a file: a handle that expiries can outlive.
impl FileOps for TimerFdFile {
    fn save(&self, _file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Timer(self.0.save()))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.0.state.lock();
        if state.expirations == 0 {
            return Err(Errno::EAGAIN);
        }
        let n = dst.put(&state.expirations.to_le_bytes())?;
        state.expirations = 0;
        Ok(n)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.0.state.lock().expirations > 0 { Events::READABLE } else { Events::default() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:[timerfd]".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// What a timerfd's description holds.
pub struct TimerFdFile(pub Arc<TimerFd>);
