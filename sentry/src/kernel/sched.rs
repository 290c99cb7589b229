//! The run queue and the workers' places.
//!
//! A woken task takes its waker's *next* slot: a reply is served by the core that has the request in its cache, as
//! soon as the waker sleeps. If the waker does not sleep but makes another call, or an idle worker exists and nothing
//! happened for a while, the task moves to the shared queue, from where idle workers take it. CPU-bound guests are
//! preempted by a kick only while somebody waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use platform::Kicker;

use crate::kernel::reactor::Reactor;
use crate::kernel::task::Task;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

thread_local!(static WORKER: Cell<usize> = const { Cell::new(usize::MAX) });

/// How long a CPU-bound task runs while others wait, nanoseconds.
pub const TIME_SLICE: i64 = 4_000_000;

/// One worker, as others see it.
pub struct WorkerSlot {
    next: Mutex<Option<Arc<Task>>>,
    kicker: Mutex<Option<Arc<dyn Kicker>>>,
    in_guest: AtomicBool,
    /// How often guest code was left here.
    exits: AtomicU64,
    resched: AtomicBool,
}

struct Shared {
    queue: VecDeque<Arc<Task>>,
    idle: usize,
    stopped: bool,
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
    tick: Box<dyn Fn() + Send + Sync>,
    tick_armed: AtomicBool,
    paused: AtomicBool,
}

impl Scheduler {
    /// A scheduler for `workers` workers. `tick` arms a one-shot timer that calls [`Scheduler::preempt`].
    pub fn new(workers: usize, reactor: Arc<Reactor>, tick: impl Fn() + Send + Sync + 'static) -> Self {
        let slot = || WorkerSlot {
            next: Mutex::new(Level::Leaf, None),
            kicker: Mutex::new(Level::Leaf, None),
            in_guest: AtomicBool::new(false),
            exits: AtomicU64::new(0),
            resched: AtomicBool::new(false),
        };
        Scheduler {
            shared: Mutex::new(Level::RunQueue, Shared { queue: VecDeque::new(), idle: 0, stopped: false }),
            waiting: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            workers: (0..workers).map(|_| slot()).collect(),
            barriers: WaitQueue::new(),
            barrier_count: AtomicUsize::new(0),
            reactor,
            tick: Box::new(tick),
            tick_armed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
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
            Some(own) => own.next.lock().replace(task),
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
            (self.tick)();
        }
    }

    /// Moves our own *next* task to the shared queue, when an idle worker could run it now.
    pub(crate) fn share_next(&self, index: usize) {
        if self.idle.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(task) = self.take_next(index) {
            self.push_shared(task);
        }
    }

    fn take_next(&self, index: usize) -> Option<Arc<Task>> {
        self.workers[index].next.lock().take()
    }

    /// Whether worker `index` has a task in its next slot.
    pub(crate) fn has_next(&self, index: usize) -> bool {
        self.workers[index].next.lock().is_some()
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

    /// Steals from the other workers' next slots.
    fn steal(&self, index: usize) -> Option<Arc<Task>> {
        (0..self.workers.len()).filter(|i| *i != index).find_map(|i| self.take_next(i))
    }

    /// The next task for worker `index`, without waiting.
    pub(crate) fn pick(&self, index: usize) -> Option<Arc<Task>> {
        self.workers[index].resched.store(false, Ordering::SeqCst);
        if self.is_paused() {
            return None;
        }
        self.take_next(index).or_else(|| self.take_shared())
    }

    /// Announces that worker `index` is about to wait; answers a task if one turned up.
    pub(crate) fn begin_idle(&self, index: usize) -> Option<Arc<Task>> {
        {
            let mut shared = self.shared.lock();
            shared.idle += 1;
            self.idle.store(shared.idle, Ordering::SeqCst);
        }
        let task = if self.is_paused() { None } else { self.take_shared().or_else(|| self.steal(index)) };
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

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// The tick: while tasks wait, spreads them over idle workers and takes the CPU from long runners.
    pub fn preempt(&self) {
        self.tick_armed.store(false, Ordering::SeqCst);
        if self.is_paused() {
            return;
        }
        let mut waiting = self.waiting.load(Ordering::SeqCst) > 0;
        for (index, slot) in self.workers.iter().enumerate() {
            waiting |= self.has_next(index);
            if slot.next.lock().is_some() {
                self.share_next(index);
            }
        }
        if !waiting {
            return;
        }
        for (index, slot) in self.workers.iter().enumerate() {
            slot.resched.store(true, Ordering::SeqCst);
            self.kick(index);
        }
        self.arm_tick();
    }

    /// Ends all workers.
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
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
        self.shared.lock().stopped
    }
}
