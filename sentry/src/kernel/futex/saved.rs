//! Futex waiters as saved state: where each waits now (it may have been moved), and whether it has been woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{Futexes, Waiter};
use crate::checkpoint::{Restorer, Unusable};
use crate::kernel::Kernel;
use crate::kernel::task::Task;
use crate::mm::user_copy::FutexKey;
use crate::sync::{Level, Mutex};
use crate::vfs::InodeKey;

#[derive(Serialize, Deserialize)]
enum KeyState {
    /// In the waiter's own address space.
    Private(u64),
    Shared(InodeKey, u64),
}

/// [`Waiter`].
#[derive(Serialize, Deserialize)]
pub struct WaiterState {
    key: KeyState,
    bitset: u32,
    pi: bool,
    woken: bool,
    cancelled: bool,
    /// Its place among the waiters of its bucket, where it still is in one.
    place: Option<u32>,
}

impl Waiter {
    /// Its state.
    #[must_use]
    pub fn save(self: &Arc<Self>, kernel: &Kernel) -> WaiterState {
        let Waiter { task: _, key, bitset, pi, woken, cancelled } = &**self;
        let key = *key.lock();
        let place = kernel.futexes.bucket(&key).lock().iter().position(|w| Arc::ptr_eq(w, self));
        WaiterState {
            key: match key {
                FutexKey::Private { mm: _, addr } => KeyState::Private(addr),
                FutexKey::Shared { object, offset } => KeyState::Shared(object, offset),
            },
            bitset: *bitset,
            pi: *pi,
            woken: woken.load(Ordering::SeqCst),
            cancelled: cancelled.load(Ordering::SeqCst),
            place: place.map(|at| u32::try_from(at).unwrap_or(u32::MAX)),
        }
    }
}

impl WaiterState {
    /// The waiter, which [`Futexes::line_up`] puts into its bucket.
    ///
    /// # Errors
    /// A task without memory.
    pub fn restore(self, task: &Arc<Task>, restorer: &mut Restorer) -> Result<Arc<Waiter>, Unusable> {
        let mm = task.mm().ok_or(Unusable::Corrupt("a futex waiter without memory"))?;
        let key = match self.key {
            KeyState::Private(addr) => FutexKey::Private { mm: mm.id(), addr },
            KeyState::Shared(object, offset) => FutexKey::Shared { object, offset },
        };
        let waiter = Arc::new(Waiter {
            task: task.clone(),
            key: Mutex::new(Level::Leaf, key),
            bitset: self.bitset,
            pi: self.pi,
            woken: AtomicBool::new(self.woken),
            cancelled: AtomicBool::new(self.cancelled),
        });
        restorer.waiters.extend(self.place.map(|place| (place, waiter.clone())));
        Ok(waiter)
    }
}

impl Futexes {
    /// Puts restored waiters into their buckets, in the order in which they were there.
    pub fn line_up(&self, mut waiters: Vec<(u32, Arc<Waiter>)>) {
        waiters.sort_by_key(|(place, _)| *place);
        for (_, waiter) in waiters {
            self.bucket(&waiter.key()).lock().push_back(waiter);
        }
    }
}
