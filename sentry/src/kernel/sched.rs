//! The run queue and the workers' places.
//!
//! A woken task takes its waker's *next* slot: a reply is served by the core that has the request in its cache, as
//! soon as the waker sleeps, and inherits the waker's time slice. If the waker goes on for longer than waking another
//! core would have taken ([`SHARE_AFTER`]), the task moves to the shared queue, from where idle workers take it. A
//! chain of such hand-overs that used up its slice lets the shared queue go first. CPU-bound guests are preempted by
//! a kick only while somebody waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use platform::Kicker;

use crate::kernel::reactor::Reactor;
use crate::kernel::task::Task;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

thread_local!(static WORKER: Cell<usize> = const { Cell::new(usize::MAX) });

/// How long a CPU-bound task runs while others wait, nanoseconds.
pub const TIME_SLICE: i64 = 4_000_000;

/// How long a woken task waits for its waker to sleep before an idle worker may have it, nanoseconds. A fork and its
/// wait, or a reply and the next request, fit in; waking an idle core costs 10-50 us, and a second stub or a cold
/// cache more.
pub const SHARE_AFTER: i64 = 100_000;

/// When the tick looks at a task whose waker stays in guest code, while a worker is idle, nanoseconds.
const LOOK_AFTER: i64 = 1_000_000;

/// One worker, as others see it.
pub struct WorkerSlot {
    next: Mutex<Option<Arc<Task>>>,
    /// Since when there is a next task, 0 for none. Changes under `next`.
    next_since: AtomicI64,
    /// When the time slice began that the running task has, or inherited.
    slice: AtomicI64,
    kicker: Mutex<Option<Arc<dyn Kicker>>>,
    in_guest: AtomicBool,
    /// How often guest code was left here.
    exits: AtomicU64,
    resched: AtomicBool,
}

struct Shared {
    queue: VecDeque<Arc<Task>>,
    idle: usize,
}

/// The scheduler: workers' slots, the shared queue, idle count.
pub struct Scheduler {
    shared: Mutex<Shared>,
    waiting: AtomicUsize,
    idle: AtomicUsize,
    /// The workers, by index.
    pub workers: Vec<WorkerSlot>,
    /// Who waits for workers to leave guest code (`membarrier`), and how many.
    pub barriers: WaitQueue,
    barrier_count: AtomicUsize,
    reactor: Arc<Reactor>,
    tick: Box<dyn Fn(i64) + Send + Sync>,
    tick_armed: AtomicBool,
    paused: AtomicBool,
    /// Paused for a checkpoint, apart from what users ask for.
    frozen: AtomicBool,
    stopped: AtomicBool,
    /// Tasks ran since memory was last given back.
    lavish: AtomicBool,
}

impl Scheduler {
    /// A scheduler for `workers` workers. `tick` arms a one-shot timer that calls [`Scheduler::preempt`]
    /// after that many nanoseconds.
    pub fn new(workers: usize, reactor: Arc<Reactor>, tick: impl Fn(i64) + Send + Sync + 'static) -> Self {
        let slot = || WorkerSlot {
            next: Mutex::new(Level::Leaf, None),
            next_since: AtomicI64::new(0),
            slice: AtomicI64::new(0),
            kicker: Mutex::new(Level::Leaf, None),
            in_guest: AtomicBool::new(false),
            exits: AtomicU64::new(0),
            resched: AtomicBool::new(false),
        };
        Scheduler {
            shared: Mutex::new(Level::RunQueue, Shared { queue: VecDeque::new(), idle: 0 }),
            waiting: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            workers: (0..workers).map(|_| slot()).collect(),
            barriers: WaitQueue::new(),
            barrier_count: AtomicUsize::new(0),
            reactor,
            tick: Box::new(tick),
            tick_armed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            lavish: AtomicBool::new(true),
        }
    }

    /// Makes the calling thread worker `index`.
    pub(crate) fn enter(&self, index: usize) {
        WORKER.set(index);
    }

    /// Worker `index` has a CPU now, which `kicker` interrupts.
    pub(crate) fn equip(&self, index: usize, kicker: Arc<dyn Kicker>) {
        *self.workers[index].kicker.lock() = Some(kicker);
    }

    /// Queues a task whose state has just become `Queued`.
    pub fn enqueue(&self, task: Arc<Task>) {
        let displaced = match self.workers.get(WORKER.get()) {
            Some(own) => {
                let now = task.kernel.clock.monotonic();
                let mut next = own.next.lock();
                own.next_since.store(now, Ordering::SeqCst);
                next.replace(task)
            }
            None => Some(task),
        };
        match displaced {
            Some(task) => self.push_shared(task),
            None => self.arm_tick(),
        }
    }

    /// Queues a task that gave up its time slice, behind all others.
    pub fn enqueue_last(&self, task: Arc<Task>) {
        self.push_shared(task);
    }

    /// Queues a running task whose slice is over, behind all others and behind the one it woke.
    pub(crate) fn enqueue_yielded(&self, index: usize, task: Arc<Task>) {
        if let Some(next) = self.take_next(index) {
            self.push_shared(next);
        }
        self.push_shared(task);
    }

    fn push_shared(&self, task: Arc<Task>) {
        let idle = {
            let mut shared = self.shared.lock();
            shared.queue.push_back(task);
            self.waiting.store(shared.queue.len(), Ordering::SeqCst);
            shared.idle
        };
        if idle > 0 { self.reactor.wake() } else { self.arm_tick() }
    }

    fn arm_tick(&self) {
        if !self.tick_armed.swap(true, Ordering::SeqCst) {
            (self.tick)(if self.has_idle() { LOOK_AFTER } else { TIME_SLICE });
        }
    }

    /// Moves the *next* task of worker `index` to the shared queue if it has waited for a while and an idle worker
    /// could run it now.
    pub(crate) fn share_next(&self, index: usize, now: i64) {
        let since = self.workers[index].next_since.load(Ordering::SeqCst);
        if since == 0 || now.saturating_sub(since) < SHARE_AFTER || !self.has_idle() {
            return;
        }
        if let Some(task) = self.take_next(index) {
            self.push_shared(task);
        }
    }

    fn take_next(&self, index: usize) -> Option<Arc<Task>> {
        let slot = &self.workers[index];
        if slot.next_since.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut next = slot.next.lock();
        slot.next_since.store(0, Ordering::SeqCst);
        next.take()
    }

    fn take_shared(&self) -> Option<Arc<Task>> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut shared = self.shared.lock();
        let task = shared.queue.pop_front();
        self.waiting.store(shared.queue.len(), Ordering::SeqCst);
        task
    }

    /// Steals from another worker's next slot what has waited there for a while.
    fn steal(&self, index: usize, now: i64) -> Option<Arc<Task>> {
        let old = |i: &usize| {
            let since = self.workers[*i].next_since.load(Ordering::SeqCst);
            *i != index && since != 0 && now.saturating_sub(since) >= SHARE_AFTER
        };
        (0..self.workers.len()).filter(old).find_map(|i| self.take_next(i))
    }

    /// The next task for worker `index`, without waiting.
    pub(crate) fn pick(&self, index: usize, now: i64) -> Option<Arc<Task>> {
        let slot = &self.workers[index];
        slot.resched.store(false, Ordering::SeqCst);
        if self.is_paused() {
            return None;
        }
        let expired = now.saturating_sub(slot.slice.load(Ordering::Relaxed)) >= TIME_SLICE;
        if expired {
            slot.slice.store(now, Ordering::Relaxed);
            if self.waiting.load(Ordering::SeqCst) > 0
                && let Some(next) = self.take_next(index)
            {
                self.push_shared(next);
            }
        }
        self.take_next(index).or_else(|| {
            slot.slice.store(now, Ordering::Relaxed);
            self.take_shared()
        })
    }

    /// Announces that worker `index` is about to wait; answers a task if one turned up.
    pub(crate) fn begin_idle(&self, index: usize, now: i64) -> Option<Arc<Task>> {
        {
            let mut shared = self.shared.lock();
            shared.idle += 1;
            self.idle.store(shared.idle, Ordering::SeqCst);
        }
        let task = if self.is_paused() { None } else { self.take_shared().or_else(|| self.steal(index, now)) };
        if task.is_some() {
            self.end_idle();
        }
        task
    }

    /// The worker stopped waiting.
    pub(crate) fn end_idle(&self) {
        let mut shared = self.shared.lock();
        shared.idle -= 1;
        self.idle.store(shared.idle, Ordering::SeqCst);
    }

    /// Whether some worker waits or is about to.
    pub(crate) fn has_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst) > 0
    }

    /// Whether the sandbox has run tasks since it last gave memory back.
    pub(crate) fn is_lavish(&self) -> bool {
        self.lavish.load(Ordering::Relaxed)
    }

    /// A task runs.
    pub(crate) fn turn_lavish(&self) {
        if !self.is_lavish() {
            self.lavish.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the caller, who is idle and has waited in vain, should give memory back now: all workers are idle, and
    /// nobody has done it since tasks ran.
    pub(crate) fn turn_frugal(&self) -> bool {
        self.idle.load(Ordering::SeqCst) == self.workers.len() && self.lavish.swap(false, Ordering::Relaxed)
    }

    /// Whether there is queued work and somebody idle to do it.
    pub(crate) fn idle_could_work(&self) -> bool {
        !self.is_paused() && self.idle.load(Ordering::SeqCst) > 0 && self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Brackets guest execution on worker `index`: between the two, a notification must kick.
    pub(crate) fn set_in_guest(&self, index: usize, inside: bool) {
        self.workers[index].in_guest.store(inside, Ordering::SeqCst);
        if !inside {
            self.workers[index].exits.fetch_add(1, Ordering::SeqCst);
            if self.barrier_count.load(Ordering::SeqCst) != 0 {
                self.barriers.wake(Events::IN);
            }
        }
    }

    /// Kicks all workers that are in guest code; answers each with what [`Scheduler::has_left`] wants to know.
    #[must_use]
    pub fn begin_barrier(&self) -> Vec<(usize, u64)> {
        self.barrier_count.fetch_add(1, Ordering::SeqCst);
        let inside = |(_, slot): &(usize, &WorkerSlot)| slot.in_guest.load(Ordering::SeqCst);
        let all = self.workers.iter().enumerate();
        let running: Vec<_> = all.map(|(i, s)| (i, s.exits.load(Ordering::SeqCst), s)).collect();
        let running = running.into_iter().filter(|(i, _, s)| inside(&(*i, *s))).map(|(i, exits, _)| (i, exits));
        let running: Vec<_> = running.collect();
        running.iter().for_each(|(index, _)| self.kick(*index));
        running
    }

    /// Whether the worker has left guest code since [`Scheduler::begin_barrier`].
    #[must_use]
    pub fn has_left(&self, (index, exits): (usize, u64)) -> bool {
        self.workers.get(index).is_none_or(|s| s.exits.load(Ordering::SeqCst) != exits)
    }

    /// The barrier is over.
    pub fn end_barrier(&self) {
        self.barrier_count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Interrupts worker `index` if it is in guest code.
    pub fn kick(&self, index: usize) {
        let Some(slot) = self.workers.get(index) else { return };
        if slot.in_guest.load(Ordering::SeqCst) {
            let kicker = slot.kicker.lock().clone();
            if let Some(kicker) = kicker {
                kicker.kick();
            }
        }
    }

    /// Makes worker `index` give up its task at its next boundary (`sched_yield`).
    pub fn yield_worker(&self, index: usize) {
        if let Some(slot) = self.workers.get(index) {
            slot.resched.store(true, Ordering::SeqCst);
        }
    }

    /// Whether worker `index` should give up its task.
    pub(crate) fn should_resched(&self, index: usize) -> bool {
        self.workers[index].resched.load(Ordering::SeqCst) || self.is_paused()
    }

    /// Stops all guest execution: running tasks go back to the queue at their next exit, which is forced now.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        (0..self.workers.len()).for_each(|index| self.kick(index));
    }

    /// Lets guests run again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.reactor.wake();
    }

    /// As [`Scheduler::pause`], for a checkpoint.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        (0..self.workers.len()).for_each(|index| self.kick(index));
    }

    /// The end of [`Scheduler::freeze`].
    pub(crate) fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        // All may have gone to sleep over it.
        (0..self.workers.len()).for_each(|_| self.reactor.wake());
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst) || self.frozen.load(Ordering::SeqCst)
    }

    /// The tick: while tasks wait, spreads them over idle workers and takes the CPU from long runners.
    pub fn preempt(&self, now: i64) {
        self.tick_armed.store(false, Ordering::SeqCst);
        if self.is_paused() {
            return;
        }
        (0..self.workers.len()).for_each(|index| self.share_next(index, now));
        let queued = self.waiting.load(Ordering::SeqCst) > 0;
        let mut waiting = queued;
        for (index, slot) in self.workers.iter().enumerate() {
            let wanted = queued || slot.next_since.load(Ordering::SeqCst) != 0;
            waiting |= wanted;
            if wanted && now.saturating_sub(slot.slice.load(Ordering::Relaxed)) >= TIME_SLICE {
                slot.resched.store(true, Ordering::SeqCst);
                self.kick(index);
            }
        }
        if waiting {
            self.arm_tick();
        }
    }

    /// Ends all workers.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for index in 0..self.workers.len() {
            self.kick(index);
        }
        // One wake-up for each that may wait, and one for the reactor.
        for _ in 0..=self.workers.len() {
            self.reactor.wake();
        }
    }

    /// Whether [`Scheduler::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}
