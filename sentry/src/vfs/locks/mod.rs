//! Advisory locks: `fcntl(2)` record locks of processes and of open files, and `flock(2)`.
//!
//! One registry a kernel, by inode, under one lock: deadlocks span files. An owner is a descriptor table (record
//! locks of processes) or an open file (open file description locks, `flock`); it gets a number at its first lock and
//! gives up all it holds when its [`LockOwner`] is dropped. Waiting is the callers': they try, enlist on the inode's
//! queue, and try again.

pub mod range;
pub mod saved;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use abi::Errno;

use crate::kernel::wait::{Events, WaitGuard, WaitQueue, WaitTarget};
use crate::sync::{Level, Mutex};
use crate::vfs::{FileDescription, InodeKey};
use range::{END, Lock, Range};

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockKey {
    /// An inode.
    Inode(InodeKey),
    /// The address of what stands behind a file without one, which lives while it is locked.
    Object(usize),
}

impl LockKey {
    /// What locks on `file` lock.
    #[must_use]
    pub fn of(file: &FileDescription) -> Self {
        match file.inode.as_ref().map(|i| i.attr().key).or_else(|| file.ops.attr().map(|a| a.key)) {
            Some(key) => LockKey::Inode(key),
            None => LockKey::Object(Arc::as_ptr(&file.ops).cast::<()>() as usize),
        }
    }
}

/// Which of the three families; they do not see each other, but for the first two, which conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Family {
    /// `F_SETLK`: of a process.
    Process,
    /// `F_OFD_SETLK`: of an open file.
    OpenFile,
    /// `flock(2)`.
    Flock,
}

/// A lock's holder and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// The owner's number.
    pub owner: u64,
    /// Its family.
    pub family: Family,
    /// Exclusive, not shared.
    pub exclusive: bool,
    /// The process that asked, as `l_pid` shows it.
    pub pid: i32,
}

impl Held {
    fn conflicts(&self, other: &Held) -> bool {
        let flock = |f| f == Family::Flock;
        self.owner != other.owner && flock(self.family) == flock(other.family) && (self.exclusive || other.exclusive)
    }

    fn same_holder(&self, other: &Held) -> bool {
        self.owner == other.owner && self.family == other.family
    }
}

/// A call that waits for a lock.
struct Blocked {
    ticket: u64,
    key: LockKey,
    range: Range,
    what: Held,
}

#[derive(Default)]
struct OnInode {
    locks: Vec<Lock<Held>>,
    queue: WaitQueue,
}

#[derive(Default)]
struct Table {
    inodes: HashMap<LockKey, OnInode>,
    blocked: Vec<Blocked>,
    next: u64,
    held: usize,
}

/// Most locks at a time, so that splitting ranges without end is the guest's problem (`ENOLCK`).
const MAX_LOCKS: usize = 1 << 18;
/// Most locks on one inode: every change looks at each.
const MAX_PER_INODE: usize = 1 << 14;

impl Table {
    fn conflict(&self, key: &LockKey, range: Range, what: &Held) -> Option<Lock<Held>> {
        let locks = &self.inodes.get(key)?.locks;
        locks
            .iter()
            .filter(|l| l.range.overlaps(range) && l.what.conflicts(what))
            .min_by_key(|l| l.range.start)
            .cloned()
    }

    /// Whether `owner` would wait for itself if it waited for `holder` (`posix_locks_deadlock`).
    fn deadlocks(&self, owner: u64, holder: u64) -> bool {
        let (mut seen, mut todo) = (Vec::new(), vec![holder]);
        while let Some(at) = todo.pop() {
            if at == owner {
                return true;
            }
            if seen.contains(&at) {
                continue;
            }
            seen.push(at);
            let waits = self.blocked.iter().filter(|b| b.what.owner == at && b.what.family == Family::Process);
            for blocked in waits {
                let blocker = self.conflict(&blocked.key, blocked.range, &blocked.what);
                todo.extend(blocker.filter(|b| b.what.family == Family::Process).map(|b| b.what.owner));
            }
        }
        false
    }

    fn change(&mut self, key: LockKey, range: Range, holder: &Held, what: Option<Held>) -> Option<WaitQueue> {
        let on = self.inodes.entry(key).or_default();
        let before = on.locks.len();
        range::replace(&mut on.locks, range, what, |held| held.same_holder(holder));
        let after = on.locks.len();
        // Waiters hold clones of the queue, so an inode without locks needs no place here once it has woken them.
        let queue = on.queue.clone();
        if after == 0 && queue.is_empty() {
            self.inodes.remove(&key);
        }
        self.held = (self.held + after).saturating_sub(before);
        Some(queue)
    }
}

/// A line of `/proc/locks`.
pub struct Line {
    /// Where.
    pub key: LockKey,
    /// Bytes; a whole file for `flock`.
    pub range: Range,
    /// What.
    pub what: Held,
    /// Whether it waits for the line before.
    pub waits: bool,
}

/// How an attempt to lock ended, where it did not lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another holds what conflicts.
    Conflict,
    /// As the errno says: `EDEADLK`, `ENOLCK`.
    Error(Errno),
}

/// All locks of a kernel.
pub struct FileLocks {
    table: Mutex<Table>,
}

impl Default for FileLocks {
    fn default() -> Self {
        FileLocks { table: Mutex::new(Level::FileLocks, Table::default()) }
    }
}

impl FileLocks {
    /// The lock that keeps `what` from being taken.
    #[must_use]
    pub fn test(&self, key: LockKey, range: Range, what: &Held) -> Option<Lock<Held>> {
        self.table.lock().conflict(&key, range, what)
    }

    /// Takes a lock, or changes what the owner holds there. `ticket` names the caller's wait, where it would wait.
    ///
    /// # Errors
    /// See [`Refused`]; with a ticket the refused call counts as waiting until [`FileLocks::give_up`].
    pub fn lock(&self, key: LockKey, range: Range, what: Held, ticket: Option<u64>) -> Result<(), Refused> {
        let mut table = self.table.lock();
        if let Some(ticket) = ticket {
            table.blocked.retain(|b| b.ticket != ticket);
        }
        if let Some(conflict) = table.conflict(&key, range, &what) {
            let Some(ticket) = ticket else { return Err(Refused::Conflict) };
            let both = what.family == Family::Process && conflict.what.family == Family::Process;
            if both && table.deadlocks(what.owner, conflict.what.owner) {
                return Err(Refused::Error(Errno::EDEADLK));
            }
            table.blocked.push(Blocked { ticket, key, range, what });
            return Err(Refused::Conflict);
        }
        let here = table.inodes.get(&key).map_or(0, |i| i.locks.len());
        if table.held >= MAX_LOCKS || here >= MAX_PER_INODE {
            return Err(Refused::Error(Errno::ENOLCK));
        }
        // An exclusive lock that becomes a shared one lets others in.
        let queue = table.change(key, range, &what, Some(what));
        drop(table);
        wake(queue);
        Ok(())
    }

    /// Gives up what the owner of `what` holds in `range`.
    pub fn unlock(&self, key: LockKey, range: Range, what: &Held) {
        let queue = {
            let mut table = self.table.lock();
            if table.inodes.contains_key(&key) { table.change(key, range, what, None) } else { None }
        };
        wake(queue);
    }

    /// Whether exactly `what` is held.
    #[must_use]
    pub fn holds(&self, key: LockKey, what: &Held) -> bool {
        let table = self.table.lock();
        let same = |l: &Lock<Held>| l.what.same_holder(what) && l.what.exclusive == what.exclusive;
        table.inodes.get(&key).is_some_and(|on| on.locks.iter().any(same))
    }

    /// A number for a call that may wait.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.number()
    }

    /// The call with this ticket waits no more.
    pub fn give_up(&self, ticket: u64) {
        self.table.lock().blocked.retain(|b| b.ticket != ticket);
    }

    /// Enlists with what changes on an inode.
    pub fn enlist(&self, key: LockKey, waiter: Arc<dyn WaitTarget>) -> WaitGuard {
        // Under the lock: a queue that nobody waits on is forgotten with its inode's last lock.
        let mut table = self.table.lock();
        table.inodes.entry(key).or_default().queue.enlist(Events::IN, waiter)
    }

    /// Everything, as `/proc/locks` shows it.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let table = self.table.lock();
        let mut keys: Vec<_> = table.inodes.keys().copied().collect();
        keys.sort();
        let mut out = Vec::new();
        for (key, lock) in keys
            .iter()
            .filter_map(|k| table.inodes.get(k).map(|i| (k, i)))
            .flat_map(|(k, i)| i.locks.iter().map(move |l| (k, l)))
        {
            out.push(Line { key: *key, range: lock.range, what: lock.what, waits: false });
            let waiting = table
                .blocked
                .iter()
                .filter(|b| b.key == *key && table.conflict(key, b.range, &b.what).is_some_and(|c| c == *lock));
            out.extend(waiting.map(|b| Line { key: b.key, range: b.range, what: b.what, waits: true }));
        }
        out
    }

    fn number(&self) -> u64 {
        let mut table = self.table.lock();
        table.next += 1;
        table.next
    }

    fn release(&self, owner: u64, only: Option<LockKey>) {
        let mut queues = Vec::new();
        {
            let mut table = self.table.lock();
            let Table { inodes, held, .. } = &mut *table;
            let mut drop_from = |on: &mut OnInode| {
                let before = on.locks.len();
                on.locks.retain(|l| l.what.owner != owner);
                if before != on.locks.len() {
                    *held = held.saturating_sub(before - on.locks.len());
                    queues.push(on.queue.clone());
                }
                !on.locks.is_empty() || !on.queue.is_empty()
            };
            match only {
                None => inodes.retain(|_, on| drop_from(on)),
                Some(key) => {
                    if inodes.get_mut(&key).is_some_and(|on| !drop_from(on)) {
                        inodes.remove(&key);
                    }
                }
            }
        }
        queues.into_iter().for_each(|q| wake(Some(q)));
    }
}

fn wake(queue: Option<WaitQueue>) {
    if let Some(queue) = queue {
        queue.wake(Events::IN);
    }
}

/// The whole of a file, which `flock` locks.
pub const WHOLE: Range = Range { start: 0, last: END };

struct Registered {
    locks: Arc<FileLocks>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.locks.release(self.id, None);
    }
}

/// What may hold locks: part of a descriptor table or an open file. Costs nothing until it does.
#[derive(Default)]
pub struct LockOwner(OnceLock<Registered>);

impl LockOwner {
    /// Its number, given now where it has none.
    pub fn id(&self, locks: &Arc<FileLocks>) -> u64 {
        self.0.get_or_init(|| Registered { locks: locks.clone(), id: locks.number() }).id
    }

    /// Gives up what it holds on the file that `file` opens: any close of any descriptor does (fcntl(2)).
    pub fn closed(&self, file: &FileDescription) {
        if let Some(registered) = self.0.get() {
            registered.locks.release(registered.id, Some(LockKey::of(file)));
        }
    }
}
