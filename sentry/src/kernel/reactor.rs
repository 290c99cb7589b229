//! Waiting for the outside: host descriptors and time, through one epoll.
//!
//! An idle worker waits here itself, so that an event runs on the thread that will serve it. One more thread, the
//! *reactor*, waits here from the start and gets an event only while no worker is idle: the host wakes the waiter
//! that came last, and the reactor came first. Nothing polls and nothing wakes without cause.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno as HostErrno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use parking_lot::RwLock;

use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

const WAKE: u64 = 0;
const TIMER: u64 = 1;
const FIRST_HOST: u64 = 16;

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// Somebody queued work for an idle worker.
    Work,
    /// Timers may be due.
    Timer,
    /// Host descriptors became ready; their wait queues have been woken.
    Host,
    /// Nothing, for as long as the wait was to last.
    Quiet,
    /// A host signal interrupted the wait.
    Spurious,
}

/// The epoll all idle threads wait on.
pub struct Reactor {
    epoll: Epoll,
    wake: EventFd,
    timer: TimerFd,
    hosts: Mutex<HashMap<u64, WaitQueue>>,
    next: AtomicU64,
    /// Held for reading by whoever runs tasks or handles events, for writing by who needs all of that to stand still.
    /// Outside of all locks with levels.
    pub gate: RwLock<()>,
}

impl Reactor {
    /// Makes the epoll, its eventfd and its timer.
    ///
    /// # Errors
    /// What the host says: descriptors exhausted.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER))?;
        Ok(Arc::new(Reactor {
            epoll,
            wake,
            timer,
            hosts: Mutex::new(Level::Leaf, HashMap::new()),
            next: AtomicU64::new(FIRST_HOST),
            gate: RwLock::new(()),
        }))
    }

    /// Wakes one waiting thread.
    pub fn wake(&self) {
        // EAGAIN means that the counter is full of wake-ups already.
        let _ = self.wake.write(1);
    }

    /// Arms the host timer for `deadline`, host monotonic nanoseconds.
    pub fn arm(&self, deadline: i64) {
        let at = TimeSpec::from_duration(std::time::Duration::from_nanos(deadline.max(1).cast_unsigned()));
        if let Err(e) = self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME) {
            log::error!("cannot arm the kernel timer: {e}");
        }
    }

    /// Waits until something happens, or for `at_most` milliseconds; handles host readiness itself and says what else
    /// there is to do.
    pub fn wait(&self, at_most: Option<u16>) -> Wakeup {
        let mut events = [EpollEvent::empty(); 1];
        let n = match self.epoll.wait(&mut events, at_most.map_or(EpollTimeout::NONE, EpollTimeout::from)) {
            Ok(0) => return Wakeup::Quiet,
            Ok(n) => n,
            Err(HostErrno::EINTR) => return Wakeup::Spurious,
            Err(e) => {
                log::error!("waiting for host events failed: {e}");
                return Wakeup::Spurious;
            }
        };
        let Some(event) = events.first().filter(|_| n > 0) else { return Wakeup::Spurious };
        match event.data() {
            WAKE => Wakeup::Work,
            TIMER => Wakeup::Timer,
            id => {
                let _at_work = self.gate.read();
                let queue = self.hosts.lock().get(&id).cloned();
                if let Some(queue) = queue {
                    queue.wake(Events::from_bits_retain(event.events().bits().cast_unsigned()));
                }
                Wakeup::Host
            }
        }
    }

    /// Watches a host descriptor: edges of its readiness wake the returned registration's queue. Descriptors that
    /// epoll refuses (regular files) are always ready and need no watching.
    ///
    /// # Errors
    /// `EPERM` for such descriptors; what `epoll_ctl` says otherwise.
    pub fn watch(self: &Arc<Self>, fd: &OwnedFd) -> std::io::Result<HostWatch> {
        let all = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI;
        self.watch_for(fd, all, WaitQueue::new())
    }

    /// Watches a descriptor whose input wakes a queue that there is.
    ///
    /// # Errors
    /// As [`Reactor::watch`].
    pub fn watch_with(self: &Arc<Self>, fd: &OwnedFd, queue: &WaitQueue) -> std::io::Result<HostWatch> {
        self.watch_for(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, queue.clone())
    }

    /// [`Reactor::watch`] for input alone.
    ///
    /// # Errors
    /// As [`Reactor::watch`].
    pub fn watch_input(self: &Arc<Self>, fd: &OwnedFd) -> std::io::Result<HostWatch> {
        self.watch_for(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, WaitQueue::new())
    }

    fn watch_for(self: &Arc<Self>, fd: &OwnedFd, interest: EpollFlags, queue: WaitQueue) -> std::io::Result<HostWatch> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let interest = interest | EpollFlags::EPOLLET;
        self.hosts.lock().insert(id, queue.clone());
        if let Err(e) = self.epoll.add(fd, EpollEvent::new(interest, id)) {
            self.hosts.lock().remove(&id);
            return Err(e.into());
        }
        Ok(HostWatch { reactor: self.clone(), id, queue })
    }
}

/// A watched host descriptor. Drop it before the descriptor is closed.
pub struct HostWatch {
    reactor: Arc<Reactor>,
    id: u64,
    queue: WaitQueue,
}

impl HostWatch {
    /// Woken at every edge of the descriptor's readiness.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

impl Drop for HostWatch {
    fn drop(&mut self) {
        // The epoll forgets the descriptor when it is closed; the queue must go now.
        self.reactor.hosts.lock().remove(&self.id);
    }
}
