//! Priority-inheriting futexes: the kernel hands ownership over. Without real-time scheduling nothing is inherited.

pub mod saved;

use std::sync::Arc;

use abi::{Errno, UserAddr};
use memory::copy::Atomic32;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::futex::robust::{OWNER_DIED, TID_MASK, WAITERS};
use crate::kernel::futex::{ANY, Waiter, mark_woken, take};
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::task::{CurrentTask, Tid};
use crate::kernel::wait::WaitGuard;

/// Locks, or waits for the lock.
struct LockOp {
    addr: UserAddr,
    private: bool,
    try_only: bool,
    deadline: Option<i64>,
    waiter: Option<Arc<Waiter>>,
    kernel: Arc<crate::kernel::Kernel>,
}

impl LockOp {
    /// Takes the lock where it is free, else queues. `true`: it is ours.
    fn acquire(&mut self, cx: &CurrentTask<'_>) -> Result<bool, Errno> {
        let mm = cx.mm()?;
        let key = mm.futex_key(self.addr, self.private)?;
        let mine = cx.task.tid.0.cast_unsigned();
        let mut bucket = self.kernel.futexes.bucket(&key).lock();
        loop {
            let seen = mm.atomic32(self.addr, Atomic32::Load)?;
            let owner = seen & TID_MASK;
            if owner == mine {
                return Err(Errno::EDEADLK);
            }
            let waiting = bucket.iter().any(|w| w.pi && w.key() == key);
            let new = match owner {
                0 => mine | seen & OWNER_DIED | if waiting { WAITERS } else { 0 },
                _ if self.try_only => return Err(Errno::EAGAIN),
                _ => seen | WAITERS,
            };
            if mm.atomic32(self.addr, Atomic32::CompareExchange { old: seen, new })? != seen {
                continue;
            }
            if owner == 0 {
                return Ok(true);
            }
            let waiter = Waiter::new(cx, key, ANY, true);
            bucket.push_back(waiter.clone());
            drop(bucket);
            self.waiter = Some(waiter);
            let owner = i32::try_from(owner).map_err(|_| Errno::ESRCH)?;
            // An owner that does not exist will never unlock.
            return cx.task.pids().task(Tid(owner)).map(|_| false).ok_or(Errno::ESRCH);
        }
    }

    fn give_up(&mut self, errno: Errno) -> Result<u64, Errno> {
        match self.waiter.take() {
            // Handed over meanwhile: it is ours.
            Some(waiter) if !self.kernel.futexes.cancel(&waiter) => Ok(0),
            _ => Err(errno),
        }
    }
}

impl Op for LockOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match &self.waiter {
            Some(waiter) if waiter.is_woken() => {
                self.waiter = None;
                Attempt::Done(Ok(0))
            }
            Some(_) => Attempt::Pending,
            None => match self.acquire(cx) {
                Ok(true) => Attempt::Done(Ok(0)),
                Ok(false) => Attempt::Pending,
                Err(errno) => Attempt::Done(self.give_up(errno)),
            },
        }
    }

    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        self.give_up(Errno::ETIMEDOUT)
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        self.give_up(Errno::ERESTARTNOINTR)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::PiLock(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "futex_lock_pi"
    }
}

impl Drop for LockOp {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.kernel.futexes.cancel(&waiter);
        }
    }
}

/// FUTEX_LOCK_PI(2) and FUTEX_TRYLOCK_PI. `deadline`: kernel monotonic nanoseconds.
///
/// # Errors
/// `EDEADLK` where the caller owns it; `EAGAIN` (trylock) where another does; `ESRCH` where the owner is no task.
pub fn lock(
    cx: &mut CurrentTask<'_>,
    addr: UserAddr,
    private: bool,
    try_only: bool,
    deadline: Option<i64>,
) -> SyscallResult {
    let kernel = cx.kernel().clone();
    op::start(cx, LockOp { addr, private, try_only, deadline, waiter: None, kernel })
}

/// FUTEX_UNLOCK_PI.
///
/// # Errors
/// `EPERM` where the caller does not own it; `EFAULT`, `EINVAL`.
pub fn unlock(cx: &CurrentTask<'_>, addr: UserAddr, private: bool) -> Result<u64, Errno> {
    let mm = cx.mm()?;
    let key = mm.futex_key(addr, private)?;
    let mine = cx.task.tid.0.cast_unsigned();
    let mut bucket = cx.kernel().futexes.bucket(&key).lock();
    loop {
        let seen = mm.atomic32(addr, Atomic32::Load)?;
        if seen & TID_MASK != mine {
            return Err(Errno::EPERM);
        }
        let mut waiting = bucket.iter().filter(|w| w.pi && w.key() == key);
        let new = match (waiting.next(), waiting.next()) {
            (None, _) => 0,
            (Some(heir), more) => heir.task.tid.0.cast_unsigned() | if more.is_some() { WAITERS } else { 0 },
        };
        if mm.atomic32(addr, Atomic32::CompareExchange { old: seen, new })? == seen {
            let heirs = if new == 0 { Vec::new() } else { take(&mut bucket, &key, 1, |w| w.pi) };
            drop(bucket);
            heirs.iter().for_each(|w| mark_woken(w));
            return Ok(0);
        }
    }
}

/// A dying owner's lock goes to the next waiter, marked. `false`: nobody waits, or the word changed.
///
/// # Errors
/// `EFAULT`, `EINVAL`.
pub fn pass_on(cx: &CurrentTask<'_>, addr: UserAddr, seen: u32) -> Result<bool, Errno> {
    let mm = cx.mm()?;
    for private in [true, false] {
        let key = mm.futex_key(addr, private)?;
        let mut bucket = cx.kernel().futexes.bucket(&key).lock();
        let mut waiting = bucket.iter().filter(|w| w.pi && w.key() == key);
        let (Some(heir), more) = (waiting.next(), waiting.next().is_some()) else { continue };
        let new = heir.task.tid.0.cast_unsigned() | OWNER_DIED | if more { WAITERS } else { 0 };
        if mm.atomic32(addr, Atomic32::CompareExchange { old: seen, new })? != seen {
            return Ok(false);
        }
        let heirs = take(&mut bucket, &key, 1, |w| w.pi);
        drop(bucket);
        heirs.iter().for_each(|w| mark_woken(w));
        return Ok(true);
    }
    Ok(false)
}
