//! Waiting on futex words: FUTEX_WAIT(_BITSET) and `futex_waitv`.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use memory::copy::Atomic32;
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Restorer, Saver, Unusable};
use crate::kernel::futex::saved::WaiterState;
use crate::kernel::futex::{Futexes, Waiter};
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::wait::WaitGuard;

/// One word to wait on.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Word {
    /// Address.
    pub addr: UserAddr,
    /// The value it must still have.
    pub value: u32,
    /// Which wakers are meant.
    pub bitset: u32,
    /// FUTEX_PRIVATE_FLAG.
    pub private: bool,
}

/// Waits on words until one is woken.
struct FutexOp {
    words: Vec<Word>,
    queued: Vec<Arc<Waiter>>,
    started: bool,
    deadline: Option<i64>,
    kernel: Arc<crate::kernel::Kernel>,
}

/// [`FutexOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct FutexState {
    words: Vec<Word>,
    queued: Vec<WaiterState>,
    started: bool,
    deadline: Option<i64>,
}

impl FutexState {
    /// The call. Its places in the buckets follow in the order of all.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, task: &Arc<Task>, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let FutexState { words, queued, started, deadline } = self;
        let kernel = restorer.kernel.clone();
        let mut waiters = Vec::with_capacity(queued.len());
        for state in queued {
            waiters.push(state.restore(task, restorer)?);
        }
        Ok(Box::new(FutexOp { words, queued: waiters, started, deadline, kernel }))
    }
}

impl FutexOp {
    fn futexes(&self) -> &Futexes {
        &self.kernel.futexes
    }

    /// Compares every word and queues on it.
    fn queue_all(&mut self, cx: &CurrentTask<'_>) -> Result<(), Errno> {
        let mm = cx.mm()?;
        for index in 0..self.words.len() {
            let word = self.words[index];
            let key = mm.futex_key(word.addr, word.private)?;
            let waiter = Waiter::new(cx, key, word.bitset, false);
            let mut bucket = self.kernel.futexes.bucket(&key).lock();
            if mm.atomic32(word.addr, Atomic32::Load)? != word.value {
                return Err(Errno::EAGAIN);
            }
            bucket.push_back(waiter.clone());
            drop(bucket);
            self.queued.push(waiter);
        }
        Ok(())
    }

    /// Leaves all words; the last one that was woken counts, as `futex_unqueue_multiple` has it.
    fn leave(&mut self) -> Option<u64> {
        let mut woken = None;
        for (index, waiter) in std::mem::take(&mut self.queued).iter().enumerate() {
            if !self.futexes().cancel(waiter) {
                woken = Some(index as u64);
            }
        }
        woken
    }
}

impl Op for FutexOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if !self.started {
            self.started = true;
            return match self.queue_all(cx) {
                Ok(()) => Attempt::Pending,
                // A word that was woken while a later one had changed: the wake-up counts.
                Err(errno) => Attempt::Done(self.leave().ok_or(errno)),
            };
        }
        if self.queued.iter().any(|w| w.is_woken()) {
            return Attempt::Done(Ok(self.leave().unwrap_or(0)));
        }
        Attempt::Pending
    }

    /// The waiters in the buckets are the enlistment.
    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        self.leave().ok_or(Errno::ETIMEDOUT)
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        // With a timeout it does not start over: the relative one would begin anew (ERESTART_RESTARTBLOCK).
        let restart = if self.deadline.is_some() { Errno::ERESTART_RESTARTBLOCK } else { Errno::ERESTARTSYS };
        self.leave().ok_or(restart)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let FutexOp { words, queued, started, deadline, kernel: _ } = self;
        let queued = queued.iter().map(|waiter| waiter.save(&saver.kernel)).collect();
        Ok(OpState::Futex(FutexState { words: words.clone(), queued, started: *started, deadline: *deadline }))
    }

    fn name(&self) -> &'static str {
        "futex_wait"
    }
}

impl Drop for FutexOp {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waits on `words`; answers the index of one that was woken. `deadline`: kernel monotonic nanoseconds.
///
/// # Errors
/// `EAGAIN` where a word has another value; `EFAULT`, `EINVAL` for bad addresses; `ETIMEDOUT`.
pub fn wait(cx: &mut CurrentTask<'_>, words: Vec<Word>, deadline: Option<i64>) -> SyscallResult {
    let kernel = cx.kernel().clone();
    op::start(cx, FutexOp { words, queued: Vec::new(), started: false, deadline, kernel })
}
