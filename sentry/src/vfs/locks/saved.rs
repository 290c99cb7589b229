//! Locks as saved state. Owners keep their numbers, by which they are tied to their locks again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::range::{END, Lock, Range};
use super::{Blocked, FileLocks, Held, LockKey, LockOwner, MAX_LOCKS, MAX_PER_INODE, Registered, Table};
use crate::checkpoint::{Refused, Unusable};
use crate::vfs::InodeKey;

/// [`FileLocks`].
#[derive(Serialize, Deserialize)]
pub struct LocksState {
    next: u64,
    /// By inode, each inode's in order.
    held: Vec<(InodeKey, Vec<(Range, Held)>)>,
}

impl FileLocks {
    /// All locks. Who waits for one is saved with its call.
    ///
    /// # Errors
    /// A lock on what has no inode.
    pub fn save(&self) -> Result<LocksState, Refused> {
        let table = self.table.lock();
        let Table { inodes, blocked: _, next, held: _ } = &*table;
        let mut held = Vec::new();
        for (key, on) in inodes.iter().filter(|(_, on)| !on.locks.is_empty()) {
            let LockKey::Inode(key) = key else { return Err(Refused::new("a lock on a file without an inode")) };
            held.push((*key, on.locks.iter().map(|Lock { range, what }| (*range, *what)).collect()));
        }
        Ok(LocksState { next: *next, held })
    }
}

impl FileLocks {
    /// A restored call waits with this ticket.
    pub fn wait_again(&self, key: LockKey, range: Range, what: Held, ticket: u64) {
        self.table.lock().blocked.push(Blocked { ticket, key, range, what });
    }
}

impl LocksState {
    /// Takes the locks, before any owner is restored.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, locks: &FileLocks) -> Result<(), Unusable> {
        let bad = Unusable::Corrupt("a file lock");
        let mut table = locks.table.lock();
        table.next = self.next;
        for (key, held) in self.held {
            let fits = held.iter().all(|(r, what)| r.start <= r.last && r.last <= END && what.owner <= self.next);
            table.held += held.len();
            if !fits || held.len() > MAX_PER_INODE || table.held > MAX_LOCKS {
                return Err(bad);
            }
            let on = table.inodes.entry(LockKey::Inode(key)).or_default();
            on.locks.extend(held.into_iter().map(|(range, what)| Lock { range, what }));
        }
        Ok(())
    }
}

impl LockOwner {
    /// Its number, if it has one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.0.get().map(|registered| registered.id)
    }

    /// The owner that had this number.
    #[must_use]
    pub fn restored(locks: &Arc<FileLocks>, number: Option<u64>) -> Self {
        let owner = LockOwner::default();
        if let Some(id) = number {
            let _ = owner.0.set(Registered { locks: locks.clone(), id });
        }
        owner
    }
}
