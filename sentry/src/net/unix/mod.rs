//! Unix sockets (`unix(7)`): streams, datagrams and sequenced packets between processes of one sandbox.
//!
//! Every socket has an inbox; sending is putting a message into the peer's. Locks: a socket's state, then (never
//! together with another state) an inbox.

pub mod address;
pub mod gc;
mod inbox;
pub mod saved;
mod transfer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::kernel::Kernel;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::net::control::{Control, Ucred};
use crate::net::options::BUFFER;
use crate::net::socket::{Destination, MsgFlags, Received, Shutdown, Socket, SocketKind};
use crate::net::unix::address::Address;
use crate::net::unix::inbox::Inbox;
use crate::sync::{Level, Mutex};
use crate::vfs::{IoSink, IoSource};

/// Largest backlog (`net.core.somaxconn`).
const SOMAXCONN: usize = 4096;

#[derive(Default)]
struct State {
    address: Option<Address>,
    peer: Weak<UnixSocket>,
    /// Whether it ever had one.
    connected: bool,
    /// The peer's address when it connected, kept for `getpeername` after it left.
    peer_address: Option<Address>,
    peer_creds: Option<Ucred>,
    /// Connections not yet accepted, and how many may wait.
    backlog: Option<(VecDeque<Arc<UnixSocket>>, usize)>,
    shut_write: bool,
    pass_creds: bool,
    /// Senders that found our inbox full.
    blocked: Vec<Weak<UnixSocket>>,
}

/// A Unix socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    kernel: Arc<Kernel>,
    kind: SocketKind,
    creds: Ucred,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    queue: WaitQueue,
    connecting: Mutex<Option<WaitQueue>>,
    /// SO_SNDBUF, bytes.
    send_buffer: AtomicUsize,
}

impl UnixSocket {
    /// An unbound, unconnected socket.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>, kind: SocketKind, creds: Ucred) -> Arc<Self> {
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kernel: kernel.clone(),
            kind,
            creds,
            state: Mutex::new(Level::File, State::default()),
            inbox: Mutex::new(Level::FilePeer, Inbox::default()),
            queue: WaitQueue::new(),
            connecting: Mutex::new(Level::Leaf, None),
            send_buffer: AtomicUsize::new(BUFFER.unsigned_abs() as usize),
        })
    }

    /// Two connected sockets.
    #[must_use]
    pub fn pair(kernel: &Arc<Kernel>, kind: SocketKind, creds: Ucred) -> (Arc<Self>, Arc<Self>) {
        let (a, b) = (Self::new(kernel, kind, creds), Self::new(kernel, kind, creds));
        a.attach(&b, Some(Address::Unnamed), creds);
        b.attach(&a, Some(Address::Unnamed), creds);
        (a, b)
    }

    fn attach(&self, peer: &Arc<UnixSocket>, address: Option<Address>, creds: Ucred) {
        let mut state = self.state.lock();
        state.peer = Arc::downgrade(peer);
        state.connected = true;
        state.peer_address = address;
        state.peer_creds = Some(creds);
    }

    /// Itself, counted.
    #[must_use]
    pub fn this(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    fn is_stream(&self) -> bool {
        self.kind == SocketKind::Stream
    }

    fn is_connection(&self) -> bool {
        self.kind != SocketKind::Datagram
    }

    /// Who is bound to `address`.
    fn find(&self, cx: &mut CurrentTask<'_>, address: &Address) -> Result<Arc<UnixSocket>, Errno> {
        match address {
            Address::Unnamed => Err(Errno::EINVAL),
            Address::Abstract(name) => {
                self.kernel.unix.find_abstract(cx.task.ns().net, name).ok_or(Errno::ECONNREFUSED)
            }
            Address::Path(path) => {
                let key = crate::vfs::path::lookup_socket(cx, path)?;
                self.kernel.unix.find_inode(key).ok_or(Errno::ECONNREFUSED)
            }
        }
    }

    fn connect_datagram(&self, target: Option<Arc<UnixSocket>>) -> Result<(), Errno> {
        if target.as_ref().is_some_and(|t| t.kind != self.kind) {
            return Err(Errno::EPROTOTYPE);
        }
        let address = target.as_ref().map(|t| t.state.lock().address.clone().unwrap_or(Address::Unnamed));
        let mut state = self.state.lock();
        state.connected = target.is_some();
        state.peer = target.as_ref().map_or_else(Weak::new, Arc::downgrade);
        state.peer_address = address;
        Ok(())
    }

    fn connect_to_listener(&self, listener: &Arc<UnixSocket>) -> Result<(), Errno> {
        if listener.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let my_address = {
            let state = self.state.lock();
            if state.connected || state.backlog.is_some() {
                return Err(if state.backlog.is_some() { Errno::EINVAL } else { Errno::EISCONN });
            }
            state.address.clone()
        };
        let accepted = UnixSocket::new(&self.kernel, self.kind, listener.creds);
        let address = {
            let mut state = listener.state.lock();
            let address = state.address.clone();
            let (backlog, max) = state.backlog.as_mut().ok_or(Errno::ECONNREFUSED)?;
            if backlog.len() > *max {
                *self.connecting.lock() = Some(listener.queue.clone());
                return Err(Errno::EAGAIN);
            }
            backlog.push_back(accepted.clone());
            address
        };
        accepted.state.lock().address.clone_from(&address);
        accepted.attach(&me, my_address, self.creds);
        self.attach(&accepted, address, listener.creds);
        listener.queue.wake(Events::READABLE);
        self.queue.wake(Events::WRITABLE);
        Ok(())
    }

    /// Tells the peer that nothing more will come from us.
    fn end_peer(&self, peer: &UnixSocket, reset: bool) {
        {
            let mut inbox = peer.inbox.lock();
            inbox.ended = true;
            inbox.reset |= reset;
        }
        peer.queue.wake(Events::all());
    }
}

impl Socket for UnixSocket {
    fn domain(&self) -> i32 {
        libc::AF_UNIX
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        0
    }

    fn bind(&self, cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        if self.state.lock().address.is_some() {
            return Err(Errno::EINVAL);
        }
        let address = match Address::parse(addr)? {
            Address::Unnamed => Address::Abstract(self.kernel.unix.bind_auto(cx.task.ns().net, &me)?),
            Address::Abstract(name) => {
                self.kernel.unix.bind_abstract(cx.task.ns().net, &name, &me)?;
                Address::Abstract(name)
            }
            Address::Path(path) => {
                let key = crate::vfs::path::create_socket(cx, &path)?;
                self.kernel.unix.bind_inode(key, &me);
                Address::Path(path)
            }
        };
        self.state.lock().address = Some(address);
        Ok(())
    }

    fn listen(&self, _cx: &mut CurrentTask<'_>, backlog: i32) -> Result<(), Errno> {
        if !self.is_connection() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.address.is_none() || state.connected {
            return Err(Errno::EINVAL);
        }
        let max = usize::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let waiting = state.backlog.take().map_or_else(VecDeque::new, |(waiting, _)| waiting);
        state.backlog = Some((waiting, max));
        drop(state);
        self.queue.wake(Events::all());
        Ok(())
    }

    fn accept(&self) -> Result<Arc<dyn Socket>, Errno> {
        if !self.is_connection() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let (backlog, _) = state.backlog.as_mut().ok_or(Errno::EINVAL)?;
        let accepted = backlog.pop_front().ok_or(if state.shut_write { Errno::EINVAL } else { Errno::EAGAIN })?;
        drop(state);
        self.queue.wake(Events::WRITABLE);
        Ok(accepted)
    }

    fn connect(&self, cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno> {
        let unspec = addr.get(..2).is_some_and(|f| f == [0, 0]);
        if unspec && !self.is_connection() {
            return self.connect_datagram(None);
        }
        let target = self.find(cx, &Address::parse(addr)?)?;
        if self.is_connection() { self.connect_to_listener(&target) } else { self.connect_datagram(Some(target)) }
    }

    fn connect_queue(&self) -> Option<WaitQueue> {
        self.connecting.lock().clone()
    }

    fn destination(&self, cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<Destination, Errno> {
        if self.is_connection() {
            let connected = self.state.lock().connected;
            return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let target = self.find(cx, &Address::parse(addr)?)?;
        if target.kind == self.kind { Ok(Destination::Unix(target)) } else { Err(Errno::EPROTOTYPE) }
    }

    fn send(
        &self,
        src: &mut IoSource<'_>,
        to: Option<&Destination>,
        control: &mut Control,
        flags: MsgFlags,
    ) -> Result<usize, Errno> {
        self.do_send(src, to, control, flags)
    }

    fn recv(&self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
        self.do_recv(dst, flags)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let peer = {
            let mut state = self.state.lock();
            state.shut_write |= how.write || (how.read && state.backlog.is_some());
            state.peer.upgrade()
        };
        if how.read {
            let mut inbox = self.inbox.lock();
            inbox.ended = true;
            inbox.refused = true;
        }
        self.queue.wake(Events::all());
        if let Some(peer) = peer.filter(|_| self.is_connection()) {
            if how.write {
                self.end_peer(&peer, false);
            }
            peer.queue.wake(Events::all());
        }
        Ok(())
    }

    fn local_addr(&self) -> Vec<u8> {
        self.state.lock().address.as_ref().unwrap_or(&Address::Unnamed).to_bytes()
    }

    fn peer_addr(&self) -> Result<Vec<u8>, Errno> {
        let state = self.state.lock();
        if !state.connected {
            return Err(Errno::ENOTCONN);
        }
        Ok(state.peer_address.as_ref().unwrap_or(&Address::Unnamed).to_bytes())
    }

    fn get_option(&self, _cx: &CurrentTask<'_>, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        use zerocopy::IntoBytes;
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            let error = if self.take_reset() { libc::ECONNRESET } else { 0 };
            return Ok(error.to_le_bytes().to_vec());
        }
        let state = self.state.lock();
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
                let unknown = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
                Ok(state.peer_creds.unwrap_or(unknown).as_bytes().to_vec())
            }
            (libc::SOL_SOCKET, libc::SO_PASSCRED) => Ok(i32::from(state.pass_creds).to_le_bytes().to_vec()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, _cx: &CurrentTask<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        if (level, name) != (libc::SOL_SOCKET, libc::SO_PASSCRED) {
            return Err(Errno::ENOPROTOOPT);
        }
        let raw = value.get(..4).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)?;
        self.state.lock().pass_creds = i32::from_le_bytes(raw) != 0;
        Ok(())
    }

    fn set_send_buffer(&self, bytes: usize) {
        self.send_buffer.store(bytes, Ordering::Relaxed);
        self.queue.wake(Events::WRITABLE);
    }

    fn is_listening(&self) -> bool {
        self.state.lock().backlog.is_some()
    }

    fn readable_bytes(&self) -> usize {
        self.inbox.lock().readable(self.is_stream())
    }

    fn unread_bytes(&self) -> usize {
        let peer = self.state.lock().peer.upgrade();
        peer.map_or(0, |p| p.inbox.lock().bytes_waiting())
    }

    fn poll(&self) -> Events {
        let (listening, peer, connected, shut_write) = {
            let state = self.state.lock();
            let pending = state.backlog.as_ref().map(|(waiting, _)| !waiting.is_empty());
            (pending, state.peer.upgrade(), state.connected, state.shut_write)
        };
        if let Some(pending) = listening {
            return if pending { Events::READABLE } else { Events::default() };
        }
        let mut events = Events::default();
        let ended = {
            let inbox = self.inbox.lock();
            if inbox.reset {
                events |= Events::ERR;
            }
            if !inbox.is_empty() || inbox.ended {
                events |= Events::READABLE;
            }
            inbox.ended
        };
        if ended {
            events |= Events::RDHUP;
        }
        if self.is_connection() && (!connected || (ended && (shut_write || peer.is_none()))) {
            events |= Events::HUP;
        }
        let limit = self.send_buffer.load(Ordering::Relaxed);
        let writable = match &peer {
            Some(peer) if self.is_stream() => peer.inbox.lock().room(limit) > 0,
            Some(peer) => peer.inbox.lock().takes_datagram(1, limit),
            None => true,
        };
        if writable {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn close(&self) {
        let (peer, waiting) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.peer).upgrade(), state.backlog.take())
        };
        let (unread, dropped) = {
            let mut inbox = self.inbox.lock();
            let unread = !inbox.is_empty();
            (inbox.refused, inbox.ended) = (true, true);
            (unread, inbox.clear())
        };
        self.kernel.unix.in_flight.bury(dropped);
        if let Some(peer) = peer.filter(|_| self.is_connection()) {
            self.end_peer(&peer, unread);
        }
        for socket in waiting.into_iter().flat_map(|(waiting, _)| waiting) {
            socket.close();
        }
        self.queue.wake(Events::all());
        self.kernel.unix.sweep();
        self.kernel.unix.in_flight.count_down();
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
