//! Sending and receiving: sendto, sendmsg, recvfrom, recvmsg and their multiples.

pub mod saved;

use std::sync::Arc;

use abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::signal;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::mm::Mm;
use crate::net::control::Ucred;
use crate::net::socket::Destination;
use crate::net::{Control, MsgFlags, Received, Socket, SocketFile};
use crate::syscalls::deadline;
use crate::syscalls::socket::{read_addr, write_addr};
use crate::vfs::{FdNum, FileDescription, IoCursor, IoSink, IoSource};

/// `struct msghdr` (`struct user_msghdr`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, serde::Serialize, serde::Deserialize)]
#[repr(C)]
struct MsgHdr {
    name: u64,
    namelen: i32,
    _pad: u32,
    iov: u64,
    iovlen: u64,
    control: u64,
    controllen: u64,
    flags: u32,
    _pad2: u32,
}

/// Bytes of `struct mmsghdr`.
const MMSGHDR: u64 = 64;

/// A message being sent.
struct SendOp {
    file: Arc<FileDescription>,
    socket: Arc<dyn Socket>,
    cursor: IoCursor,
    to: Option<Destination>,
    control: Control,
    flags: MsgFlags,
    deadline: Option<i64>,
}

impl SendOp {
    fn waits(&self) -> bool {
        !self.flags.contains(MsgFlags::DONTWAIT) && !self.file.is_nonblocking()
    }

    fn send(&mut self, mm: &Mm) -> Result<usize, Errno> {
        let mut src = IoSource::guest(mm, &mut self.cursor);
        self.socket.send(&mut src, self.to.as_ref(), &mut self.control, self.flags)
    }

    fn failed(&self, cx: &mut CurrentTask<'_>, errno: Errno) -> Attempt {
        if self.cursor.done() > 0 {
            return Attempt::Done(Ok(self.cursor.done() as u64));
        }
        if errno == Errno::EPIPE && !self.flags.contains(MsgFlags::NOSIGNAL) {
            signal::send_sigpipe(cx);
        }
        Attempt::Done(Err(errno))
    }
}

impl Op for SendOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let Ok(mm) = cx.mm() else { return Attempt::Done(Err(Errno::EFAULT)) };
        let stream = self.socket.kind() == crate::net::SocketKind::Stream;
        loop {
            match self.send(&mm) {
                Ok(n) if stream && n > 0 && self.cursor.remaining() > 0 => {}
                Ok(n) => return Attempt::Done(Ok(if stream { self.cursor.done() } else { n } as u64)),
                Err(Errno::EAGAIN) if self.waits() => return Attempt::Pending,
                Err(errno) => return self.failed(cx, errno),
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.socket.wait_queue().enlist(Events::WRITABLE, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 { Ok(self.cursor.done() as u64) } else { Err(interrupt_code(self.deadline)) }
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Send(self.state(saver)?))
    }

    fn name(&self) -> &'static str {
        "sock_send"
    }
}

/// With a socket timeout set, calls don't restart (signal(7)).
fn interrupt_code(deadline: Option<i64>) -> Errno {
    if deadline.is_some() { Errno::EINTR } else { Errno::ERESTARTSYS }
}

fn send_op(
    cx: &mut CurrentTask<'_>,
    file: &Arc<FileDescription>,
    cursor: IoCursor,
    name: Option<(UserAddr, i32)>,
    mut control: Control,
    flags: u32,
) -> Result<SendOp, Errno> {
    let socket_file = SocketFile::of(file)?;
    let timeout = socket_file.options.lock().send_timeout;
    let socket = socket_file.socket.clone();
    let to = match name {
        Some((addr, len)) => {
            let addr = read_addr(cx, addr, len)?;
            Some(socket.destination(cx, &addr)?)
        }
        None => None,
    };
    control.creds.get_or_insert(Ucred::of(cx));
    let deadline = timeout.map(|t| deadline::after(cx, t));
    Ok(SendOp { file: file.clone(), socket, cursor, to, control, flags: MsgFlags::from_bits_retain(flags), deadline })
}

pub(super) fn sendto(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    len: i32,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let name = (!addr.is_null()).then_some((addr, len));
    let op = send_op(cx, &file, IoCursor::single(buf, count)?, name, Control::default(), flags)?;
    op::start(cx, op)
}

fn send_message(
    cx: &mut CurrentTask<'_>,
    file: &Arc<FileDescription>,
    msg: UserAddr,
    flags: u32,
) -> Result<SendOp, Errno> {
    let mm = cx.mm()?;
    let header: MsgHdr = mm.read_obj(msg)?;
    let iovlen = usize::try_from(header.iovlen).ok().filter(|n| *n <= 1024).ok_or(Errno::EMSGSIZE)?;
    let cursor = IoCursor::from_guest(&mm, UserAddr(header.iov), iovlen)?;
    let control = if header.control != 0 && header.controllen > 0 {
        let len = usize::try_from(header.controllen).map_err(|_| Errno::ENOBUFS)?;
        Control::from_guest(cx, UserAddr(header.control), len)?
    } else {
        Control::default()
    };
    let name = (header.name != 0 && header.namelen != 0).then_some((UserAddr(header.name), header.namelen));
    send_op(cx, file, cursor, name, control, flags)
}

pub(super) fn sendmsg(cx: &mut CurrentTask<'_>, fd: FdNum, msg: UserAddr, flags: u32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    SocketFile::of(&file)?;
    let op = send_message(cx, &file, msg, flags)?;
    op::start(cx, op)
}

/// Where a received message's parts go.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
enum RecvOutput {
    /// recvfrom: address and its length.
    Address(UserAddr, UserAddr),
    /// recvmsg: the header, to be updated.
    Message(UserAddr, MsgHdr),
}

struct RecvOp {
    file: Arc<FileDescription>,
    socket: Arc<dyn Socket>,
    cursor: IoCursor,
    output: RecvOutput,
    flags: MsgFlags,
    deadline: Option<i64>,
}

impl RecvOp {
    fn waits(&self) -> bool {
        !self.flags.contains(MsgFlags::DONTWAIT) && !self.file.is_nonblocking()
    }

    fn wants_all(&self, received: &Received) -> bool {
        self.flags.contains(MsgFlags::WAITALL)
            && !self.flags.contains(MsgFlags::PEEK)
            && self.socket.kind() == crate::net::SocketKind::Stream
            && received.len > 0
            && received.control.rights.is_empty()
            && self.cursor.remaining() > 0
    }

    fn finish(&self, cx: &mut CurrentTask<'_>, received: Received) -> Result<u64, Errno> {
        let len = received.len.max(self.cursor.done()) as u64;
        let len = if self.flags.contains(MsgFlags::TRUNC) { received.len as u64 } else { len };
        match &self.output {
            RecvOutput::Address(addr, at) => {
                if !addr.is_null() {
                    match &received.from {
                        Some(from) => write_addr(cx, from, *addr, *at)?,
                        // A connected stream tells no address: length 0.
                        None => cx.mm()?.write_obj(*at, &0u32)?,
                    }
                }
            }
            RecvOutput::Message(at, header) => self.finish_message(cx, received, *at, header)?,
        }
        Ok(len)
    }

    fn finish_message(
        &self,
        cx: &mut CurrentTask<'_>,
        received: Received,
        at: UserAddr,
        header: &MsgHdr,
    ) -> Result<(), Errno> {
        let mm = cx.mm()?;
        let mut flags = received.flags;
        let mut namelen = 0;
        if header.name != 0 {
            let from = received.from.unwrap_or_default();
            let room = usize::try_from(header.namelen).map_err(|_| Errno::EINVAL)?;
            mm.write_bytes(UserAddr(header.name), &from[..from.len().min(room)])?;
            namelen = i32::try_from(from.len()).map_err(|_| Errno::EINVAL)?;
        }
        let room = if header.control == 0 { 0 } else { usize::try_from(header.controllen).unwrap_or(0) };
        let cloexec = self.flags.contains(MsgFlags::CMSG_CLOEXEC);
        // Told back, as `unix_stream_read_generic` and the others do.
        flags.set(MsgFlags::CMSG_CLOEXEC, cloexec);
        let mut used = 0;
        if !received.control.is_empty() {
            let (n, cut) = received.control.to_guest(cx, UserAddr(header.control), room, cloexec)?;
            used = n;
            flags.set(MsgFlags::CTRUNC, cut);
        }
        let answer = MsgHdr { namelen, controllen: used as u64, flags: flags.bits(), ..*header };
        mm.write_obj(at, &answer)
    }
}

impl Op for RecvOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let Ok(mm) = cx.mm() else { return Attempt::Done(Err(Errno::EFAULT)) };
        loop {
            let got = self.socket.recv(&mut IoSink::guest(&mm, &mut self.cursor), self.flags);
            match got {
                Ok(received) if self.wants_all(&received) => {}
                Ok(received) => return Attempt::Done(self.finish(cx, received)),
                Err(Errno::EAGAIN) if self.waits() => return Attempt::Pending,
                Err(_) if self.cursor.done() > 0 => return Attempt::Done(self.finish(cx, Received::default())),
                Err(e) => return Attempt::Done(Err(e)),
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.socket.wait_queue().enlist(Events::READABLE | Events::RDHUP, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 { self.finish(cx, Received::default()) } else { Err(Errno::EAGAIN) }
    }

    fn interrupted(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 {
            return self.finish(cx, Received::default());
        }
        Err(interrupt_code(self.deadline))
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Recv(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "sock_recv"
    }
}

fn recv_op(
    cx: &CurrentTask<'_>,
    file: &Arc<FileDescription>,
    cursor: IoCursor,
    output: RecvOutput,
    flags: u32,
) -> Result<RecvOp, Errno> {
    let socket_file = SocketFile::of(file)?;
    let timeout = socket_file.options.lock().receive_timeout;
    let socket = socket_file.socket.clone();
    let deadline = timeout.map(|t| deadline::after(cx, t));
    Ok(RecvOp { file: file.clone(), socket, cursor, output, flags: MsgFlags::from_bits_retain(flags), deadline })
}

pub(super) fn recvfrom(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    len: UserAddr,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let op = recv_op(cx, &file, IoCursor::single(buf, count)?, RecvOutput::Address(addr, len), flags)?;
    op::start(cx, op)
}

fn recv_message(cx: &CurrentTask<'_>, file: &Arc<FileDescription>, msg: UserAddr, flags: u32) -> Result<RecvOp, Errno> {
    let mm = cx.mm()?;
    let header: MsgHdr = mm.read_obj(msg)?;
    let iovlen = usize::try_from(header.iovlen).ok().filter(|n| *n <= 1024).ok_or(Errno::EMSGSIZE)?;
    let cursor = IoCursor::from_guest(&mm, UserAddr(header.iov), iovlen)?;
    recv_op(cx, file, cursor, RecvOutput::Message(msg, header), flags)
}

pub(super) fn recvmsg(cx: &mut CurrentTask<'_>, fd: FdNum, msg: UserAddr, flags: u32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    SocketFile::of(&file)?;
    let op = recv_message(cx, &file, msg, flags)?;
    op::start(cx, op)
}

/// Several messages, one after another; the first decides about waiting and errors.
struct ManyOp {
    file: Arc<FileDescription>,
    at: UserAddr,
    count: u32,
    done: u32,
    flags: u32,
    send: bool,
    current: Option<Box<dyn Op>>,
    deadline: Option<i64>,
}

impl ManyOp {
    fn next(&mut self, cx: &mut CurrentTask<'_>) -> Result<Box<dyn Op>, Errno> {
        let msg = self.at.checked_add(u64::from(self.done) * MMSGHDR).ok_or(Errno::EFAULT)?;
        let mut flags = self.flags & !MsgFlags::WAITFORONE.bits();
        if self.done > 0 && (self.send || self.flags & MsgFlags::WAITFORONE.bits() != 0) {
            flags |= MsgFlags::DONTWAIT.bits();
        }
        if self.send {
            Ok(Box::new(send_message(cx, &self.file, msg, flags)?))
        } else {
            Ok(Box::new(recv_message(cx, &self.file, msg, flags)?))
        }
    }

    fn step(&mut self, cx: &mut CurrentTask<'_>) -> Result<bool, Errno> {
        let mut op = match self.current.take() {
            Some(op) => op,
            None => self.next(cx)?,
        };
        let Attempt::Done(answer) = op.attempt(cx) else {
            self.current = Some(op);
            return Ok(false);
        };
        let len = u32::try_from(answer?).map_err(|_| Errno::EOVERFLOW)?;
        let at = self.at.checked_add(u64::from(self.done) * MMSGHDR + 56).ok_or(Errno::EFAULT)?;
        cx.mm()?.write_obj(at, &len)?;
        self.done += 1;
        Ok(true)
    }
}

impl Op for ManyOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        while self.done < self.count {
            match self.step(cx) {
                Ok(true) => {}
                Ok(false) => return Attempt::Pending,
                Err(_) if self.done > 0 => break,
                Err(e) => return Attempt::Done(Err(e)),
            }
        }
        Attempt::Done(Ok(u64::from(self.done)))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        self.current.as_mut().map(|op| op.enlist(cx)).unwrap_or_default()
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.done > 0 { Ok(u64::from(self.done)) } else { Err(Errno::EAGAIN) }
    }

    fn interrupted(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.done > 0 {
            return Ok(u64::from(self.done));
        }
        self.current.as_mut().map_or(Err(Errno::EINTR), |op| op.interrupted(cx))
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Many(self.state(saver)?))
    }

    fn name(&self) -> &'static str {
        if self.send { "sendmmsg" } else { "recvmmsg" }
    }
}

fn many(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    at: UserAddr,
    count: u32,
    flags: u32,
    send: bool,
    deadline: Option<i64>,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    SocketFile::of(&file)?;
    let count = count.min(1024);
    op::start(cx, ManyOp { file, at, count, done: 0, flags, send, current: None, deadline })
}

pub(super) fn sendmmsg(cx: &mut CurrentTask<'_>, fd: FdNum, msgs: UserAddr, count: u32, flags: u32) -> SyscallResult {
    many(cx, fd, msgs, count, flags, true, None)
}

pub(super) fn recvmmsg(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    msgs: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserAddr,
) -> SyscallResult {
    let deadline = deadline::from_timespec(cx, timeout)?;
    many(cx, fd, msgs, count, flags, false, deadline)
}
