//! The out-of-memory killer (`mm/oom_kill.c`): over the sandbox's memory limit somebody must go.
//!
//! Nobody waits for memory inside the kernel. A page fault that finds only the reserve left
//! ([`memory::MemoryFile::is_tight`]) is given up, the killer picks a process, and the faulting task yields and faults
//! again; copies between kernel and guest use the reserve, and the call's end is where the killer is asked then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::boot::request::Event;
use crate::kernel::Kernel;
use crate::kernel::container::{self, Container};
use crate::kernel::exit;
use crate::kernel::task::{CurrentTask, flags};
use crate::kernel::thread_group::ThreadGroup;
use crate::mm::Mm;
use crate::mm::info::MmStats;
use crate::sync::{Level, Mutex};

/// `OOM_SCORE_ADJ_MIN`: never killed while there is anybody else.
pub const ADJ_MIN: i32 = -1000;
/// `OOM_SCORE_ADJ_MAX`.
pub const ADJ_MAX: i32 = 1000;
/// How long a victim may take to go before another is picked, nanoseconds.
const PATIENCE: i64 = 2_000_000_000;
/// What a thread, an open descriptor and a mapping cost the kernel, roughly, bytes.
const PER_TASK: u64 = 8 << 10;
const PER_FD: u64 = 4 << 10;
const PER_MAP: u64 = 384;

/// A container that nears its limit is looked at when the sandbox has taken so many bytes more.
const LOOK_AFTER: u64 = 256 << 10;

/// Of log lines: nanoseconds, and how many in them.
const LOG_INTERVAL: i64 = 5_000_000_000;
const LOG_BURST: u32 = 10;

struct Victim {
    group: Weak<ThreadGroup>,
    mm: Weak<Mm>,
    since: i64,
}

/// Who was killed last, so that one shortage kills one process.
pub struct Oom {
    last: Mutex<Option<Victim>>,
    /// Somebody is looking for a victim.
    looking: AtomicBool,
    /// Since when log lines are counted, and how many there were: a fork bomb must not fill the host's log.
    logged: Mutex<(i64, u32)>,
}

impl Default for Oom {
    fn default() -> Self {
        Oom {
            last: Mutex::new(Level::Leaf, None),
            looking: AtomicBool::new(false),
            logged: Mutex::new(Level::Leaf, (0, 0)),
        }
    }
}

/// Memory that a process would give back, bytes, roughly: frames, and the kernel objects it holds.
fn footprint(group: &ThreadGroup, mm: &Mm) -> (u64, MmStats) {
    let stats = mm.stats();
    let tasks = group.tasks();
    let fds = tasks.first().and_then(|t| t.fds()).map_or(0, |fds| fds.count());
    let kernel = (tasks.len() as u64) * PER_TASK + fds as u64 * PER_FD + stats.maps as u64 * PER_MAP;
    (stats.rss_anon + stats.rss_shmem + kernel + mm.table_bytes(), stats)
}

/// `oom_badness` in thousandths of the memory limit, the adjustment included; it may be negative.
fn points(kernel: &Kernel, bytes: u64, adj: i32) -> i64 {
    let total = i128::from(kernel.memory.limit().max(1));
    i64::try_from(i128::from(bytes) * 1000 / total).unwrap_or(i64::MAX).saturating_add(i64::from(adj))
}

/// What `/proc/PID/oom_score` tells (`proc_oom_score`): 0 for the protected, about 667 for who uses nothing.
#[must_use]
pub fn score(kernel: &Kernel, group: &ThreadGroup) -> i64 {
    let adj = group.oom_score_adj.load(Ordering::Relaxed);
    let mm = group.first_task().and_then(|t| t.mm());
    match mm {
        Some(mm) if adj != ADJ_MIN => ((1000 + points(kernel, footprint(group, &mm).0, adj)) * 2 / 3).max(0),
        _ => 0,
    }
}

impl Oom {
    /// Whether one more line may go to the log (`ratelimit_state`: ten in five seconds).
    fn may_log(&self, now: i64) -> bool {
        let mut logged = self.logged.lock();
        if now - logged.0 > LOG_INTERVAL {
            *logged = (now, 0);
        }
        logged.1 += 1;
        if logged.1 == LOG_BURST + 1 {
            log::warn!("out of memory: more processes are killed; {LOG_BURST} lines in five seconds are enough");
        }
        logged.1 <= LOG_BURST
    }
}

struct Candidate {
    group: Arc<ThreadGroup>,
    mm: Arc<Mm>,
    bytes: u64,
    stats: MmStats,
    points: i64,
    /// It is on its way out already, with its memory still to give.
    exiting: bool,
}

/// Whether its container ends with it.
fn is_init(group: &ThreadGroup) -> bool {
    group.tgid.0 == group.container.init()
}

/// Who could be killed: everybody with memory, but those that were given up ([`Mm::give_up`]).
fn candidates(kernel: &Kernel, groups: Vec<Arc<ThreadGroup>>) -> Vec<Candidate> {
    let mut all = Vec::new();
    for group in groups {
        let Some(mm) = group.tasks().iter().find_map(|t| t.mm()).filter(|mm| !mm.is_given_up()) else { continue };
        let exiting = group.state.lock().exiting.is_some();
        let adj = group.oom_score_adj.load(Ordering::Relaxed);
        let (bytes, stats) = footprint(&group, &mm);
        // The protected come last, whatever they use.
        let points = if adj == ADJ_MIN { i64::MIN } else { points(kernel, bytes, adj) };
        all.push(Candidate { group, mm, bytes, stats, points, exiting });
    }
    all
}

impl Kernel {
    /// Memory is short: kills a process, unless one that was killed for this has not gone yet. Answers whether a
    /// process is on its way.
    pub fn kill_for_memory(&self) -> bool {
        self.kill_for(&self.oom, None)
    }

    /// The same where one container is over its limit: somebody in it must go.
    fn kill_in(&self, container: &Arc<Container>) -> bool {
        self.kill_for(&container.oom, Some(container))
    }

    fn kill_for(&self, oom: &Oom, of: Option<&Arc<Container>>) -> bool {
        if oom.looking.swap(true, Ordering::SeqCst) {
            return true;
        }
        let found = self.find_and_kill(oom, of);
        oom.looking.store(false, Ordering::SeqCst);
        found
    }

    fn find_and_kill(&self, oom: &Oom, of: Option<&Arc<Container>>) -> bool {
        let now = self.clock.monotonic();
        let last = oom.last.lock().as_ref().map(|v| (v.group.clone(), v.mm.clone(), v.since));
        if let Some((group, mm, since)) = last {
            let going = group.upgrade().is_some_and(|g| !g.is_zombie()) || mm.strong_count() > 0;
            if going && now - since < PATIENCE {
                return true;
            }
            // `MMF_OOM_SKIP`: whoever cannot go is not waited for again.
            if let Some(mm) = mm.upgrade() {
                mm.give_up();
            }
        }
        if of.is_none() && !self.memory.is_tight() {
            // Somebody gave memory back since it was missed.
            return true;
        }
        // Among those that are alike (to 1.6 % of the memory) the first process stays, with which the sandbox would end,
        // and who is on the way out goes first: thousands that were killed at once take a while.
        let order = |c: &Candidate| (c.points >> 4, !is_init(&c.group), c.exiting, c.bytes, c.group.tgid);
        let groups = of.map_or_else(|| self.groups(), |container| container.groups());
        let all = candidates(self, groups);
        let going = all.iter().any(|c| c.exiting);
        let Some(worst) = all.into_iter().max_by_key(order) else { return false };
        if going && is_init(&worst.group) {
            return true;
        }
        let victim = Victim { group: Arc::downgrade(&worst.group), mm: Arc::downgrade(&worst.mm), since: now };
        *oom.last.lock() = Some(victim);
        if worst.exiting {
            return true;
        }
        self.log_kill(&worst);
        // Who shares the memory keeps it: they all go (`__oom_kill_process`).
        for group in self.groups() {
            if group.tasks().iter().any(|t| t.mm().is_some_and(|mm| Arc::ptr_eq(&mm, &worst.mm))) {
                exit::kill_group(&group, libc::SIGKILL);
            }
        }
        let container = &worst.group.container;
        container.usage.oom_kills.fetch_add(1, Ordering::Relaxed);
        self.outside.event(Event::Oom { id: container.id.clone() });
        true
    }

    fn log_kill(&self, worst: &Candidate) {
        if !self.oom.may_log(self.clock.monotonic()) {
            return;
        }
        let name = worst.group.first_task().map(|t| t.shared.lock().name.clone()).unwrap_or_default();
        let kib = |bytes: u64| bytes >> 10;
        log::warn!(
            "out of memory: killed process {} ({}), total-vm {} kB, anon-rss {} kB, shmem-rss {} kB, {} mappings, \
             oom_score_adj {}; the sandbox uses {} kB of its limit of {} kB ({} kB of it for kernel objects); raise it \
             with --memory",
            worst.group.tgid.0,
            String::from_utf8_lossy(&name),
            kib(worst.stats.size),
            kib(worst.stats.rss_anon),
            kib(worst.stats.rss_shmem),
            worst.stats.maps,
            worst.group.oom_score_adj.load(Ordering::Relaxed),
            kib(self.memory.charged()),
            kib(self.memory.limit()),
            kib(self.memory.kernel_bytes()),
        );
    }
}

/// A fault found no memory: kills somebody; the caller yields and tries again, unless it was itself.
pub fn relieve(cx: &mut CurrentTask<'_>) {
    if !cx.kernel().kill_for_memory() {
        // Everybody is on the way out and still there is no memory: the task's own end is what is left.
        exit::kill_group(&cx.task.group, libc::SIGKILL);
    }
    cx.own.starved = true;
}

/// After a call: it may have used up the reserve, or made kernel objects beyond the limit.
pub fn check(cx: &mut CurrentTask<'_>) {
    let failed = cx.own.mm.as_ref().is_some_and(|mm| mm.take_oom());
    if (failed || cx.kernel().memory.is_tight()) && cx.task.flags.load(Ordering::SeqCst) & flags::EXIT == 0 {
        relieve(cx);
    }
    check_container(cx);
}

/// After a fault or a call: its container may have grown over its own limit, which is below the sandbox's. What it uses
/// is summed up only now and then: since it cannot have grown by more than the whole sandbox has taken in the meantime.
pub fn check_container(cx: &mut CurrentTask<'_>) {
    let (kernel, container) = (&cx.task.kernel, cx.task.container());
    let Some(limit) = container.usage.memory_limit().filter(|limit| *limit < kernel.memory.limit()) else { return };
    let taken = kernel.memory.taken();
    if !container.usage.is_look_due(taken) {
        return;
    }
    let (anon, file, tables) = container::stats::mapped(container);
    let used = anon.saturating_add(file).saturating_add(tables);
    container.usage.note_memory(used);
    let slack = (limit.saturating_sub(used) / 2).max((limit / 64).max(LOOK_AFTER));
    container.usage.look_again_at(taken.saturating_add(slack));
    if used > limit {
        container.usage.failures.fetch_add(1, Ordering::Relaxed);
        kernel.kill_in(container);
        cx.own.starved = true;
    }
}
