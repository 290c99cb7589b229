//! Futexes (futex(2), `kernel/futex/`).
//!
//! A waiter lies in the bucket of its key until it is woken, moved, or gives up. The word is compared and the waiter
//! queued under the bucket's lock, and wakers take that lock, so no wake-up falls between the two. Waking marks the
//! waiter; what was marked stays so, and a signal or timeout that finds the mark answers success.

pub mod op;
pub mod pi;
pub mod robust;
pub mod saved;
pub mod wait;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::{Errno, UserAddr};

use crate::kernel::task::{CurrentTask, Task};
use crate::mm::user_copy::FutexKey;
use crate::sync::{Level, Mutex};

/// Buckets; contention is only between workers, of which there are few.
const BUCKETS: usize = 64;
/// Matches every bitset.
pub const ANY: u32 = u32::MAX;

/// One place in a bucket.
pub struct Waiter {
    task: Arc<Task>,
    key: Mutex<FutexKey>,
    bitset: u32,
    /// Whether it waits for ownership of a PI futex.
    pi: bool,
    woken: AtomicBool,
    cancelled: AtomicBool,
}

impl Waiter {
    fn new(cx: &CurrentTask<'_>, key: FutexKey, bitset: u32, pi: bool) -> Arc<Self> {
        Arc::new(Waiter {
            task: cx.task.clone(),
            key: Mutex::new(Level::Leaf, key),
            bitset,
            pi,
            woken: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        })
    }

    fn key(&self) -> FutexKey {
        *self.key.lock()
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

type Bucket = Mutex<VecDeque<Arc<Waiter>>>;

/// All futex waiters of a kernel.
pub struct Futexes {
    buckets: Vec<Bucket>,
    /// Seeded, so that guests cannot aim at one bucket.
    hasher: RandomState,
}

impl Default for Futexes {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::new(Level::Futex, VecDeque::new())).collect();
        Futexes { buckets, hasher: RandomState::new() }
    }
}

impl Futexes {
    fn bucket(&self, key: &FutexKey) -> &Bucket {
        let hash = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0);
        &self.buckets[hash % BUCKETS]
    }

    /// Wakes up to `count` waiters of `key` whose bitset meets `bitset`; answers how many.
    pub fn wake(&self, key: &FutexKey, count: u32, bitset: u32) -> u32 {
        let woken = take(&mut self.bucket(key).lock(), key, count, |w| w.bitset & bitset != 0 && !w.pi);
        woken.iter().for_each(|w| mark_woken(w));
        u32::try_from(woken.len()).unwrap_or(u32::MAX)
    }

    /// Takes a waiter out for good. `false`: it had been woken, and that must not be lost.
    fn cancel(&self, waiter: &Arc<Waiter>) -> bool {
        waiter.cancelled.store(true, Ordering::SeqCst);
        let removed = {
            let mut bucket = self.bucket(&waiter.key()).lock();
            let at = bucket.iter().position(|w| Arc::ptr_eq(w, waiter));
            at.and_then(|at| bucket.remove(at))
        };
        drop(removed);
        !waiter.is_woken()
    }

    /// Puts waiters that were taken from another key's bucket under `key`; answers how many had not given up.
    fn insert_moved(&self, moved: Vec<Arc<Waiter>>, key: FutexKey) -> u32 {
        let mut bucket = self.bucket(&key).lock();
        let mut count = 0;
        for waiter in moved {
            // The key first: who cancels after we looked finds the waiter here.
            *waiter.key.lock() = key;
            if !waiter.cancelled.load(Ordering::SeqCst) {
                bucket.push_back(waiter);
                count += 1;
            }
        }
        count
    }
}

/// Takes up to `count` waiters of `key` that `pick` wants out of a bucket, oldest first.
fn take(
    bucket: &mut VecDeque<Arc<Waiter>>,
    key: &FutexKey,
    count: u32,
    pick: impl Fn(&Waiter) -> bool,
) -> Vec<Arc<Waiter>> {
    let mut taken = Vec::new();
    let mut at = 0;
    while at < bucket.len() && taken.len() < count as usize {
        if bucket[at].key() == *key && pick(&bucket[at]) {
            taken.extend(bucket.remove(at));
        } else {
            at += 1;
        }
    }
    taken
}

fn mark_woken(waiter: &Waiter) {
    waiter.woken.store(true, Ordering::SeqCst);
    waiter.task.notify();
}

/// Wakes waiters of the word at `addr`, private or shared (an exiting thread's `clear_tid`).
///
/// # Errors
/// `EFAULT`, `EINVAL` for a bad address.
pub fn wake_at(cx: &CurrentTask<'_>, addr: UserAddr, count: u32) -> Result<u32, Errno> {
    let mm = cx.mm()?;
    let futexes = &cx.kernel().futexes;
    let shared = mm.futex_key(addr, false)?;
    let woken = futexes.wake(&shared, count, ANY);
    let private = mm.futex_key(addr, true)?;
    if private == shared {
        return Ok(woken);
    }
    Ok(woken + futexes.wake(&private, count.saturating_sub(woken), ANY))
}
