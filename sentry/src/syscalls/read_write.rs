//! read, write and their vectored and positioned kin.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::kernel::io_pool::Fetch;
use crate::kernel::limits::resource;
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::signal;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::vfs::saved::FileState;
use crate::vfs::{FdNum, FileDescription, IoCursor, IoSink, IoSource};

syscall_table! {
    0 read(fd: FdNum, buf: UserAddr, count: usize);
    1 write(fd: FdNum, buf: UserAddr, count: usize);
    17 pread64(fd: FdNum, buf: UserAddr, count: usize, offset: i64);
    18 pwrite64(fd: FdNum, buf: UserAddr, count: usize, offset: i64);
    19 readv(fd: FdNum, iov: UserAddr, count: usize);
    20 writev(fd: FdNum, iov: UserAddr, count: usize);
    295 preadv(fd: FdNum, iov: UserAddr, count: usize, offset: i64);
    296 pwritev(fd: FdNum, iov: UserAddr, count: usize, offset: i64);
    327 preadv2(fd: FdNum, iov: UserAddr, count: usize, offset: i64, _high: u64, flags: u32);
    328 pwritev2(fd: FdNum, iov: UserAddr, count: usize, offset: i64, _high: u64, flags: u32);
}

/// Bytes of a file moved at once: between two such pieces others may have the CPU, and the task may die.
const PIECE: usize = 1 << 20;

/// A read or write that may wait.
struct TransferOp {
    file: Arc<FileDescription>,
    cursor: IoCursor,
    write: bool,
    /// A position of its own (`pread`), or the description's.
    offset: Option<u64>,
    /// RWF_NOWAIT: as if O_NONBLOCK were set.
    nowait: bool,
    /// Content on its way into memory, and how much had been moved when it was asked for.
    fetching: Option<(Arc<Fetch>, usize)>,
}

/// [`TransferOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct TransferState {
    file: Id<FileState>,
    cursor: IoCursor,
    write: bool,
    offset: Option<u64>,
    nowait: bool,
}

impl TransferState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let TransferState { file, cursor, write, offset, nowait } = self;
        let cursor = cursor.checked().ok_or(Unusable::Corrupt("a read or write"))?;
        Ok(Box::new(TransferOp { file: restorer.file(file)?, cursor, write, offset, nowait, fetching: None }))
    }
}

impl TransferOp {
    fn waits(&self) -> bool {
        !self.nowait && !self.file.is_nonblocking() && self.file.ops.can_wait()
    }

    fn transfer(&mut self, cx: &mut CurrentTask<'_>) -> Result<usize, Errno> {
        if !self.write {
            return self.read(cx);
        }
        let mm = cx.mm()?;
        let limit = cx.task.group.limit(resource::FSIZE);
        let (room, at) = (self.room(), self.position()?);
        let mut source = IoSource::guest(&mm, &mut self.cursor).with_file_limit(limit);
        source.restrict(room as u64);
        match at {
            None => self.file.write(&mut source),
            Some(at) => self.file.write_at(&mut source, at),
        }
    }

    /// Reads what is there; what is not is fetched, but only once for the same place: then the host is taken to be
    /// unable to tell, and the read waits for it.
    fn read(&mut self, cx: &mut CurrentTask<'_>) -> Result<usize, Errno> {
        let mm = cx.mm()?;
        let done = self.cursor.done();
        let patient = self.fetching.take().is_none_or(|(_, before)| before < done);
        let (room, at) = (self.room(), self.position()?);
        let mut sink = IoSink::guest(&mm, &mut self.cursor).with_room(room);
        if patient {
            sink = sink.patient();
        }
        let answer = match at {
            None => self.file.read(&mut sink),
            Some(at) => self.file.read_at(&mut sink, at),
        };
        self.fetching = sink.fetching().map(|fetch| (fetch, self.cursor.done()));
        answer
    }

    fn is_fetching(&self) -> bool {
        self.fetching.as_ref().is_some_and(|(fetch, _)| !fetch.is_done())
    }

    /// Bytes to move at once. What can wait holds little, and may care for the ends of messages.
    fn room(&self) -> usize {
        if self.file.ops.can_wait() { usize::MAX } else { PIECE }
    }

    /// Where the next piece goes, for a transfer with a position of its own.
    fn position(&self) -> Result<Option<u64>, Errno> {
        self.offset.map(|at| at.checked_add(self.cursor.done() as u64).ok_or(Errno::EINVAL)).transpose()
    }

    /// A blocking write goes on until all is written, a file's next piece follows the last; a read from elsewhere
    /// answers with what it got.
    fn wants_more(&self, moved: usize) -> bool {
        let more = if self.file.ops.can_wait() { self.write && self.waits() } else { moved == PIECE };
        more && self.cursor.remaining() > 0
    }
}

impl Op for TransferOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if self.is_fetching() {
            return Attempt::Pending;
        }
        loop {
            let answer = self.transfer(cx);
            if self.fetching.is_some() && !self.nowait {
                return Attempt::Pending;
            }
            match answer {
                Ok(n) if n > 0 && self.wants_more(n) => {
                    if cx.is_wanted_elsewhere() {
                        return Attempt::Again;
                    }
                }
                Ok(_) => return Attempt::Done(Ok(self.cursor.done() as u64)),
                Err(Errno::EAGAIN) if self.waits() => return Attempt::Pending,
                Err(_) if self.cursor.done() > 0 => return Attempt::Done(Ok(self.cursor.done() as u64)),
                Err(errno) => {
                    match errno {
                        Errno::EPIPE => signal::send_sigpipe(cx),
                        Errno::EFBIG => file_too_big(cx),
                        _ => {}
                    }
                    return Attempt::Done(Err(errno));
                }
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        if let Some((fetch, _)) = &self.fetching {
            return vec![fetch.queue().enlist(Events::READABLE, cx.waiter())];
        }
        let events = if self.write { Events::WRITABLE } else { Events::READABLE | Events::RDHUP };
        self.file.ops.wait_queue().map(|queue| queue.enlist(events, cx.waiter())).into_iter().collect()
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 { Ok(self.cursor.done() as u64) } else { Err(Errno::ERESTARTSYS) }
    }

    fn is_killable_only(&self) -> bool {
        self.fetching.is_some()
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        // What was on its way is asked for again.
        let TransferOp { file, cursor, write, offset, nowait, fetching: _ } = self;
        let file = saver.files.id(file);
        Ok(OpState::Transfer(TransferState {
            file,
            cursor: cursor.clone(),
            write: *write,
            offset: *offset,
            nowait: *nowait,
        }))
    }

    fn name(&self) -> &'static str {
        if self.write { "write" } else { "read" }
    }
}

/// A file may not become as long as that: where the process has a limit of its own, it hears of it (RLIMIT_FSIZE).
pub(super) fn file_too_big(cx: &mut CurrentTask<'_>) {
    if cx.task.group.limit(resource::FSIZE) != crate::kernel::limits::INFINITY {
        signal::send_self(cx, libc::SIGXFSZ);
    }
}

fn transfer(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    cursor: impl FnOnce(&mut CurrentTask<'_>) -> Result<IoCursor, Errno>,
    write: bool,
    offset: Option<i64>,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let allowed = if write { file.flags().writable() } else { file.flags().readable() };
    if !allowed {
        return Err(Errno::EBADF);
    }
    let offset = offset.map(u64::try_from).transpose().map_err(|_| Errno::EINVAL)?;
    if offset.is_some() && !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let cursor = cursor(cx)?;
    start(cx, file, cursor, write, offset, false)
}

/// Begins a transfer whose arguments have been checked.
///
/// # Errors
/// What the file says.
pub(super) fn start(
    cx: &mut CurrentTask<'_>,
    file: Arc<FileDescription>,
    cursor: IoCursor,
    write: bool,
    offset: Option<u64>,
    nowait: bool,
) -> SyscallResult {
    if let Some(op) = file.ops.transfer_op(&file, &cursor, write) {
        return if nowait { Err(Errno::EOPNOTSUPP) } else { op::start_boxed(cx, op) };
    }
    op::start(cx, TransferOp { file, cursor, write, offset, nowait, fetching: None })
}

/// Flags of preadv2 and pwritev2.
mod rwf {
    pub const HIPRI: u32 = 1;
    pub const DSYNC: u32 = 2;
    pub const SYNC: u32 = 4;
    pub const NOWAIT: u32 = 8;
    pub const APPEND: u32 = 16;
}

/// preadv2 and pwritev2: offset -1 is the file's own position.
fn transfer_flags(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    (iov, count): (UserAddr, usize),
    write: bool,
    offset: i64,
    flags: u32,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if !(if write { file.flags().writable() } else { file.flags().readable() }) {
        return Err(Errno::EBADF);
    }
    if offset < -1 {
        return Err(Errno::EINVAL);
    }
    if offset != -1 && !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let cursor = IoCursor::from_guest(&*cx.mm()?, iov, count)?;
    let known = rwf::HIPRI | rwf::DSYNC | rwf::SYNC | rwf::NOWAIT | if write { rwf::APPEND } else { 0 };
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut offset = u64::try_from(offset).ok();
    if flags & rwf::APPEND != 0
        && let Some(end) = file.ops.append_end()
    {
        // The position given does not count; the file's own moves only where it was asked for.
        if offset.is_none() {
            *file.offset.lock() = end;
        } else {
            offset = Some(end);
        }
    }
    let synced = (write && flags & (rwf::DSYNC | rwf::SYNC) != 0).then(|| file.clone());
    let flow = start(cx, file, cursor, write, offset, flags & rwf::NOWAIT != 0)?;
    if let Some(file) = synced.filter(|f| f.ops.is_seekable()) {
        file.ops.sync(&file)?;
    }
    Ok(flow)
}

fn preadv2(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    iov: UserAddr,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    transfer_flags(cx, fd, (iov, count), false, offset, flags)
}

fn pwritev2(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    iov: UserAddr,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    transfer_flags(cx, fd, (iov, count), true, offset, flags)
}

fn read(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: usize) -> SyscallResult {
    transfer(cx, fd, |_| IoCursor::single(buf, count), false, None)
}

fn write(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: usize) -> SyscallResult {
    transfer(cx, fd, |_| IoCursor::single(buf, count), true, None)
}

fn pread64(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: usize, offset: i64) -> SyscallResult {
    transfer(cx, fd, |_| IoCursor::single(buf, count), false, Some(offset))
}

fn pwrite64(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: usize, offset: i64) -> SyscallResult {
    transfer(cx, fd, |_| IoCursor::single(buf, count), true, Some(offset))
}

fn vector(iov: UserAddr, count: usize) -> impl FnOnce(&mut CurrentTask<'_>) -> Result<IoCursor, Errno> {
    move |cx| IoCursor::from_guest(&*cx.mm()?, iov, count)
}

fn readv(cx: &mut CurrentTask<'_>, fd: FdNum, iov: UserAddr, count: usize) -> SyscallResult {
    transfer(cx, fd, vector(iov, count), false, None)
}

fn writev(cx: &mut CurrentTask<'_>, fd: FdNum, iov: UserAddr, count: usize) -> SyscallResult {
    transfer(cx, fd, vector(iov, count), true, None)
}

fn preadv(cx: &mut CurrentTask<'_>, fd: FdNum, iov: UserAddr, count: usize, offset: i64) -> SyscallResult {
    transfer(cx, fd, vector(iov, count), false, Some(offset))
}

fn pwritev(cx: &mut CurrentTask<'_>, fd: FdNum, iov: UserAddr, count: usize, offset: i64) -> SyscallResult {
    transfer(cx, fd, vector(iov, count), true, Some(offset))
}
