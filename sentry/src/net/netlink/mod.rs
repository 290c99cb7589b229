//! Netlink sockets (`netlink(7)`): what programs ask about the network's devices and addresses (`rtnetlink(7)`).
//!
//! A request is answered into the asking socket's own queue at once. There is one device, the loopback.

mod route;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;

use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::net::control::Control;
use crate::net::socket::{Destination, MsgFlags, Received, Shutdown, Socket, SocketKind};
use crate::sync::{Level, Mutex};
use crate::vfs::{IoSink, IoSource};

/// `NETLINK_ROUTE`.
const ROUTE: i32 = 0;
/// `NETLINK_USERSOCK` and `NETLINK_KOBJECT_UEVENT`: nothing ever comes.
const SILENT: [i32; 2] = [2, 15];
/// Longest request taken.
const MAX_REQUEST: usize = 64 << 10;
/// Answers that may wait, bytes.
const CAPACITY: usize = 212_992;
/// `SOL_NETLINK`.
const SOL_NETLINK: i32 = 270;

#[derive(Default)]
struct State {
    /// Own port; 0 until bound.
    port: u32,
    /// Multicast groups, which nothing is ever sent to.
    groups: u32,
    answers: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A netlink socket.
pub struct NetlinkSocket {
    protocol: i32,
    kind: SocketKind,
    raw: bool,
    /// The port it gets without asking: the process's id, as the kernel tries first.
    wanted: u32,
    state: Mutex<State>,
    queue: WaitQueue,
}

fn address(port: u32, groups: u32) -> Vec<u8> {
    let mut raw = vec![0u8; 12];
    raw[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_le_bytes());
    raw[4..8].copy_from_slice(&port.to_le_bytes());
    raw[8..].copy_from_slice(&groups.to_le_bytes());
    raw
}

/// Port and groups of a `sockaddr_nl`.
fn parse(raw: &[u8]) -> Result<(u32, u32), Errno> {
    let word = |at: usize| raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let family = raw.get(..2).map(|b| i32::from(u16::from_le_bytes([b[0], b[1]])));
    match (family, word(4), word(8)) {
        (Some(libc::AF_NETLINK), Some(port), Some(groups)) => Ok((port, groups)),
        _ => Err(Errno::EINVAL),
    }
}

impl NetlinkSocket {
    /// An unbound socket of `socket(AF_NETLINK, kind, protocol)`.
    ///
    /// # Errors
    /// `ESOCKTNOSUPPORT`; `EPROTONOSUPPORT`.
    pub fn new(kind: i32, protocol: i32, process: i32) -> Result<Arc<Self>, Errno> {
        if kind != libc::SOCK_RAW && kind != libc::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if protocol != ROUTE && !SILENT.contains(&protocol) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        Ok(Arc::new(NetlinkSocket {
            protocol,
            kind: SocketKind::Datagram,
            raw: kind == libc::SOCK_RAW,
            wanted: process.unsigned_abs(),
            state: Mutex::new(Level::File, State::default()),
            queue: WaitQueue::new(),
        }))
    }

    /// Binds to the process's id, or, where that is taken (it is not looked up: by an own counter), to another.
    fn autobind(&self, state: &mut State) {
        static NEXT: AtomicU32 = AtomicU32::new(u32::MAX - 4096);
        if state.port == 0 {
            let first = self.wanted != 0 && !self.raw;
            state.port = if first { self.wanted } else { NEXT.fetch_sub(1, Ordering::Relaxed) };
        }
    }

    fn receive(&self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
        let mut state = self.state.lock();
        let answer = state.answers.front().ok_or(Errno::EAGAIN)?;
        let full = answer.len();
        let stored = dst.put(answer)?;
        let received = Received {
            len: if flags.contains(MsgFlags::TRUNC) { full } else { stored },
            from: Some(address(0, 0)),
            flags: if stored < full { MsgFlags::TRUNC } else { MsgFlags::default() },
            control: Control::default(),
        };
        if !flags.contains(MsgFlags::PEEK) {
            state.answers.pop_front();
            state.bytes -= full;
        }
        Ok(received)
    }
}

impl Socket for NetlinkSocket {
    fn domain(&self) -> i32 {
        libc::AF_NETLINK
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn raw_kind(&self) -> i32 {
        if self.raw { libc::SOCK_RAW } else { libc::SOCK_DGRAM }
    }

    fn protocol(&self) -> i32 {
        self.protocol
    }

    fn bind(&self, _cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno> {
        let (port, groups) = parse(addr)?;
        let mut state = self.state.lock();
        if state.port != 0 && port != 0 && port != state.port {
            return Err(Errno::EINVAL);
        }
        if port != 0 {
            state.port = port;
        }
        self.autobind(&mut state);
        state.groups = groups;
        Ok(())
    }

    fn listen(&self, _cx: &mut CurrentTask<'_>, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn connect(&self, _cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno> {
        let unspec = addr.get(..2).is_some_and(|f| f == [0, 0]);
        let (port, _) = if unspec { (0, 0) } else { parse(addr)? };
        self.autobind(&mut self.state.lock());
        if port == 0 { Ok(()) } else { Err(Errno::ECONNREFUSED) }
    }

    fn send(
        &self,
        src: &mut IoSource<'_>,
        to: Option<&Destination>,
        _control: &mut Control,
        flags: MsgFlags,
    ) -> Result<usize, Errno> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(Destination::Address(raw)) = to
            && parse(raw)?.0 != 0
        {
            return Err(Errno::ECONNREFUSED);
        }
        if src.remaining() > MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let mut request = vec![0u8; src.remaining()];
        let n = src.take(&mut request)?;
        request.truncate(n);
        let mut state = self.state.lock();
        self.autobind(&mut state);
        if self.protocol == ROUTE {
            for answer in route::answer(&request, state.port) {
                // A full queue loses answers (ENOBUFS at the next receive on Linux).
                if state.bytes + answer.len() <= CAPACITY {
                    state.bytes += answer.len();
                    state.answers.push_back(answer);
                }
            }
        }
        drop(state);
        self.queue.wake(Events::READABLE);
        Ok(n)
    }

    fn recv(&self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::OOB) { Err(Errno::EOPNOTSUPP) } else { self.receive(dst, flags) }
    }

    fn shutdown(&self, _how: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_addr(&self) -> Vec<u8> {
        let state = self.state.lock();
        address(state.port, state.groups)
    }

    fn peer_addr(&self) -> Result<Vec<u8>, Errno> {
        Ok(address(0, 0))
    }

    fn get_option(&self, _cx: &CurrentTask<'_>, level: i32, _name: i32) -> Result<Vec<u8>, Errno> {
        if level == SOL_NETLINK { Ok(vec![0; 4]) } else { Err(Errno::ENOPROTOOPT) }
    }

    fn set_option(&self, _cx: &CurrentTask<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        // Memberships, packet information, extended acknowledgements, strict checks: taken, nothing to tell of.
        match (level, name) {
            (SOL_NETLINK, 1..=12) if value.len() >= 4 => Ok(()),
            (SOL_NETLINK, 1..=12) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn readable_bytes(&self) -> usize {
        self.state.lock().answers.front().map_or(0, Vec::len)
    }

    fn poll(&self) -> Events {
        let readable = !self.state.lock().answers.is_empty();
        if readable { Events::READABLE | Events::WRITABLE } else { Events::WRITABLE }
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn close(&self) {
        let dropped = std::mem::take(&mut self.state.lock().answers);
        drop(dropped);
        self.queue.wake(Events::all());
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
