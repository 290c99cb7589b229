//! sendfile, splice, tee, vmsplice, copy_file_range: bytes from one file to another, by way of a bounce buffer.
//!
//! Nothing is lost where a call is interrupted: a seekable source moves only by what was written, and a pipe gets
//! back what its other end did not take.

pub mod saved;

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::pipe::PipeEnd;
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok, ret};
use crate::kernel::signal;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::syscalls::read_write;
use crate::vfs::io::MAX_RW_COUNT;
use crate::vfs::{FdNum, FileDescription, FileType, IoCursor, IoSink, IoSource, OpenFlags};

syscall_table! {
    40 sendfile(out: FdNum, from: FdNum, offset: UserAddr, count: usize);
    275 splice(from: FdNum, from_offset: UserAddr, to: FdNum, to_offset: UserAddr, len: usize, flags: u32);
    276 tee(from: FdNum, to: FdNum, len: usize, flags: u32);
    278 vmsplice(fd: FdNum, iov: UserAddr, count: usize, flags: u32) Partial("copies; SPLICE_F_GIFT has no effect");
    326 copy_file_range(from: FdNum, from_offset: UserAddr, to: FdNum, to_offset: UserAddr, len: usize, flags: u32);
}

const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_ALL: u32 = 0xf;
/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

fn pipe_of(file: &FileDescription) -> Option<&PipeEnd> {
    file.ops.as_any().downcast_ref::<PipeEnd>()
}

/// One side of a transfer.
struct Side {
    file: Arc<FileDescription>,
    /// A position of the caller's, and where it is written back; the description's own where `None`.
    offset: Option<(u64, UserAddr)>,
}

impl Side {
    /// `null` uses the file's own position.
    fn new(cx: &CurrentTask<'_>, file: Arc<FileDescription>, at: UserAddr) -> Result<Self, Errno> {
        if at.is_null() {
            return Ok(Side { file, offset: None });
        }
        let offset: i64 = cx.mm()?.read_obj(at)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        Ok(Side { file, offset: Some((offset, at)) })
    }

    fn position(&self) -> u64 {
        match self.offset {
            Some((offset, _)) => offset,
            None if self.file.ops.is_seekable() => *self.file.offset.lock(),
            None => 0,
        }
    }

    fn advance(&mut self, n: usize) {
        match &mut self.offset {
            Some((offset, _)) => *offset = offset.saturating_add(n as u64),
            None if self.file.ops.is_seekable() => {
                let mut offset = self.file.offset.lock();
                *offset = offset.saturating_add(n as u64);
            }
            None => {}
        }
    }

    fn write_back(&self, cx: &CurrentTask<'_>) -> Result<(), Errno> {
        match self.offset {
            Some((offset, at)) => cx.mm()?.write_obj(at, &offset),
            None => Ok(()),
        }
    }
}

/// A transfer under way.
struct MoveOp {
    from: Side,
    to: Side,
    left: usize,
    done: usize,
    /// Never wait for the source.
    eager: bool,
    nonblocking_from: bool,
    nonblocking_to: bool,
    /// Leave the source's bytes where they are (`tee`).
    copy: bool,
    /// RLIMIT_FSIZE of who moves.
    file_limit: u64,
}

/// What keeps a step from going on.
enum Stop {
    End,
    Error(Errno),
    WaitSource,
    WaitSink,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Stop::Error(errno)
    }
}

fn file_limit(cx: &CurrentTask<'_>) -> u64 {
    cx.task.group.limit(crate::kernel::limits::resource::FSIZE)
}

impl MoveOp {
    /// How much the sink takes now; a file takes anything.
    fn room(&self) -> Result<usize, Stop> {
        if !self.from.file.ops.can_splice() || !self.to.file.ops.can_splice() {
            return Err(Stop::Error(Errno::EINVAL));
        }
        let Some(pipe) = pipe_of(&self.to.file) else { return Ok(CHUNK) };
        let (room, readers) = pipe.pipe().room();
        match (readers, room) {
            (0, _) => Err(Stop::Error(Errno::EPIPE)),
            (_, 0) => Err(Stop::WaitSink),
            (_, room) => Ok(room),
        }
    }

    fn fetch(&self, max: usize) -> Result<Vec<u8>, Stop> {
        if self.copy {
            let pipe = pipe_of(&self.from.file).ok_or(Errno::EINVAL)?;
            let (bytes, writers) = pipe.pipe().peek(max);
            return match (bytes.is_empty(), writers) {
                (true, 0) => Err(Stop::End),
                (true, _) => Err(Stop::WaitSource),
                _ => Ok(bytes),
            };
        }
        let mut buf = vec![0u8; max];
        let file = &self.from.file;
        match file.read_at(&mut IoSink::kernel(&mut buf), self.from.position()) {
            Ok(0) => Err(Stop::End),
            Ok(n) => {
                buf.truncate(n);
                Ok(buf)
            }
            Err(Errno::EAGAIN) => Err(Stop::WaitSource),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives back what the sink did not take.
    fn give_back(&self, rest: &[u8]) {
        if self.copy || rest.is_empty() {
            return;
        }
        if let Some(pipe) = pipe_of(&self.from.file) {
            pipe.pipe().unread(rest);
        } else if !self.from.file.ops.is_seekable()
            && let Some(pipe) = pipe_of(&self.to.file)
        {
            // A socket or terminal cannot take bytes back; the pipe had room when they were asked for.
            pipe.pipe().force(rest);
        }
    }

    fn step(&mut self) -> Result<(), Stop> {
        let room = self.room()?;
        if pipe_of(&self.from.file).is_some()
            && self.to.file.ops.can_wait()
            && !self.to.file.ops.poll(&self.to.file).intersects(Events::OUT | Events::ERR | Events::HUP)
        {
            return Err(Stop::WaitSink);
        }
        let bytes = self.fetch(self.left.min(CHUNK).min(room))?;
        let sink = &self.to.file;
        let put = sink.write_at(&mut IoSource::kernel(&bytes).with_file_limit(self.file_limit), self.to.position());
        let n = *put.as_ref().unwrap_or(&0);
        let forced = !self.copy
            && !self.from.file.ops.is_seekable()
            && pipe_of(&self.from.file).is_none()
            && pipe_of(&self.to.file).is_some();
        self.give_back(&bytes[n..]);
        let moved = if forced { bytes.len() } else { n };
        if moved > 0 {
            if self.from.file.ops.is_seekable() {
                self.from.advance(moved);
            }
            self.to.advance(moved);
            self.left -= moved;
            self.done += moved;
            return Ok(());
        }
        match put {
            Err(Errno::EAGAIN) | Ok(_) => Err(Stop::WaitSink),
            Err(e) => Err(e.into()),
        }
    }

    fn finish(&self, cx: &mut CurrentTask<'_>, answer: Result<u64, Errno>) -> Attempt {
        if self.done == 0 {
            if answer == Err(Errno::EPIPE) {
                signal::send_sigpipe(cx);
            }
            return Attempt::Done(answer);
        }
        let written = self.from.write_back(cx).and_then(|()| self.to.write_back(cx));
        Attempt::Done(written.map(|()| self.done as u64))
    }
}

impl Op for MoveOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        while self.left > 0 {
            match self.step() {
                Ok(()) if cx.is_wanted_elsewhere() => return Attempt::Again,
                Ok(()) => {}
                Err(Stop::End) => break,
                Err(Stop::Error(e)) => return self.finish(cx, Err(e)),
                // What has been moved is an answer; splice and tee wait for the first bytes only.
                Err(_) if self.done > 0 && self.eager => break,
                Err(Stop::WaitSource) if self.nonblocking_from => return self.finish(cx, Err(Errno::EAGAIN)),
                Err(Stop::WaitSink) if self.nonblocking_to => return self.finish(cx, Err(Errno::EAGAIN)),
                Err(Stop::WaitSource | Stop::WaitSink) => return Attempt::Pending,
            }
        }
        self.finish(cx, Ok(self.done as u64))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        let waiter = cx.waiter();
        let source =
            self.from.file.ops.wait_queue().map(|q| q.enlist(Events::READABLE | Events::RDHUP, waiter.clone()));
        let sink = self.to.file.ops.wait_queue().map(|q| q.enlist(Events::WRITABLE, waiter));
        source.into_iter().chain(sink).collect()
    }

    fn interrupted(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        match self.finish(cx, Err(Errno::ERESTARTSYS)) {
            Attempt::Done(answer) => answer,
            Attempt::Pending | Attempt::Again | Attempt::Then(_) => Err(Errno::ERESTARTSYS),
        }
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Move(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "splice"
    }
}

fn pair(cx: &CurrentTask<'_>, from: FdNum, to: FdNum) -> Result<(Arc<FileDescription>, Arc<FileDescription>), Errno> {
    let fds = cx.fds()?;
    let from = fds.get(from)?;
    if !from.flags().readable() {
        return Err(Errno::EBADF);
    }
    let to = fds.get(to)?;
    if !to.flags().writable() {
        return Err(Errno::EBADF);
    }
    Ok((from, to))
}

fn sendfile(cx: &mut CurrentTask<'_>, out: FdNum, from: FdNum, offset: UserAddr, count: usize) -> SyscallResult {
    // A bad offset pointer is EFAULT before anything else.
    let given: Option<i64> = if offset.is_null() { None } else { Some(cx.mm()?.read_obj(offset)?) };
    let fds = cx.fds()?;
    let source = fds.get(from)?;
    if !source.flags().readable() {
        return Err(Errno::EBADF);
    }
    if given.is_some() && !source.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    if given.is_some_and(|o| o < 0) || isize::try_from(count).is_err() {
        return Err(Errno::EINVAL);
    }
    let sink = fds.get(out)?;
    if !sink.flags().writable() {
        return Err(Errno::EBADF);
    }
    let to_pipe = pipe_of(&sink).is_some();
    if !to_pipe && (!source.ops.is_seekable() || sink.flags().contains(OpenFlags::APPEND)) {
        return Err(Errno::EINVAL);
    }
    if pipe_of(&source).is_some() {
        return Err(Errno::EINVAL);
    }
    let nonblocking_to = sink.is_nonblocking();
    let left = count.min(MAX_RW_COUNT);
    let from = Side::new(cx, source, offset)?;
    let to = Side { file: sink, offset: None };
    let op = MoveOp {
        nonblocking_from: from.file.is_nonblocking(),
        from,
        to,
        left,
        done: 0,
        eager: to_pipe,
        nonblocking_to,
        copy: false,
        file_limit: file_limit(cx),
    };
    op::start(cx, op)
}

fn splice(
    cx: &mut CurrentTask<'_>,
    from: FdNum,
    from_offset: UserAddr,
    to: FdNum,
    to_offset: UserAddr,
    len: usize,
    flags: u32,
) -> SyscallResult {
    if len == 0 {
        return ok();
    }
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let fds = cx.fds()?;
    let (source, sink) = (fds.get(from)?, fds.get(to)?);
    let (source_pipe, sink_pipe) = (pipe_of(&source), pipe_of(&sink));
    if (source_pipe.is_some() && !from_offset.is_null()) || (sink_pipe.is_some() && !to_offset.is_null()) {
        return Err(Errno::ESPIPE);
    }
    if !source.flags().readable() || !sink.flags().writable() {
        return Err(Errno::EBADF);
    }
    match (source_pipe, sink_pipe) {
        (None, None) => return Err(Errno::EINVAL),
        (Some(a), Some(b)) if Arc::ptr_eq(a.pipe(), b.pipe()) => return Err(Errno::EINVAL),
        _ => {}
    }
    let unplaceable = |file: &FileDescription, at: UserAddr| !at.is_null() && !file.ops.is_seekable();
    if unplaceable(&source, from_offset) || unplaceable(&sink, to_offset) {
        return Err(Errno::EINVAL);
    }
    if sink_pipe.is_none() && sink.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let nonblocking_from = nonblock || source.is_nonblocking();
    let nonblocking_to = nonblock || sink.is_nonblocking();
    let from = Side::new(cx, source, from_offset)?;
    let to = Side::new(cx, sink, to_offset)?;
    let left = len.min(MAX_RW_COUNT);
    op::start(
        cx,
        MoveOp {
            from,
            to,
            left,
            done: 0,
            eager: true,
            nonblocking_from,
            nonblocking_to,
            copy: false,
            file_limit: file_limit(cx),
        },
    )
}

fn tee(cx: &mut CurrentTask<'_>, from: FdNum, to: FdNum, len: usize, flags: u32) -> SyscallResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return ok();
    }
    let (source, sink) = pair(cx, from, to)?;
    match (pipe_of(&source), pipe_of(&sink)) {
        (Some(a), Some(b)) if !Arc::ptr_eq(a.pipe(), b.pipe()) => {}
        _ => return Err(Errno::EINVAL),
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let nonblocking_from = nonblock || source.is_nonblocking();
    let nonblocking_to = nonblock || sink.is_nonblocking();
    let (from, to) = (Side { file: source, offset: None }, Side { file: sink, offset: None });
    op::start(
        cx,
        TeeOp(MoveOp {
            from,
            to,
            left: len,
            done: 0,
            eager: true,
            nonblocking_from,
            nonblocking_to,
            copy: true,
            file_limit: u64::MAX,
        }),
    )
}

/// `tee`: one step only, since a second would copy the same bytes again.
struct TeeOp(MoveOp);

impl Op for TeeOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        self.0.left = self.0.left.min(CHUNK);
        match self.0.step() {
            Ok(()) | Err(Stop::End) => self.0.finish(cx, Ok(self.0.done as u64)),
            Err(Stop::Error(e)) => self.0.finish(cx, Err(e)),
            Err(Stop::WaitSource) if self.0.nonblocking_from => Attempt::Done(Err(Errno::EAGAIN)),
            Err(Stop::WaitSink) if self.0.nonblocking_to => Attempt::Done(Err(Errno::EAGAIN)),
            Err(_) => Attempt::Pending,
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        self.0.enlist(cx)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Move(self.0.state(saver)))
    }

    fn name(&self) -> &'static str {
        "tee"
    }
}

fn vmsplice(cx: &mut CurrentTask<'_>, fd: FdNum, iov: UserAddr, count: usize, flags: u32) -> SyscallResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let file = cx.fds()?.get(fd)?;
    if pipe_of(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let write = file.flags().writable();
    let cursor = IoCursor::from_guest(&*cx.mm()?, iov, count)?;
    if cursor.remaining() == 0 {
        return ok();
    }
    read_write::start(cx, file, cursor, write, None, flags & SPLICE_F_NONBLOCK != 0)
}

fn copy_file_range(
    cx: &mut CurrentTask<'_>,
    from: FdNum,
    from_offset: UserAddr,
    to: FdNum,
    to_offset: UserAddr,
    len: usize,
    flags: u32,
) -> SyscallResult {
    let fds = cx.fds()?;
    let (source, sink) = (fds.get(from)?, fds.get(to)?);
    let from = Side::new(cx, source.clone(), from_offset)?;
    let to = Side::new(cx, sink.clone(), to_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = |file: &FileDescription| file.inode.as_ref().map(|i| i.attr().kind);
    for file in [&source, &sink] {
        match kind(file) {
            Some(FileType::Directory) => return Err(Errno::EISDIR),
            Some(FileType::Regular) => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    if !source.flags().readable() || !sink.flags().writable() || sink.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    let same = source.inode.as_ref().map(|i| i.attr().key) == sink.inode.as_ref().map(|i| i.attr().key);
    let (start, end) = (from.position(), to.position());
    let size = source.inode.as_ref().map_or(0, |i| i.attr().size);
    let left = len.min(MAX_RW_COUNT).min(usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX));
    if end.checked_add(len as u64).is_none() || start.checked_add(len as u64).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    if same && start < end.saturating_add(left as u64) && end < start.saturating_add(left as u64) {
        return Err(Errno::EINVAL);
    }
    if left == 0 {
        return ret(0u64);
    }
    let op = MoveOp {
        from,
        to,
        left,
        done: 0,
        eager: false,
        nonblocking_from: true,
        nonblocking_to: true,
        copy: false,
        file_limit: file_limit(cx),
    };
    op::start(cx, op)
}
