//! A socket as an open file.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::anon;
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::net::control::Control;
use crate::net::options::SocketOptions;
use crate::net::socket::{MsgFlags, Socket};
use crate::net::unix::UnixSocket;
use crate::net::unix::saved::UnixState;
use crate::sync::{Level, Mutex};
use crate::vfs::{Attr, FileDescription, FileOps, FileType, IoSink, IoSource, OpenFlags};

/// What a socket's description holds.
pub struct SocketFile {
    /// The socket.
    pub socket: Arc<dyn Socket>,
    /// Options that all sockets have.
    pub options: Mutex<SocketOptions>,
    attr: Attr,
}

impl SocketFile {
    /// `socket` as an open file.
    #[must_use]
    pub fn open(socket: Arc<dyn Socket>, flags: OpenFlags, now: i64) -> Arc<FileDescription> {
        let attr = anon::attr(FileType::Socket, 0o777, anon::next_ino(), Timespec::from_nanos(now));
        let options = Mutex::new(Level::Leaf, SocketOptions::default());
        let file = SocketFile { socket, options, attr };
        FileDescription::anonymous(Arc::new(file), flags.difference(OpenFlags::CLOEXEC) | OpenFlags::RDWR)
    }

    /// The socket behind an open file.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    pub fn of(file: &FileDescription) -> Result<&SocketFile, Errno> {
        file.ops.as_any().downcast_ref::<SocketFile>().ok_or(Errno::ENOTSOCK)
    }
}

/// A Unix socket's [`SocketFile`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct SocketFileState {
    socket: Id<UnixState>,
    options: SocketOptions,
    attr: Attr,
}

impl SocketFileState {
    /// The open socket.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<SocketFile>, Unusable> {
        let options = Mutex::new(Level::Leaf, self.options);
        Ok(Arc::new(SocketFile { socket: restorer.socket(self.socket)?, options, attr: self.attr }))
    }
}

impl FileOps for SocketFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let SocketFile { socket, options, attr } = self;
        let unix = socket.as_any().downcast_ref::<UnixSocket>().and_then(UnixSocket::this);
        let unix = unix.ok_or_else(|| Refused::new(format!("the socket {}", self.describe())))?;
        let options = *options.lock();
        Ok(OpsState::Unix(SocketFileState { socket: saver.sockets.id(&unix), options, attr: *attr }))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        self.socket.recv(dst, MsgFlags::default()).map(|r| r.len)
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        self.socket.send(src, None, &mut Control::default(), MsgFlags::default())
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.wait_queue())
    }

    fn ioctl(&self, cx: &mut CurrentTask<'_>, _file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
        let unix = self.socket.domain() == libc::AF_UNIX;
        let bytes = match u64::from(cmd) {
            libc::FIONREAD if self.socket.is_listening() => return Err(Errno::EINVAL),
            libc::FIONREAD => self.socket.readable_bytes(),
            libc::TIOCOUTQ if unix => self.socket.unread_bytes(),
            _ => return crate::net::device::ioctl(cx, cmd, arg),
        };
        cx.mm()?.write_obj(arg, &i32::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?)?;
        ok()
    }

    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ESPIPE)
    }

    fn attr(&self) -> Option<Attr> {
        Some(self.attr)
    }

    fn release(&self, _file: &FileDescription) {
        self.socket.close();
    }

    fn describe(&self) -> String {
        format!("socket:[{}]", self.attr.key.ino)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
