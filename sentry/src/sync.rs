//! Locks with levels. A thread may take a lock only at a level above all those it holds; debug builds check it.
//!
//! Plain locks are never held across a wait: an operation that must suspend its task gives them up first.

use std::ops::{Deref, DerefMut};

/// The order of locks, outermost first. A new kind of lock takes its place here, with what it protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `Task::own`: registers, waiting call; held by the worker that runs the task, for as long as it does.
    TaskOwn,
    /// `FileDescription` offset: held across the read, write or listing it serialises, whatever file that is.
    FileOffset,
    /// `PidTable`: who exists: tasks, thread groups, process groups, sessions.
    PidTable,
    /// `ThreadGroup`'s state: members, exit, children, stop state.
    ThreadGroup,
    /// Mount table.
    Mounts,
    /// Rename serialisation of a file system.
    Rename,
    /// Changes to the tree of one stacked file system: overlay above its layers.
    Overlay,
    /// Changes to the tree of one plain file system.
    FsTree,
    /// A directory's entries.
    Inode,
    /// A file's content or state (pipe buffer, socket, tmpfs pages, terminal).
    File,
    /// A second object of the same kind as one held (the peer of a socket, the target of splice).
    FilePeer,
    /// Futex hash bucket; held while the futex word is read.
    Futex,
    /// Vmas of an address space.
    Vmas,
    /// Reverse mappings of a memory object.
    Mappings,
    /// Pmas of an address space.
    Pmas,
    /// Tables of System V objects.
    Ipc,
    /// Epoll: interest list, then ready list.
    Epoll,
    /// `Task::shared`: what others may read of a task (mm, descriptors, credentials, name).
    TaskShared,
    /// Descriptor table.
    FdTable,
    /// Advisory file locks.
    FileLocks,
    /// Who watches which inode.
    Watches,
    /// Signal queues and handlers.
    Signals,
    /// A process's timers.
    ProcessTimers,
    /// Timer queue.
    Timers,
    /// A wait queue's entries.
    WaitQueue,
    /// Run queue.
    RunQueue,
    /// Taken last, for a moment, and nothing inside it.
    Leaf,
}

#[cfg(debug_assertions)]
mod check {
    use super::Level;
    use std::cell::RefCell;
    use std::panic::Location;

    thread_local!(static HELD: RefCell<Vec<(Level, &'static Location<'static>)>> = const { RefCell::new(Vec::new()) });

    #[track_caller]
    pub(super) fn acquire(level: Level) {
        let at = Location::caller();
        HELD.with_borrow_mut(|held| {
            if let Some((top, by)) = held.iter().max_by_key(|(l, _)| *l) {
                assert!(*top < level, "lock order: {level:?} taken at {at} while {top:?}, taken at {by}, is held");
            }
            held.push((level, at));
        });
    }

    #[track_caller]
    pub(super) fn note(level: Level) {
        let at = Location::caller();
        HELD.with_borrow_mut(|held| held.push((level, at)));
    }

    pub(super) fn release(level: Level) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|(l, _)| *l == level) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod check {
    use super::Level;
    pub(super) fn acquire(_: Level) {}
    pub(super) fn note(_: Level) {}
    pub(super) fn release(_: Level) {}
}

/// A mutex with a level.
#[derive(Debug)]
pub struct Mutex<T> {
    level: Level,
    inner: parking_lot::Mutex<T>,
}

/// Holds a [`Mutex`].
pub struct MutexGuard<'a, T> {
    level: Level,
    inner: parking_lot::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A free mutex around `value`.
    pub const fn new(level: Level, value: T) -> Self {
        Mutex { level, inner: parking_lot::Mutex::new(value) }
    }

    /// Waits for the lock (a short wait by construction) and takes it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        check::acquire(self.level);
        MutexGuard { level: self.level, inner: self.inner.lock() }
    }

    /// Takes the lock if it is free.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        // Who does not wait cannot deadlock: any order will do.
        check::note(self.level);
        Some(MutexGuard { level: self.level, inner })
    }

    /// The value, when nobody else can see the mutex: needs no lock, so that a `Drop` may use it under any.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The value, when nobody else can see the mutex.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        check::release(self.level);
    }
}

/// A reader-writer lock with a level.
#[derive(Debug)]
pub struct RwLock<T> {
    level: Level,
    inner: parking_lot::RwLock<T>,
}

/// Holds an [`RwLock`] for reading.
pub struct ReadGuard<'a, T> {
    level: Level,
    inner: parking_lot::RwLockReadGuard<'a, T>,
}

/// Holds an [`RwLock`] for writing.
pub struct WriteGuard<'a, T> {
    level: Level,
    inner: parking_lot::RwLockWriteGuard<'a, T>,
}

impl<T> RwLock<T> {
    /// A free lock around `value`.
    pub const fn new(level: Level, value: T) -> Self {
        RwLock { level, inner: parking_lot::RwLock::new(value) }
    }

    /// Takes the lock for reading.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        check::acquire(self.level);
        ReadGuard { level: self.level, inner: self.inner.read() }
    }

    /// Takes the lock for writing.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        check::acquire(self.level);
        WriteGuard { level: self.level, inner: self.inner.write() }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        check::release(self.level);
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        check::release(self.level);
    }
}
