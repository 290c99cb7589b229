//! Making, naming and connecting sockets.

pub mod saved;

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::net::control::Ucred;
use crate::net::netlink::NetlinkSocket;
use crate::net::unix::UnixSocket;
use crate::net::{Shutdown, Socket, SocketFile, SocketKind};
use crate::syscalls::deadline;
use crate::syscalls::fd::{install_pair, nofile};
use crate::syscalls::socket::{read_addr, write_addr};
use crate::vfs::{FdNum, FileDescription, OpenFlags};

/// Splits `socket(2)`'s type into the type and its O_* flags.
fn parse_kind(raw: i32) -> Result<(i32, OpenFlags), Errno> {
    let flags = OpenFlags::from_bits_retain(raw.cast_unsigned() & !0xf);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    Ok((raw & 0xf, flags))
}

fn unix_kind(domain: i32, kind: i32, protocol: i32) -> Result<SocketKind, Errno> {
    if domain != libc::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != libc::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    // A raw Unix socket is a datagram one (af_unix.c).
    let kind = if kind == libc::SOCK_RAW { libc::SOCK_DGRAM } else { kind };
    SocketKind::from_raw(kind).ok_or(Errno::ESOCKTNOSUPPORT)
}

pub(super) fn socket(cx: &mut CurrentTask<'_>, domain: i32, kind: i32, protocol: i32) -> SyscallResult {
    let (kind, flags) = parse_kind(kind)?;
    let socket: Arc<dyn Socket> = if domain == libc::AF_NETLINK {
        NetlinkSocket::new(kind, protocol, cx.task.group.tgid.0)?
    } else {
        let kind = unix_kind(domain, kind, protocol)?;
        UnixSocket::new(cx.kernel(), kind, Ucred::of(cx))
    };
    let file = SocketFile::open(socket, flags, cx.kernel().clock.realtime());
    crate::syscalls::fd::install(cx, file, flags)
}

pub(super) fn socketpair(
    cx: &mut CurrentTask<'_>,
    domain: i32,
    kind: i32,
    protocol: i32,
    fds: UserAddr,
) -> SyscallResult {
    let (kind, flags) = parse_kind(kind)?;
    if domain == libc::AF_NETLINK {
        return Err(Errno::EOPNOTSUPP);
    }
    let kind = unix_kind(domain, kind, protocol)?;
    let (a, b) = UnixSocket::pair(cx.kernel(), kind, Ucred::of(cx));
    let now = cx.kernel().clock.realtime();
    install_pair(cx, SocketFile::open(a, flags, now), SocketFile::open(b, flags, now), flags, fds)
}

pub(super) fn bind(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let socket = &SocketFile::of(&file)?.socket;
    let addr = read_addr(cx, addr, len)?;
    socket.bind(cx, &addr)?;
    ok()
}

pub(super) fn listen(cx: &mut CurrentTask<'_>, fd: FdNum, backlog: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    SocketFile::of(&file)?.socket.listen(cx, backlog)?;
    ok()
}

struct ConnectOp {
    file: Arc<FileDescription>,
    socket: Arc<dyn Socket>,
    addr: Vec<u8>,
    deadline: Option<i64>,
}

impl Op for ConnectOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.socket.connect(cx, &self.addr) {
            Err(Errno::EAGAIN) if !self.file.is_nonblocking() => Attempt::Pending,
            answer => Attempt::Done(answer.map(|()| 0)),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        let waiter = cx.waiter();
        let own = self.socket.wait_queue().enlist(Events::WRITABLE, waiter.clone());
        let other = self.socket.connect_queue().map(|q| q.enlist(Events::WRITABLE, waiter));
        std::iter::once(own).chain(other).collect()
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Connect(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "connect"
    }
}

pub(super) fn connect(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let socket_file = SocketFile::of(&file)?;
    let timeout = socket_file.options.lock().send_timeout;
    let socket = socket_file.socket.clone();
    let addr = read_addr(cx, addr, len)?;
    let deadline = timeout.map(|t| deadline::after(cx, t));
    op::start(cx, ConnectOp { file, socket, addr, deadline })
}

struct AcceptOp {
    file: Arc<FileDescription>,
    socket: Arc<dyn Socket>,
    addr: UserAddr,
    len: UserAddr,
    flags: OpenFlags,
    deadline: Option<i64>,
}

impl AcceptOp {
    fn finish(&self, cx: &mut CurrentTask<'_>, accepted: Arc<dyn Socket>) -> Result<u64, Errno> {
        let peer = accepted.peer_addr();
        let file = SocketFile::open(accepted, self.flags, cx.kernel().clock.realtime());
        if !self.addr.is_null() {
            write_addr(cx, &peer?, self.addr, self.len)?;
        }
        let cloexec = self.flags.contains(OpenFlags::CLOEXEC);
        let fd = cx.fds()?.install(file, cloexec, 0, nofile(cx))?;
        Ok(u64::from(fd.0.cast_unsigned()))
    }
}

impl Op for AcceptOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.socket.accept() {
            Ok(accepted) => Attempt::Done(self.finish(cx, accepted)),
            Err(Errno::EAGAIN) if !self.file.is_nonblocking() => Attempt::Pending,
            Err(e) => Attempt::Done(Err(e)),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.socket.wait_queue().enlist(Events::READABLE, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Accept(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "accept"
    }
}

pub(super) fn accept(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: UserAddr) -> SyscallResult {
    accept4(cx, fd, addr, len, 0)
}

pub(super) fn accept4(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: UserAddr, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let file = cx.fds()?.get(fd)?;
    let socket_file = SocketFile::of(&file)?;
    let timeout = socket_file.options.lock().receive_timeout;
    let socket = socket_file.socket.clone();
    let deadline = timeout.map(|t| deadline::after(cx, t));
    op::start(cx, AcceptOp { file, socket, addr, len, flags, deadline })
}

pub(super) fn getsockname(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: UserAddr) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let raw = SocketFile::of(&file)?.socket.local_addr();
    write_addr(cx, &raw, addr, len)?;
    ok()
}

pub(super) fn getpeername(cx: &mut CurrentTask<'_>, fd: FdNum, addr: UserAddr, len: UserAddr) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let raw = SocketFile::of(&file)?.socket.peer_addr()?;
    write_addr(cx, &raw, addr, len)?;
    ok()
}

pub(super) fn shutdown(cx: &mut CurrentTask<'_>, fd: FdNum, how: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let how = match how {
        libc::SHUT_RD => Shutdown { read: true, write: false },
        libc::SHUT_WR => Shutdown { read: false, write: true },
        libc::SHUT_RDWR => Shutdown { read: true, write: true },
        _ => return Err(Errno::EINVAL),
    };
    SocketFile::of(&file)?.socket.shutdown(how)?;
    ok()
}
