//! Open files: what descriptors name.

pub mod saved;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, UserAddr};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{Op, SyscallResult};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::mm::mappable::Mappable;
use crate::sync::{Level, Mutex};
use crate::vfs::inode::{Attr, Inode};
use crate::vfs::io::{IoCursor, IoSink, IoSource};
use crate::vfs::locks::LockOwner;
use crate::vfs::notify::event;
use crate::vfs::path::PathRef;

bitflags::bitflags! {
    /// `open(2)` flags, x86-64 values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OpenFlags: u32 {
        /// Write only.
        const WRONLY = 1;
        /// Read and write.
        const RDWR = 2;
        /// Create.
        const CREAT = 0o100;
        /// Must be new.
        const EXCL = 0o200;
        /// Don't become the controlling terminal.
        const NOCTTY = 0o400;
        /// Empty it.
        const TRUNC = 0o1000;
        /// Writes go to the end.
        const APPEND = 0o2000;
        /// Never wait.
        const NONBLOCK = 0o4000;
        /// O_DSYNC.
        const DSYNC = 0o10000;
        /// SIGIO on readiness.
        const ASYNC = 0o20000;
        /// O_DIRECT.
        const DIRECT = 0o40000;
        /// O_LARGEFILE; always on, never shown.
        const LARGEFILE = 0o100000;
        /// Must be a directory.
        const DIRECTORY = 0o200000;
        /// Don't follow a final symlink.
        const NOFOLLOW = 0o400000;
        /// Don't touch atime.
        const NOATIME = 0o1000000;
        /// Close on exec.
        const CLOEXEC = 0o2000000;
        /// __O_SYNC.
        const SYNC = 0o4000000;
        /// A place, not an open file.
        const PATH = 0o10000000;
        /// __O_TMPFILE.
        const TMPFILE = 0o20000000;
    }
}

impl OpenFlags {
    /// Flags that `fcntl(F_SETFL)` may change.
    pub const SETTABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME);

    /// Whether the access mode lets read.
    #[must_use]
    pub fn readable(self) -> bool {
        !self.contains(OpenFlags::WRONLY) && !self.contains(OpenFlags::PATH)
    }

    /// Whether the access mode lets write.
    #[must_use]
    pub fn writable(self) -> bool {
        self.intersects(OpenFlags::WRONLY | OpenFlags::RDWR) && !self.contains(OpenFlags::PATH)
    }
}

/// `lseek(2)`'s origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_SET.
    Set,
    /// SEEK_CUR.
    Current,
    /// SEEK_END.
    End,
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// Where a magic link leads.
pub enum Target {
    /// A place in the tree.
    Path(PathRef),
    /// An open file (a pipe, a deleted file): opening it opens its inode anew; an anonymous one is shared.
    File(Arc<FileDescription>),
}

/// What an open file can do. None of these waits: what would is `EAGAIN`, and the caller waits on
/// [`FileOps::wait_queue`] and tries again, unless the file is non-blocking.
pub trait FileOps: Send + Sync {
    /// Reads at `offset` (streams ignore it) into `dst`; answers the bytes read, 0 at the end.
    ///
    /// # Errors
    /// `EAGAIN` where it would wait; `EISDIR`; `EINVAL` where it cannot be read.
    fn read(&self, _file: &FileDescription, _dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes from `src` at `offset` (streams ignore it); answers the bytes written. The caller has turned O_APPEND
    /// into no offset rule: a regular file with that flag looks at `file.flags()` itself, under its own lock, and says
    /// by [`FileOps::append_end`] where it ended.
    ///
    /// # Errors
    /// `EAGAIN` where it would wait; `EPIPE` (the caller raises SIGPIPE); `ENOSPC`; `EFBIG`.
    fn write(&self, _file: &FileDescription, _src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// The offset behind an appending write: the file's size.
    fn append_end(&self) -> Option<u64> {
        None
    }

    /// Whether it has a position (`lseek`, `pread`); streams do not (`ESPIPE`).
    fn is_seekable(&self) -> bool {
        false
    }

    /// The call itself, where a read or write of a program waits for more than readiness: terminals have job control,
    /// VMIN and VTIME. `None`: the usual retry on [`FileOps::wait_queue`].
    fn transfer_op(&self, _file: &Arc<FileDescription>, _cursor: &IoCursor, _write: bool) -> Option<Box<dyn Op>> {
        None
    }

    /// Whether reads and writes can wait, so that the caller's Op is worth its while.
    fn can_wait(&self) -> bool {
        self.wait_queue().is_some()
    }

    /// Whether `splice` and `sendfile` move bytes to or from it: most files made of a kernel object do not.
    fn can_splice(&self) -> bool {
        true
    }

    /// The new absolute position for `lseek`, given the current one.
    ///
    /// # Errors
    /// `ESPIPE`; `EINVAL` for a negative result; `ENXIO` for SEEK_DATA past the end.
    fn seek(&self, _file: &FileDescription, _current: u64, _offset: i64, _whence: Whence) -> Result<u64, Errno> {
        Err(Errno::ESPIPE)
    }

    /// Readiness now. Files that never wait are always ready.
    fn poll(&self, _file: &FileDescription) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    /// Woken at every change of [`FileOps::poll`].
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Device and socket controls. `arg` is the third argument, often a guest address.
    ///
    /// # Errors
    /// `ENOTTY` for a command it has not.
    fn ioctl(&self, _cx: &mut CurrentTask<'_>, _file: &FileDescription, _cmd: u32, _arg: UserAddr) -> SyscallResult {
        Err(Errno::ENOTTY)
    }

    /// What stands behind a mapping of it.
    ///
    /// # Errors
    /// `ENODEV` where it cannot be mapped.
    fn mappable(&self, _file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENODEV)
    }

    /// Changes its length (`ftruncate`).
    ///
    /// # Errors
    /// `EINVAL` where it has none.
    fn truncate(&self, _file: &FileDescription, _size: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for modes it has not; `ENODEV` where it is no regular file; `ESPIPE` for pipes.
    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }

    /// `fsync(2)`.
    ///
    /// # Errors
    /// `EINVAL` where it makes no sense (pipes, sockets).
    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Lists a directory from `from`; see [`crate::vfs::DirOps::list`].
    ///
    /// # Errors
    /// `ENOTDIR`.
    fn list(
        &self,
        _cx: &crate::vfs::Caller<'_>,
        _from: u64,
        _emit: &mut dyn FnMut(crate::vfs::DirEntry) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Attributes of a file without an inode of the tree (pipes, sockets, eventfds).
    fn attr(&self) -> Option<Attr> {
        None
    }

    /// A descriptor of it is being closed (`close`, `dup2`, exit), not necessarily the last.
    fn flush(&self, _cx: &CurrentTask<'_>, _file: &FileDescription) {}

    /// The last reference is going: let go of what must not wait for `Drop`.
    fn release(&self, _file: &FileDescription) {}

    /// What `/proc/PID/fd/N` shows for a file without a path, such as `pipe:[12]` or `anon_inode:[eventfd]`.
    fn describe(&self) -> String {
        "anon_inode:[unknown]".to_owned()
    }

    /// What stands for it in saved state; `file` is open by it.
    ///
    /// # Errors
    /// Where it cannot be saved.
    fn save(&self, file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused>;

    /// For downcasts by the subsystem that made it (sockets, epoll, pipes).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An open file: shared by dup'ed and inherited descriptors.
pub struct FileDescription {
    /// What it can do.
    pub ops: Arc<dyn FileOps>,
    /// Its place in the tree, where it has one.
    pub path: Option<PathRef>,
    /// Its inode, where it has one (also after its name is gone).
    pub inode: Option<Arc<dyn Inode>>,
    flags: AtomicU32,
    /// The position.
    pub offset: Mutex<u64>,
    /// Holder of its open file description locks and of its `flock`.
    pub lock_owner: LockOwner,
}

impl FileDescription {
    /// An open file. `flags` keep access mode and status flags; creation flags are dropped.
    #[must_use]
    pub fn new(
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
        path: Option<PathRef>,
        inode: Option<Arc<dyn Inode>>,
    ) -> Arc<Self> {
        let creation = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC | OpenFlags::CLOEXEC;
        if let Some(path) = &path {
            path.dentry.opened();
            if !flags.contains(OpenFlags::PATH) {
                path.notify(event::OPEN);
            }
        }
        Arc::new(FileDescription {
            ops,
            path,
            inode,
            flags: AtomicU32::new(flags.difference(creation).bits()),
            offset: Mutex::new(Level::FileOffset, 0),
            lock_owner: LockOwner::default(),
        })
    }

    /// A file without a place in the tree: pipe, socket, eventfd, ...
    #[must_use]
    pub fn anonymous(ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<Self> {
        Self::new(ops, flags, None, None)
    }

    /// Access mode and status flags.
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// `fcntl(F_SETFL)`: changes the flags that may be.
    pub fn set_flags(&self, flags: OpenFlags) {
        let keep = self.flags().difference(OpenFlags::SETTABLE);
        self.flags.store(keep.union(flags.intersection(OpenFlags::SETTABLE)).bits(), Ordering::Relaxed);
    }

    /// Whether calls must not wait.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }

    /// Reads at the position and moves it. Positions are per description, so concurrent reads take turns.
    ///
    /// # Errors
    /// `EBADF` where it is not open for reading; what the file says.
    pub fn read(&self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        if !self.flags().readable() {
            return Err(Errno::EBADF);
        }
        if !self.ops.is_seekable() {
            return self.read_at(dst, 0);
        }
        let n = {
            let mut offset = self.offset.lock();
            let n = self.ops.read(self, dst, *offset)?;
            *offset = offset.saturating_add(n as u64);
            n
        };
        self.transferred(n, event::ACCESS);
        Ok(n)
    }

    /// Reads at a position of the caller's; the access mode has been checked.
    ///
    /// # Errors
    /// What the file says.
    pub fn read_at(&self, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let n = self.ops.read(self, dst, offset)?;
        self.transferred(n, event::ACCESS);
        Ok(n)
    }

    /// Writes at a position of the caller's; the access mode has been checked.
    ///
    /// # Errors
    /// What the file says.
    pub fn write_at(&self, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        let n = self.ops.write(self, src, offset)?;
        self.transferred(n, event::MODIFY);
        Ok(n)
    }

    fn transferred(&self, n: usize, mask: u32) {
        if let Some(path) = self.path.as_ref().filter(|_| n > 0) {
            path.notify(mask);
        }
    }

    /// Writes at the position (or the end, with O_APPEND) and moves it.
    ///
    /// # Errors
    /// `EBADF` where it is not open for writing; what the file says.
    pub fn write(&self, src: &mut IoSource<'_>) -> Result<usize, Errno> {
        if !self.flags().writable() {
            return Err(Errno::EBADF);
        }
        if !self.ops.is_seekable() {
            return self.write_at(src, 0);
        }
        let n = {
            let mut offset = self.offset.lock();
            let n = self.ops.write(self, src, *offset)?;
            let appended = if self.flags().contains(OpenFlags::APPEND) { self.ops.append_end() } else { None };
            *offset = appended.unwrap_or(offset.saturating_add(n as u64));
            n
        };
        self.transferred(n, event::MODIFY);
        Ok(n)
    }
}

impl Drop for FileDescription {
    fn drop(&mut self) {
        self.ops.clone().release(self);
        let Some(path) = &self.path else { return };
        path.dentry.closed();
        if !self.flags().contains(OpenFlags::PATH) {
            path.notify(if self.flags().writable() { event::CLOSE_WRITE } else { event::CLOSE_NOWRITE });
        }
        if path.dentry.is_deleted() {
            path.dentry.notify_if_gone(&path.mount.watches);
        }
    }
}
