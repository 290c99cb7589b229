//! Standard streams that are the host's: descriptors handed over at boot and passed through.
//!
//! A descriptor whose open file is shared with processes outside keeps its O_NONBLOCK as it was: such a stream is polled
//! before each read or write, and written in pieces that fit (PIPE_BUF). Pipes and terminals mostly arrive with an open
//! file of their own, which does not block.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use abi::{Errno, Timespec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{SFlag, fstat};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::anon;
use crate::fs::host_gate::Gate;
use crate::kernel::reactor::{HostWatch, Reactor};
use crate::kernel::wait::{Events, WaitQueue};
use crate::vfs::{Attr, FileDescription, FileOps, FileType, IoSink, IoSource, OpenFlags, Whence};

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;
/// A ready pipe or terminal takes this much without blocking.
const PIPE_BUF: usize = 4096;

/// A host descriptor as a guest file.
pub struct HostFile {
    // Before the descriptor, so that it is unwatched first.
    watch: Option<HostWatch>,
    fd: OwnedFd,
    /// Which stream it is: a restore is given it anew by this name.
    name: &'static str,
    kind: FileType,
    /// Whom to ask before each read.
    gate: Option<Gate>,
    /// Reads and writes of the descriptor answer EAGAIN by themselves where they would wait.
    nonblocking: bool,
    attr: Attr,
}

fn errno(e: nix::errno::Errno) -> Errno {
    Errno::from_raw(e as i32)
}

impl HostFile {
    /// The name of what no restore is given anew: the null device takes its place.
    pub const UNNAMED: &'static str = "";

    /// Wraps `fd`; streams are watched by the reactor.
    ///
    /// # Errors
    /// What `fstat` or `epoll_ctl` say.
    pub fn open(reactor: &Arc<Reactor>, fd: OwnedFd, name: &'static str) -> std::io::Result<Arc<FileDescription>> {
        let (file, flags) = Self::stream(reactor, fd, name)?;
        Ok(FileDescription::anonymous(file, flags))
    }

    /// The same for a terminal that is read only with leave, which `gate` gives ([`Gate`]).
    ///
    /// # Errors
    /// As [`HostFile::open`].
    pub fn open_gated(
        reactor: &Arc<Reactor>,
        fd: OwnedFd,
        name: &'static str,
        gate: OwnedFd,
    ) -> std::io::Result<Arc<FileDescription>> {
        let (file, flags) = Self::make(reactor, fd, name, Some(gate))?;
        Ok(FileDescription::anonymous(file, flags))
    }

    /// The same, without an open file around it, and the flags that one has.
    ///
    /// # Errors
    /// As [`HostFile::open`].
    pub fn stream(reactor: &Arc<Reactor>, fd: OwnedFd, name: &'static str) -> std::io::Result<(Arc<Self>, OpenFlags)> {
        Self::make(reactor, fd, name, None)
    }

    fn make(
        reactor: &Arc<Reactor>,
        fd: OwnedFd,
        name: &'static str,
        gate: Option<OwnedFd>,
    ) -> std::io::Result<(Arc<Self>, OpenFlags)> {
        let stat = fstat(&fd)?;
        let kind = FileType::from_mode(stat.st_mode).unwrap_or(FileType::Fifo);
        let watch = match kind {
            FileType::Regular | FileType::Directory | FileType::BlockDevice => None,
            // Some character devices (/dev/null) cannot be polled; they never wait either.
            _ => reactor.watch(&fd).ok(),
        };
        let mode = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL)?;
        let keep = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND;
        let flags = OpenFlags::from_bits_retain(mode.cast_unsigned()).intersection(keep);
        let nonblocking = mode & libc::O_NONBLOCK != 0;
        let perm = stat.st_mode & !SFlag::S_IFMT.bits() & 0o777;
        let attr = Attr {
            size: stat.st_size.max(0).cast_unsigned(),
            ..anon::attr(kind, perm, anon::next_ino(), Timespec::from_nanos(0))
        };
        let gate = match (gate, &watch) {
            (Some(socket), Some(watch)) => Some(Gate::open(reactor, socket, watch.queue())?),
            _ => None,
        };
        Ok((Arc::new(HostFile { watch, fd, name, kind, gate, nonblocking, attr }), flags))
    }

    fn ready(&self, flags: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(self.fd.as_fd(), flags)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds[0].revents().unwrap_or(PollFlags::empty()),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Whether a transfer would block this thread: asked where the descriptor does not tell by itself.
    fn would_wait(&self, events: PollFlags) -> bool {
        !self.nonblocking && self.watch.is_some() && self.ready(events).is_empty()
    }

    fn most_at_once(&self) -> usize {
        let may_block = self.watch.is_some() && !self.nonblocking && self.kind != FileType::Socket;
        if may_block { PIPE_BUF } else { CHUNK }
    }

    fn read_some(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.kind == FileType::Socket {
            return recv(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT).map_err(errno);
        }
        let Some(gate) = &self.gate else { return self.read_now(buf) };
        gate.pass()?;
        let read = self.read_now(buf);
        if read.is_ok() {
            gate.used();
        }
        read
    }

    fn read_now(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.would_wait(PollFlags::POLLIN) {
            return Err(Errno::EAGAIN);
        }
        nix::unistd::read(&self.fd, buf).map_err(errno)
    }

    fn write_some(&self, buf: &[u8]) -> Result<usize, Errno> {
        if self.kind == FileType::Socket {
            return send(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map_err(errno);
        }
        if self.would_wait(PollFlags::POLLOUT) {
            return Err(Errno::EAGAIN);
        }
        nix::unistd::write(&self.fd, buf).map_err(errno)
    }
}

impl FileOps for HostFile {
    fn save(&self, _file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Host(self.name.to_owned()))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut buf = vec![0u8; dst.remaining().min(CHUNK)];
        let n = self.read_some(&mut buf)?;
        dst.put(&buf[..n])
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut buf = vec![0u8; src.remaining().min(self.most_at_once())];
        let mut written = 0;
        while src.remaining() > 0 {
            // Only what the host has taken may leave the source.
            let n = src.peek(&mut buf)?;
            match self.write_some(&buf[..n]) {
                Ok(n) => {
                    src.skip(n);
                    written += n;
                }
                Err(Errno::EINTR) => {}
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            }
        }
        Ok(written)
    }

    fn seek(&self, _file: &FileDescription, _current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        use nix::unistd::Whence as Host;
        if self.kind != FileType::Regular {
            return Err(Errno::ESPIPE);
        }
        let whence = match whence {
            Whence::Set => Host::SeekSet,
            Whence::Current => Host::SeekCur,
            Whence::End => Host::SeekEnd,
            Whence::Data => Host::SeekData,
            Whence::Hole => Host::SeekHole,
        };
        nix::unistd::lseek(&self.fd, offset, whence).map(i64::cast_unsigned).map_err(errno)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.watch.is_none() {
            return Events::READABLE | Events::WRITABLE;
        }
        let flags = self.ready(PollFlags::POLLIN | PollFlags::POLLOUT);
        let mut events = Events::from_bits_retain(u32::from(flags.bits().cast_unsigned()));
        if events.contains(Events::IN) {
            events |= Events::READABLE;
        }
        if events.contains(Events::OUT) {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.watch.as_ref().map(HostWatch::queue)
    }

    fn attr(&self) -> Option<Attr> {
        let mut attr = self.attr;
        if let Ok(stat) = fstat(&self.fd) {
            attr.size = stat.st_size.max(0).cast_unsigned();
        }
        Some(attr)
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        if self.kind == FileType::Regular { nix::unistd::fsync(&self.fd).map_err(errno) } else { Err(Errno::EINVAL) }
    }

    fn describe(&self) -> String {
        let name = match self.kind {
            FileType::Fifo => "pipe",
            FileType::Socket => "socket",
            _ => "host",
        };
        format!("{name}:[{}]", self.attr.key.ino)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
