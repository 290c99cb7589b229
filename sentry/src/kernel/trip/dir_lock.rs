//! Sleeping locks of directories: contention suspends the task, not the worker.

use std::sync::Arc;

use abi::Errno;

use super::with;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};

type Result<T> = std::result::Result<T, Errno>;

#[derive(Default)]
struct LockState {
    shared: u32,
    alone: bool,
    /// A change of it was made that the tree of names does not know.
    suspect: bool,
    waiters: Vec<WaitQueue>,
}

/// A directory's sleeping lock.
pub struct DirLock {
    state: Mutex<LockState>,
}

impl Default for DirLock {
    fn default() -> Self {
        DirLock { state: Mutex::new(Level::Leaf, LockState::default()) }
    }
}

impl DirLock {
    /// Whether cached names of the directory are not to be believed.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.state.lock().suspect
    }

    fn try_take(self: &Arc<Self>, alone: bool, wake: &WaitQueue) -> Option<Hold> {
        let mut state = self.state.lock();
        if state.alone || (alone && state.shared > 0) {
            state.waiters.push(wake.clone());
            return None;
        }
        if alone {
            state.alone = true;
        } else {
            state.shared += 1;
        }
        drop(state);
        Some(Hold { lock: self.clone(), alone })
    }
}

/// A directory held by a trip.
pub(super) struct Hold {
    lock: Arc<DirLock>,
    alone: bool,
}

impl Hold {
    /// A change made under it is lost to the tree of names.
    pub(super) fn suspect(&self) {
        if self.alone {
            self.lock.state.lock().suspect = true;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let waiters = {
            let mut state = self.lock.state.lock();
            if self.alone {
                state.alone = false;
            } else {
                state.shared = state.shared.saturating_sub(1);
            }
            std::mem::take(&mut state.waiters)
        };
        waiters.iter().for_each(|w| w.wake(Events::READABLE));
    }
}

/// Holds `locks` for the current trip: all of them or none.
///
/// # Errors
/// `EIOCBQUEUED` where the call must wait for another.
pub fn hold(locks: &[&Arc<DirLock>], alone: bool) -> Result<()> {
    let mut given_back = Vec::new();
    let held = with(|trip| {
        let held =
            |t: &super::Trip, l: &Arc<DirLock>| t.holds.iter().any(|h| Arc::ptr_eq(&h.lock, l) && (h.alone || !alone));
        if locks.iter().all(|l| held(trip, l)) {
            return Ok(());
        }
        // In the middle of a change: what is looked up again beside it waits for nobody.
        if !alone && trip.holds.iter().any(|h| h.alone) {
            return Ok(());
        }
        // Nothing is held while another is waited for, so that nobody waits in a circle.
        trip.holds.clear();
        let wake = trip.wake();
        for lock in locks {
            if held(trip, lock) {
                continue;
            }
            match lock.try_take(alone, &wake) {
                Some(hold) => trip.holds.push(hold),
                None => {
                    given_back.append(&mut trip.holds);
                    return Err(Errno::EIOCBQUEUED);
                }
            }
        }
        Ok(())
    });
    drop(given_back);
    held.unwrap_or(Ok(()))
}

/// Gives back what the current trip shares of `lock`.
pub fn release(lock: &Arc<DirLock>) {
    let gone = with(|trip| {
        let at = trip.holds.iter().position(|h| Arc::ptr_eq(&h.lock, lock) && !h.alone)?;
        Some(trip.holds.swap_remove(at))
    });
    drop(gone);
}
