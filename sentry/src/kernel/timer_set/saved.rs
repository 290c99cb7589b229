//! Timers as saved state. Deadlines stay times of the timer's own clock, so that each keeps its meaning.

use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::{Notify, Set, Timer, TimerId, TimerSet};
use crate::checkpoint::{Id, Restorer, Saver, Unusable};
use crate::kernel::clock::ClockRef;
use crate::kernel::task::saved::TaskState;
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::thread_group::saved::ThreadGroupState;

/// [`ClockRef`]; a thread or process that has gone is `None`.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in ClockRef")]
pub enum ClockRefState {
    System(i32),
    OwnProcess,
    OwnUserTime,
    Process(Option<Id<ThreadGroupState>>, bool),
    Thread(Option<Id<TaskState>>, bool),
}

impl ClockRef {
    /// Its state.
    #[must_use]
    pub fn save(&self, saver: &mut Saver) -> ClockRefState {
        match self {
            ClockRef::System(id) => ClockRefState::System(*id),
            ClockRef::OwnProcess => ClockRefState::OwnProcess,
            ClockRef::OwnUserTime => ClockRefState::OwnUserTime,
            ClockRef::Process(group, user) => {
                ClockRefState::Process(group.upgrade().map(|g| saver.groups.id(&g)), *user)
            }
            ClockRef::Thread(task, user) => ClockRefState::Thread(task.upgrade().map(|t| saver.tasks.id(&t)), *user),
        }
    }
}

impl ClockRefState {
    /// The clock.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<ClockRef, Unusable> {
        Ok(match self {
            ClockRefState::System(id) => {
                restorer.kernel.clock.read(id).map_err(|_| Unusable::Corrupt("a clock"))?;
                ClockRef::System(id)
            }
            ClockRefState::OwnProcess => ClockRef::OwnProcess,
            ClockRefState::OwnUserTime => ClockRef::OwnUserTime,
            ClockRefState::Process(id, user) => {
                let group = id.map(|id| restorer.group(id)).transpose()?;
                ClockRef::Process(group.as_ref().map(Arc::downgrade).unwrap_or_default(), user)
            }
            ClockRefState::Thread(id, user) => {
                let task = id.map(|id| restorer.task(id)).transpose()?;
                ClockRef::Thread(task.as_ref().map(Arc::downgrade).unwrap_or_default(), user)
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
enum NotifyState {
    None,
    Process(i32, u64),
    Thread(Option<Id<TaskState>>, i32, u64),
    Interval(i32),
    CpuLimit,
}

#[derive(Serialize, Deserialize)]
struct TimerState {
    id: TimerId,
    clock: ClockRefState,
    notify: NotifyState,
    deadline: Option<i64>,
    interval: i64,
    overrun: i64,
    last_overrun: i32,
}

/// [`TimerSet`].
#[derive(Serialize, Deserialize)]
pub struct TimerSetState {
    timers: Vec<TimerState>,
    next: i32,
}

impl TimerSet {
    /// Its state.
    #[must_use]
    pub fn save(&self, saver: &mut Saver) -> TimerSetState {
        let set = self.0.lock();
        let Set { timers, next, generation: _ } = &*set;
        let timers = timers.iter().map(|(id, timer)| timer.save(*id, saver)).collect();
        TimerSetState { timers, next: *next }
    }
}

impl Timer {
    fn save(&self, id: TimerId, saver: &mut Saver) -> TimerState {
        let Timer { clock, notify, deadline, interval, overrun, last_overrun, generation: _, pending: _ } = self;
        let notify = match notify {
            Notify::None => NotifyState::None,
            Notify::Process(signo, value) => NotifyState::Process(*signo, *value),
            Notify::Thread(task, signo, value) => {
                NotifyState::Thread(task.upgrade().map(|t| saver.tasks.id(&t)), *signo, *value)
            }
            Notify::Interval(signo) => NotifyState::Interval(*signo),
            Notify::CpuLimit => NotifyState::CpuLimit,
        };
        let (deadline, interval) = (*deadline, *interval);
        let (overrun, last_overrun) = (*overrun, *last_overrun);
        TimerState { id, clock: clock.save(saver), notify, deadline, interval, overrun, last_overrun }
    }
}

impl TimerState {
    fn restore(self, restorer: &mut Restorer) -> Result<(TimerId, Timer), Unusable> {
        let notify = match self.notify {
            NotifyState::None => Notify::None,
            NotifyState::Process(signo, value) => Notify::Process(signo, value),
            NotifyState::Thread(task, signo, value) => {
                let task = task.map(|id| restorer.task(id)).transpose()?;
                Notify::Thread(task.as_ref().map_or_else(Weak::new, Arc::downgrade), signo, value)
            }
            NotifyState::Interval(signo) => Notify::Interval(signo),
            NotifyState::CpuLimit => Notify::CpuLimit,
        };
        let clock = self.clock.restore(restorer)?;
        let timer = Timer {
            deadline: self.deadline,
            interval: self.interval,
            overrun: self.overrun,
            last_overrun: self.last_overrun,
            ..Timer::new(clock, notify)
        };
        Ok((self.id, timer))
    }
}

impl TimerSetState {
    /// Fills the timers of `group`, and arms those that were armed.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, group: &Arc<ThreadGroup>, restorer: &mut Restorer) -> Result<(), Unusable> {
        let timers = self.timers.into_iter().map(|t| t.restore(restorer)).collect::<Result<Vec<_>, _>>()?;
        let armed: Vec<TimerId> = timers.iter().filter(|(_, t)| t.deadline.is_some()).map(|(id, _)| *id).collect();
        {
            let mut set = group.timers.0.lock();
            set.timers = timers.into_iter().collect();
            set.next = self.next;
        }
        let kernel = restorer.kernel.clone();
        armed.into_iter().for_each(|id| group.timers.schedule(&kernel, group, id, 0));
        Ok(())
    }
}
