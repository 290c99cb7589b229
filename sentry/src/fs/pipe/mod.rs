//! Pipes and FIFOs (`pipe(7)`): a bounded buffer between readers and writers.

mod buffer;
pub mod fifo;
pub mod saved;

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::anon;
use crate::fs::pipe::buffer::Buffer;
use crate::kernel::Kernel;
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{Attr, FileDescription, FileOps, FileType, IoSink, IoSource, OpenFlags};

/// Bytes of a new pipe.
pub const DEFAULT_CAPACITY: usize = 64 << 10;
/// Most bytes an unprivileged F_SETPIPE_SZ gives (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;
/// Writes of at most this many bytes are not interleaved.
pub const PIPE_BUF: usize = 4096;

struct State {
    buffer: Buffer,
    readers: u32,
    writers: u32,
    /// How often a reader or writer came, for FIFO opens that wait for one.
    reader_opens: u64,
    writer_opens: u64,
}

/// A pipe.
pub struct Pipe {
    state: Mutex<State>,
    queue: WaitQueue,
    attr: Attr,
}

impl Pipe {
    /// An empty pipe without ends.
    #[must_use]
    pub fn new(now: i64) -> Arc<Self> {
        let attr = anon::attr(FileType::Fifo, 0o600, anon::next_ino(), Timespec::from_nanos(now));
        let state =
            State { buffer: Buffer::new(DEFAULT_CAPACITY), readers: 0, writers: 0, reader_opens: 0, writer_opens: 0 };
        Arc::new(Pipe { state: Mutex::new(Level::File, state), queue: WaitQueue::new(), attr })
    }

    /// A new end. It counts as reader and writer as said, until dropped.
    #[must_use]
    pub fn end(self: &Arc<Self>, read: bool, write: bool) -> PipeEnd {
        let mut state = self.state.lock();
        state.readers += u32::from(read);
        state.reader_opens += u64::from(read);
        state.writers += u32::from(write);
        state.writer_opens += u64::from(write);
        drop(state);
        self.queue.wake(Events::all());
        PipeEnd { pipe: self.clone(), read, write }
    }

    /// Bytes that fit now, and how many readers there are.
    #[must_use]
    pub fn room(&self) -> (usize, u32) {
        let state = self.state.lock();
        (state.buffer.room(), state.readers)
    }

    /// The first `max` bytes, left in the pipe, and how many writers there are.
    #[must_use]
    pub fn peek(&self, max: usize) -> (Vec<u8>, u32) {
        let state = self.state.lock();
        (state.buffer.peek(max), state.writers)
    }

    /// Puts bytes back at the front that were read and could not be used.
    pub fn unread(&self, bytes: &[u8]) {
        self.state.lock().buffer.unread(bytes);
        self.queue.wake(Events::READABLE);
    }

    /// Adds bytes whatever the room, where they would be lost otherwise.
    pub fn force(&self, bytes: &[u8]) {
        self.state.lock().buffer.force(bytes);
        self.queue.wake(Events::READABLE);
    }

    /// Bytes that wait to be read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.state.lock().buffer.capacity()
    }

    /// `fcntl(F_SETPIPE_SZ)`: rounds up to a power of two of pages, as Linux does; answers the new capacity.
    ///
    /// # Errors
    /// `EBUSY` where more bytes wait; `EPERM` past the limit without CAP_SYS_RESOURCE; `EINVAL` for zero.
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> Result<usize, Errno> {
        if bytes == 0 || bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = bytes.max(4096).next_power_of_two();
        if size > MAX_CAPACITY && !privileged {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        if state.buffer.len() > size {
            return Err(Errno::EBUSY);
        }
        state.buffer.set_capacity(size);
        drop(state);
        self.queue.wake(Events::WRITABLE);
        Ok(size)
    }
}

/// A new pipe's two files, reading and writing end.
#[must_use]
pub fn pipe(kernel: &Kernel, flags: OpenFlags) -> (Arc<FileDescription>, Arc<FileDescription>) {
    let pipe = Pipe::new(kernel.clock.realtime());
    let reader = FileDescription::anonymous(Arc::new(pipe.end(true, false)), flags);
    let writer = FileDescription::anonymous(Arc::new(pipe.end(false, true)), flags | OpenFlags::WRONLY);
    (reader, writer)
}

/// An open end of a pipe (both, for a FIFO opened O_RDWR).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
}

impl PipeEnd {
    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl FileOps for PipeEnd {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Pipe(self.state(saver)))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state.lock();
        if state.buffer.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let n = state.buffer.read(dst)?;
        drop(state);
        self.pipe.queue.wake(Events::WRITABLE);
        Ok(n)
    }

    fn write(&self, file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        let len = src.remaining();
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        if len == 0 {
            return Ok(0);
        }
        let room = state.buffer.room();
        // Up to PIPE_BUF goes in whole or not at all (pipe(7)).
        if room == 0 || (len <= PIPE_BUF && room < len) {
            return Err(Errno::EAGAIN);
        }
        let n = state.buffer.write(src, len.min(room), file.flags().contains(OpenFlags::DIRECT))?;
        drop(state);
        self.pipe.queue.wake(Events::READABLE);
        Ok(n)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        let state = self.pipe.state.lock();
        let mut events = Events::default();
        if self.read {
            if !state.buffer.is_empty() {
                events |= Events::READABLE;
            }
            if state.writers == 0 && state.writer_opens > 0 {
                events |= Events::HUP;
            }
        }
        if self.write {
            if state.buffer.room() >= PIPE_BUF {
                events |= Events::WRITABLE;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, cx: &mut CurrentTask<'_>, _file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
        if u64::from(cmd) != libc::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let len = i32::try_from(self.pipe.len()).map_err(|_| Errno::EOVERFLOW)?;
        cx.mm()?.write_obj(arg, &len)?;
        ok()
    }

    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ESPIPE)
    }

    fn attr(&self) -> Option<Attr> {
        Some(self.pipe.attr)
    }

    fn describe(&self) -> String {
        format!("pipe:[{}]", self.pipe.attr.key.ino)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= u32::from(self.read);
        state.writers -= u32::from(self.write);
        drop(state);
        self.pipe.queue.wake(Events::all());
    }
}
