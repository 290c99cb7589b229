//! FIFOs: pipes found by an inode, whose opening waits for the other side (`fifo(7)`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::pipe::Pipe;
use crate::fs::pipe::saved::PipeState;
use crate::kernel::Kernel;
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::sync::{Level, Mutex};
use crate::vfs::path::PathRef;
use crate::vfs::saved::FileState;
use crate::vfs::{FileDescription, Inode, InodeKey, OpenFlags};

/// The pipes of FIFO inodes that are open somewhere.
pub struct Fifos {
    open: Mutex<HashMap<InodeKey, Weak<Pipe>>>,
}

impl Default for Fifos {
    fn default() -> Self {
        Fifos { open: Mutex::new(Level::Leaf, HashMap::new()) }
    }
}

impl Fifos {
    /// Those that are open, for saved state.
    #[must_use]
    pub fn open_pipes(&self) -> Vec<(InodeKey, Arc<Pipe>)> {
        let open = self.open.lock();
        open.iter().filter_map(|(key, pipe)| Some((*key, pipe.upgrade()?))).collect()
    }

    /// Makes `pipe` that of a FIFO's inode.
    pub fn put(&self, key: InodeKey, pipe: &Arc<Pipe>) {
        self.open.lock().insert(key, Arc::downgrade(pipe));
    }

    fn get(&self, kernel: &Kernel, key: InodeKey) -> Arc<Pipe> {
        let mut open = self.open.lock();
        if let Some(pipe) = open.get(&key).and_then(Weak::upgrade) {
            return pipe;
        }
        open.retain(|_, pipe| pipe.strong_count() > 0);
        let pipe = Pipe::new(kernel.clock.realtime());
        open.insert(key, Arc::downgrade(&pipe));
        pipe
    }
}

/// Opens the FIFO of `inode`: waits for the other side unless O_NONBLOCK or O_RDWR; answers the new descriptor.
///
/// # Errors
/// `ENXIO` for a non-blocking writer without a reader.
pub fn open(cx: &mut CurrentTask<'_>, inode: Arc<dyn Inode>, path: PathRef, flags: OpenFlags) -> SyscallResult {
    let pipe = cx.kernel().fifos.get(cx.kernel(), inode.attr().key);
    let (read, write) = (flags.readable(), flags.writable());
    if write && !read && flags.contains(OpenFlags::NONBLOCK) && pipe.state.lock().readers == 0 {
        return Err(Errno::ENXIO);
    }
    let (readers, writers) = {
        let state = pipe.state.lock();
        (state.reader_opens, state.writer_opens)
    };
    let end = pipe.end(read, write);
    let file = FileDescription::new(Arc::new(end), flags, Some(path), Some(inode));
    let waits = !(flags.contains(OpenFlags::NONBLOCK) || read && write);
    op::start(cx, OpenOp { pipe, file, flags, waits, readers, writers })
}

struct OpenOp {
    pipe: Arc<Pipe>,
    file: Arc<FileDescription>,
    flags: OpenFlags,
    waits: bool,
    /// Openings seen before ours: one more of the other kind, even if gone again, lets us through.
    readers: u64,
    writers: u64,
}

/// [`OpenOp`] as saved state.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct OpenState {
    pipe: Id<PipeState>,
    file: Id<FileState>,
    flags: u32,
    waits: bool,
    readers: u64,
    writers: u64,
}

impl OpenState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let OpenState { pipe, file, flags, waits, readers, writers } = self;
        let (pipe, file) = (restorer.pipe(pipe)?, restorer.file(file)?);
        Ok(Box::new(OpenOp { pipe, file, flags: OpenFlags::from_bits_retain(flags), waits, readers, writers }))
    }
}

impl OpenOp {
    fn has_peer(&self) -> bool {
        let state = self.pipe.state.lock();
        if self.flags.readable() {
            state.writers > 0 || state.writer_opens > self.writers
        } else {
            state.readers > 0 || state.reader_opens > self.readers
        }
    }
}

impl Op for OpenOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if self.waits && !self.has_peer() {
            return Attempt::Pending;
        }
        let cloexec = self.flags.contains(OpenFlags::CLOEXEC);
        let installed =
            cx.fds().and_then(|fds| fds.install(self.file.clone(), cloexec, 0, crate::syscalls::fd::nofile(cx)));
        Attempt::Done(installed.map(|fd| u64::from(fd.0.cast_unsigned())))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.pipe.queue.enlist(Events::all(), cx.waiter())]
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let OpenOp { pipe, file, flags, waits, readers, writers } = self;
        let (pipe, file) = (saver.pipes.id(pipe), saver.files.id(file));
        let (flags, readers, writers) = (flags.bits(), *readers, *writers);
        Ok(OpState::OpenFifo(OpenState { pipe, file, flags, waits: *waits, readers, writers }))
    }

    fn name(&self) -> &'static str {
        "fifo_open"
    }
}
