//! Advisory locks: `flock(2)` and the record locks of `fcntl(2)`.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Restorer, Saver, Unusable};
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::WaitGuard;
use crate::syscall_table;
use crate::vfs::locks::range::{END, Lock, Range};
use crate::vfs::locks::{Family, FileLocks, Held, LockKey, Refused, WHOLE};
use crate::vfs::saved::FileState;
use crate::vfs::{FdNum, FileDescription, InodeKey, OpenFlags};

syscall_table! {
    73 flock(fd: FdNum, operation: i32);
}

const READ: i16 = 0;
const WRITE: i16 = 1;
const UNLOCK: i16 = 2;

/// A call that waits for a lock.
struct LockOp {
    locks: Arc<FileLocks>,
    file: Arc<FileDescription>,
    /// The descriptor of a process's lock: one that was closed meanwhile must not leave a lock behind.
    fd: Option<FdNum>,
    key: LockKey,
    range: Range,
    what: Held,
    ticket: u64,
}

impl LockOp {
    fn still_open(&self, cx: &CurrentTask<'_>) -> bool {
        let Some(fd) = self.fd else { return true };
        cx.fds().and_then(|t| t.get(fd)).is_ok_and(|now| Arc::ptr_eq(&now, &self.file))
    }
}

/// [`LockOp`].
#[derive(Serialize, Deserialize)]
pub struct LockState {
    file: Id<FileState>,
    fd: Option<i32>,
    key: InodeKey,
    range: Range,
    what: Held,
}

impl LockState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let LockState { file, fd, key, range, what } = self;
        if range.start > range.last || range.last > END {
            return Err(Unusable::Corrupt("a wait for a lock"));
        }
        let (locks, file) = (restorer.kernel.file_locks.clone(), restorer.file(file)?);
        let (ticket, key) = (locks.ticket(), LockKey::Inode(key));
        locks.wait_again(key, range, what, ticket);
        Ok(Box::new(LockOp { locks, file, fd: fd.map(FdNum), key, range, what, ticket }))
    }
}

impl Op for LockOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.locks.lock(self.key, self.range, self.what, Some(self.ticket)) {
            Ok(()) if self.still_open(cx) => Attempt::Done(Ok(0)),
            Ok(()) => {
                self.locks.unlock(self.key, self.range, &self.what);
                Attempt::Done(Err(Errno::EBADF))
            }
            Err(Refused::Conflict) => Attempt::Pending,
            Err(Refused::Error(errno)) => Attempt::Done(Err(errno)),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.locks.enlist(self.key, cx.waiter())]
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, crate::checkpoint::Refused> {
        // It waits again under a new ticket.
        let LockOp { locks: _, file, fd, key, range, what, ticket: _ } = self;
        let LockKey::Inode(key) = *key else {
            return Err(crate::checkpoint::Refused::new("a wait for a lock on a file without an inode"));
        };
        let (file, fd) = (saver.files.id(file), fd.map(|fd| fd.0));
        Ok(OpState::Lock(LockState { file, fd, key, range: *range, what: *what }))
    }

    fn name(&self) -> &'static str {
        if self.what.family == Family::Flock { "flock" } else { "fcntl_setlk" }
    }
}

impl Drop for LockOp {
    fn drop(&mut self) {
        self.locks.give_up(self.ticket);
    }
}

fn lock(
    cx: &mut CurrentTask<'_>,
    file: Arc<FileDescription>,
    fd: Option<FdNum>,
    (range, what): (Range, Held),
    wait: bool,
) -> SyscallResult {
    let locks = cx.kernel().file_locks.clone();
    let key = LockKey::of(&file);
    if wait {
        let ticket = locks.ticket();
        return op::start(cx, LockOp { locks, file, fd, key, range, what, ticket });
    }
    match locks.lock(key, range, what, None) {
        Ok(()) => ok(),
        Err(Refused::Conflict) => Err(Errno::EAGAIN),
        Err(Refused::Error(errno)) => Err(errno),
    }
}

fn flock(cx: &mut CurrentTask<'_>, fd: FdNum, operation: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let exclusive = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => Some(false),
        libc::LOCK_EX => Some(true),
        libc::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let locks = cx.kernel().file_locks.clone();
    let owner = file.lock_owner.id(&locks);
    let pid = cx.task.group.tgid.0;
    let what = Held { owner, family: Family::Flock, exclusive: exclusive.unwrap_or(false), pid };
    // A conversion is not atomic: the old lock goes before the new one is looked for (flock(2)).
    if !locks.holds(LockKey::of(&file), &what) || exclusive.is_none() {
        locks.unlock(LockKey::of(&file), WHOLE, &what);
    }
    match exclusive {
        Some(_) => lock(cx, file, None, (WHOLE, what), operation & libc::LOCK_NB == 0),
        None => ok(),
    }
}

/// `struct flock` of a 64-bit process.
#[derive(Clone, Copy)]
struct Record {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

fn field<const N: usize>(raw: &[u8; 32], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(raw.get(at..at + N).unwrap_or(&[0; N]));
    out
}

fn read_record(cx: &CurrentTask<'_>, at: UserAddr) -> Result<Record, Errno> {
    let mut raw = [0u8; 32];
    cx.mm()?.read_bytes(at, &mut raw)?;
    Ok(Record {
        kind: i16::from_le_bytes(field(&raw, 0)),
        whence: i16::from_le_bytes(field(&raw, 2)),
        start: i64::from_le_bytes(field(&raw, 8)),
        len: i64::from_le_bytes(field(&raw, 16)),
        pid: i32::from_le_bytes(field(&raw, 24)),
    })
}

fn write_record(cx: &CurrentTask<'_>, at: UserAddr, record: &Record) -> SyscallResult {
    let mut raw = [0u8; 32];
    cx.mm()?.read_bytes(at, &mut raw)?;
    let parts: [(usize, &[u8]); 5] = [
        (0, &record.kind.to_le_bytes()),
        (2, &record.whence.to_le_bytes()),
        (8, &record.start.to_le_bytes()),
        (16, &record.len.to_le_bytes()),
        (24, &record.pid.to_le_bytes()),
    ];
    for (at, bytes) in parts {
        if let Some(place) = raw.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    cx.mm()?.write_bytes(at, &raw)?;
    ok()
}

fn base_of(file: &FileDescription, whence: i16) -> Result<i64, Errno> {
    let at = match i32::from(whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *file.offset.lock(),
        libc::SEEK_END => file.inode.as_ref().map(|i| i.attr()).or_else(|| file.ops.attr()).map_or(0, |a| a.size),
        _ => return Err(Errno::EINVAL),
    };
    i64::try_from(at).map_err(|_| Errno::EOVERFLOW)
}

/// `fcntl` with one of the six lock commands.
///
/// # Errors
/// `EAGAIN` for a conflict; `EDEADLK`; `EBADF` where the access mode does not fit; `EINVAL`, `EOVERFLOW`, `EFAULT` for
/// bad arguments; `ENOLCK`.
pub(super) fn record_lock(
    cx: &mut CurrentTask<'_>,
    (fd, file): (FdNum, Arc<FileDescription>),
    cmd: i32,
    at: UserAddr,
) -> SyscallResult {
    let record = read_record(cx, at)?;
    let open_file = matches!(cmd, libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
    let is_get = matches!(cmd, libc::F_GETLK | libc::F_OFD_GETLK);
    if is_get && !matches!(record.kind, READ | WRITE) {
        return Err(Errno::EINVAL);
    }
    let range = Range::parse(base_of(&file, record.whence)?, record.start, record.len)?;
    if !matches!(record.kind, READ | WRITE | UNLOCK) || (open_file && record.pid != 0) {
        return Err(Errno::EINVAL);
    }
    let locks = cx.kernel().file_locks.clone();
    let (family, owner, pid) = if open_file {
        (Family::OpenFile, file.lock_owner.id(&locks), -1)
    } else {
        (Family::Process, cx.fds()?.lock_owner.id(&locks), cx.task.group.tgid.0)
    };
    let what = Held { owner, family, exclusive: record.kind == WRITE, pid };
    if is_get {
        return write_record(cx, at, &answer(record, locks.test(LockKey::of(&file), range, &what)));
    }
    match record.kind {
        READ if !file.flags().readable() => Err(Errno::EBADF),
        WRITE if !file.flags().writable() => Err(Errno::EBADF),
        UNLOCK => {
            locks.unlock(LockKey::of(&file), range, &what);
            ok()
        }
        _ => {
            let wait = matches!(cmd, libc::F_SETLKW | libc::F_OFD_SETLKW);
            lock(cx, file, (!open_file).then_some(fd), (range, what), wait)
        }
    }
}

/// What `F_GETLK` writes back: the conflicting lock, or the request with F_UNLCK.
fn answer(request: Record, conflict: Option<Lock<Held>>) -> Record {
    let Some(lock) = conflict else { return Record { kind: UNLOCK, ..request } };
    Record {
        kind: if lock.what.exclusive { WRITE } else { READ },
        whence: 0,
        start: lock.range.start.cast_signed(),
        len: lock.range.flock_len().cast_signed(),
        pid: lock.what.pid,
    }
}
