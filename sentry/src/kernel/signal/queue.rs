//! Pending signals of a task or a process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernel::signal::info::{self, SIGRTMIN, SYNCHRONOUS, SigInfo, SigSet, bit};

/// How many signals are queued with their information, in all of a kernel's queues (RLIMIT_SIGPENDING counts these).
pub type Counter = Arc<AtomicUsize>;

/// Pending signals in order. A standard signal is pending once; a real-time signal as often as it was sent.
#[derive(Debug, Default)]
pub struct PendingQueue {
    set: SigSet,
    infos: VecDeque<SigInfo>,
    counter: Option<Counter>,
}

/// What became of a signal that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is pending now.
    Yes,
    /// A standard signal that was pending already: dropped.
    Already,
    /// Over the limit: a standard signal is pending without its information; a real-time one is not pending.
    NoInfo,
}

impl PendingQueue {
    /// The signals pending.
    #[must_use]
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// What is pending, and with which information, for saved state.
    #[must_use]
    pub(super) fn parts(&self) -> (SigSet, Vec<SigInfo>) {
        let PendingQueue { set, infos, counter: _ } = self;
        (*set, infos.iter().copied().collect())
    }

    /// A queue of what [`PendingQueue::parts`] gave. Its signals count.
    #[must_use]
    pub(super) fn from_parts(set: SigSet, infos: Vec<SigInfo>, counter: &Counter) -> Self {
        counter.fetch_add(infos.len(), Ordering::Relaxed);
        PendingQueue { set, infos: infos.into(), counter: Some(counter.clone()) }
    }

    /// How many are queued with their information.
    #[must_use]
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set == 0
    }

    /// Adds a signal, where fewer than `limit` (RLIMIT_SIGPENDING) are counted already; signals of the kernel itself
    /// and faults are let in beyond it.
    pub fn push(&mut self, info: SigInfo, limit: u64, counter: &Counter) -> Queued {
        if info.signo < SIGRTMIN && self.set & bit(info.signo) != 0 {
            return Queued::Already;
        }
        let free = info.signo < SIGRTMIN && info.code >= 0;
        if !free && counter.load(Ordering::Relaxed) as u64 >= limit {
            if info.signo < SIGRTMIN || info.code == info::code::SI_USER {
                self.set |= bit(info.signo);
            }
            return Queued::NoInfo;
        }
        self.set |= bit(info.signo);
        self.infos.push_back(info);
        self.counter.get_or_insert_with(|| counter.clone()).fetch_add(1, Ordering::Relaxed);
        Queued::Yes
    }

    /// The number that [`PendingQueue::take`] would take first: instructions' own signals, then the lowest.
    #[must_use]
    pub fn first(&self, wanted: SigSet) -> Option<i32> {
        let all = self.set & wanted;
        let of = if all & SYNCHRONOUS != 0 { all & SYNCHRONOUS } else { all };
        (of != 0).then(|| i32::try_from(of.trailing_zeros()).unwrap_or(0) + 1)
    }

    /// Takes the next signal of `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signo = self.first(wanted)?;
        let mut same = self.infos.iter().enumerate().filter(|(_, i)| i.signo == signo).map(|(at, _)| at);
        let (at, more) = (same.next(), same.next().is_some());
        if !more {
            self.set &= !bit(signo);
        }
        // Without information (the limit was reached) it is said to come from nobody, as Linux does.
        let info = at.and_then(|at| self.infos.remove(at));
        self.uncount(usize::from(info.is_some()));
        Some(info.unwrap_or_else(|| SigInfo::new(signo, 0)))
    }

    fn uncount(&self, n: usize) {
        if let Some(counter) = &self.counter {
            counter.fetch_sub(n, Ordering::Relaxed);
        }
    }

    /// Drops all signals of `unwanted`.
    pub fn flush(&mut self, unwanted: SigSet) {
        self.set &= !unwanted;
        let before = self.infos.len();
        self.infos.retain(|i| bit(i.signo) & unwanted == 0);
        self.uncount(before - self.infos.len());
    }

    /// Changes a queued signal in place (a timer's overrun count).
    pub fn find_mut(&mut self, pick: impl Fn(&SigInfo) -> bool) -> Option<&mut SigInfo> {
        self.infos.iter_mut().find(|i| pick(i))
    }
}

impl Drop for PendingQueue {
    fn drop(&mut self) {
        self.uncount(self.infos.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(q: &mut PendingQueue, info: SigInfo, room: bool) -> Queued {
        q.push(info, if room { 100 } else { 0 }, &Counter::default())
    }

    fn sig(signo: i32, code: i32) -> SigInfo {
        SigInfo::new(signo, code)
    }

    #[test]
    fn standard_signals_collapse_and_real_time_ones_queue() {
        let mut q = PendingQueue::default();
        assert_eq!(push(&mut q, sig(10, 1), true), Queued::Yes);
        assert_eq!(push(&mut q, sig(10, 2), true), Queued::Already);
        assert_eq!(push(&mut q, sig(34, 1), true), Queued::Yes);
        assert_eq!(push(&mut q, sig(34, 2), true), Queued::Yes);
        assert_eq!(push(&mut q, sig(34, -1), false), Queued::NoInfo);
        assert_eq!(q.take(!0).map(|i| (i.signo, i.code)), Some((10, 1)));
        assert_eq!(q.take(!0).map(|i| (i.signo, i.code)), Some((34, 1)));
        assert_eq!(q.set(), bit(34));
        assert_eq!(q.take(!0).map(|i| (i.signo, i.code)), Some((34, 2)));
        assert!(q.is_empty() && q.take(!0).is_none());
    }

    #[test]
    fn a_standard_signal_over_the_limit_stays_pending() {
        let mut q = PendingQueue::default();
        assert_eq!(push(&mut q, sig(12, -1), false), Queued::NoInfo);
        assert_eq!(q.take(!0).map(|i| (i.signo, i.code)), Some((12, 0)));
    }

    #[test]
    fn faults_come_first() {
        let mut q = PendingQueue::default();
        push(&mut q, sig(2, 0), true);
        push(&mut q, sig(libc::SIGSEGV, 1), true);
        assert_eq!(q.first(!0), Some(libc::SIGSEGV));
        assert_eq!(q.first(!bit(libc::SIGSEGV)), Some(2));
    }
}
