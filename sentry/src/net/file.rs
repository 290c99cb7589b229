//! A socket as an open file.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::fs::anon;
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::net::control::Control;
use crate::net::options::SocketOptions;
use crate::net::socket::{MsgFlags, Socket};
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

impl FileOps for SocketFile {
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
