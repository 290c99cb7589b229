//! The sandbox's side: requests are sent at once or queued, answers complete their tickets by id, nobody waits.
//!
//! Whoever owns the event loop calls [`Client::pump`] when the socket can be read. [`Client::call`] is the simple form
//! that waits, for boot and tests. A fault of the other side ends the connection: every request, now and later, is `EIO`.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use hostsys::SeqPacket;
use hostsys::seqpacket::Message;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::{Condvar, Mutex};

use crate::message::{MountInfo, NodeId, Reply, Request};
use crate::{Fault, MAX_CLOSE, VERSION, codec};

/// Largest errno that a host call answers; the codes above are internal to kernels.
const MAX_ERRNO: u16 = 133;
/// Ids that are gathered before a close message goes out by itself.
const CLOSE_BATCH: usize = 64;
/// Most requests that may be under way or queued; what is beyond is refused with `EBUSY`.
const MAX_PENDING: usize = 16 * 1024;

/// A success: the reply, and the descriptor where one comes with it.
pub type Done = (Reply, Option<OwnedFd>);

/// Called, once, when a ticket has its answer; must not block.
pub type Notify = Box<dyn Fn() + Send + Sync>;

enum Slot {
    Waiting,
    Ready(Result<Done, Errno>),
    Taken,
}

impl Slot {
    fn take(&mut self) -> Option<Result<Done, Errno>> {
        match std::mem::replace(self, Slot::Taken) {
            Slot::Ready(answer) => Some(answer),
            other => {
                *self = other;
                None
            }
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self, Slot::Waiting)
    }
}

struct Pending {
    request: Request,
    answer: Slot,
    notify: Option<Notify>,
    abandoned: bool,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    /// What the socket had no room for.
    outbox: VecDeque<Vec<u8>>,
    closing: Vec<NodeId>,
    dead: Option<Fault>,
    /// Somebody's event loop calls [`Client::pump`].
    driven: bool,
}

/// A connection to a gofer.
pub struct Client {
    socket: SeqPacket,
    state: Mutex<State>,
    /// One reader at a time, so that answers are handled in order.
    reader: Mutex<()>,
    answered: Condvar,
    mounts: Vec<MountInfo>,
}

/// A request under way. Dropping it gives the answer up; files that the answer would have brought are closed.
#[must_use]
pub struct Ticket {
    client: Arc<Client>,
    id: u64,
}

impl Ticket {
    /// The answer, once.
    pub fn take(&self) -> Option<Result<Done, Errno>> {
        self.client.state.lock().pending.get_mut(&self.id)?.answer.take()
    }

    /// Whether the answer is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.client.state.lock().pending.get(&self.id).is_none_or(|p| !p.answer.is_waiting())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.client.state.lock();
        let dead = state.dead.is_some();
        let Some(pending) = state.pending.get_mut(&self.id) else { return };
        // Notifying nobody: the owner has gone.
        let notify = pending.notify.take();
        pending.abandoned = true;
        let over = dead || !pending.answer.is_waiting();
        let left = if over { state.pending.remove(&self.id) } else { None };
        if let Some(Slot::Ready(Ok((reply, _)))) = left.as_ref().map(|p| &p.answer) {
            state.closing.extend(reply.nodes());
        }
        drop(state);
        drop((left, notify));
    }
}

impl Client {
    /// [`Client::connect`] over a descriptor that is one end of such a socket.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_fd(fd: OwnedFd) -> Result<Arc<Self>, Fault> {
        Self::connect(SeqPacket::from_fd(fd))
    }

    /// Says hello over `socket` and waits for the answer.
    ///
    /// # Errors
    /// The other side is gone, or no gofer of this version.
    pub fn connect(socket: SeqPacket) -> Result<Arc<Self>, Fault> {
        let hello = Request::Hello(VERSION);
        let _ = socket.send(&codec::encode_request(0, &hello)?, &[]);
        let message = socket.receive().map_err(|_| Fault::Gone)?;
        if message.is_eof() {
            return Err(Fault::Gone);
        }
        let (id, answer) = codec::decode_answer(&message.bytes)?;
        let reply = answer.map_err(|_| Fault::Version)?;
        reply.check(&hello)?;
        let Reply::Hello { mounts, .. } = reply else { return Err(Fault::WrongKind) };
        if id != 0 {
            return Err(Fault::UnknownId);
        }
        let state = Mutex::new(State { next: 1, ..State::default() });
        Ok(Arc::new(Client { socket, state, reader: Mutex::new(()), answered: Condvar::new(), mounts }))
    }

    /// What is served, by number.
    #[must_use]
    pub fn mounts(&self) -> &[MountInfo] {
        &self.mounts
    }

    /// The socket, for an event loop to watch.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        self.socket.fd()
    }

    /// From now on an event loop pumps, and [`Client::call`] only waits.
    pub fn set_driven(&self) {
        self.state.lock().driven = true;
    }

    /// Starts a request. `notify` is called when the ticket has its answer, from whatever thread pumps.
    pub fn start(self: &Arc<Self>, request: Request, notify: Option<Notify>) -> Ticket {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let refusal = match codec::encode_request(id, &request) {
            _ if state.dead.is_some() => Some(Errno::EIO),
            _ if state.pending.len() >= MAX_PENDING => Some(Errno::EBUSY),
            Err(_) => Some(Errno::E2BIG),
            Ok(bytes) => {
                self.flush_closes(&mut state);
                state.outbox.push_back(bytes);
                None
            }
        };
        let pending = Pending {
            request,
            answer: refusal.map_or(Slot::Waiting, |e| Slot::Ready(Err(e))),
            notify,
            abandoned: false,
        };
        state.pending.insert(id, pending);
        let failed = self.flush(&mut state).err();
        drop(state);
        if let Some(fault) = failed {
            self.fail(fault);
        }
        Ticket { client: self.clone(), id }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// What the gofer says; `EIO` where the connection has ended.
    pub fn call(self: &Arc<Self>, request: Request) -> Result<Done, Errno> {
        let ticket = self.start(request, None);
        loop {
            let mut state = self.state.lock();
            let Some(pending) = state.pending.get_mut(&ticket.id) else { return Err(Errno::EIO) };
            if let Some(answer) = pending.answer.take() {
                return answer;
            }
            if state.driven {
                self.answered.wait(&mut state);
                continue;
            }
            drop(state);
            match self.reader.try_lock() {
                Some(_reader) => {
                    if ticket.is_done() {
                        continue;
                    }
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::NONE);
                    self.pump_locked();
                }
                // Another caller reads; it will hand ours over, or leave.
                None => drop(self.reader.lock()),
            }
        }
    }

    /// Lets go of a file, some time.
    pub fn close(&self, node: NodeId) {
        let mut state = self.state.lock();
        state.closing.push(node);
        let failed = if state.closing.len() >= CLOSE_BATCH && state.dead.is_none() {
            self.flush_closes(&mut state);
            self.flush(&mut state).err()
        } else {
            None
        };
        drop(state);
        if let Some(fault) = failed {
            self.fail(fault);
        }
    }

    /// Sends what close messages are still held back.
    pub fn flush_now(&self) {
        let mut state = self.state.lock();
        if state.dead.is_none() {
            self.flush_closes(&mut state);
            let _ = self.flush(&mut state);
        }
    }

    /// Handles all answers that are there.
    pub fn pump(&self) {
        let _reader = self.reader.lock();
        self.pump_locked();
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.state.lock().dead
    }

    fn pump_locked(&self) {
        loop {
            if self.fault().is_some() {
                return;
            }
            let fault = match self.socket.try_receive() {
                Ok(None) => break,
                Ok(Some(message)) if message.is_eof() => Fault::Gone,
                Ok(Some(message)) => match self.complete(message) {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
                Err(e) if e.errno() == libc::EMSGSIZE => Fault::Malformed,
                // Out of descriptors on our side: the message is lost, and with it the order of things.
                Err(_) => Fault::WrongFds,
            };
            return self.fail(fault);
        }
        // Answers make room for what was held back.
        let mut state = self.state.lock();
        let failed = self.flush(&mut state).err();
        drop(state);
        if let Some(fault) = failed {
            self.fail(fault);
        }
    }

    fn complete(&self, message: Message) -> Result<(), Fault> {
        let (id, answer) = codec::decode_answer(&message.bytes)?;
        let mut state = self.state.lock();
        let pending = state.pending.get_mut(&id).filter(|p| p.answer.is_waiting()).ok_or(Fault::UnknownId)?;
        let mut fds = message.fds;
        let expected = answer.as_ref().map_or(0, Reply::fds);
        if fds.len() != expected {
            return Err(Fault::WrongFds);
        }
        let answer = match answer {
            Ok(reply) => {
                reply.check(&pending.request)?;
                Ok((reply, fds.pop()))
            }
            Err(raw) if raw > 0 && raw <= MAX_ERRNO => Err(Errno::from_raw(i32::from(raw))),
            Err(_) => Err(Errno::EIO),
        };
        if pending.abandoned {
            let nodes: Vec<_> = answer.iter().flat_map(|(reply, _)| reply.nodes()).collect();
            state.closing.extend(nodes);
            state.pending.remove(&id);
            return Ok(());
        }
        pending.answer = Slot::Ready(answer);
        let notify = pending.notify.take();
        drop(state);
        self.answered.notify_all();
        if let Some(notify) = notify {
            notify();
        }
        Ok(())
    }

    fn flush_closes(&self, state: &mut State) {
        while !state.closing.is_empty() {
            let n = state.closing.len().min(MAX_CLOSE);
            let ids = state.closing.drain(..n).collect();
            let id = state.next;
            state.next += 1;
            if let Ok(bytes) = codec::encode_request(id, &Request::Close(ids)) {
                state.outbox.push_back(bytes);
            }
        }
    }

    fn flush(&self, state: &mut State) -> Result<(), Fault> {
        while let Some(bytes) = state.outbox.front() {
            match self.socket.try_send(bytes, &[]) {
                Ok(true) => drop(state.outbox.pop_front()),
                // Full means that answers are under way; they bring us here again.
                Ok(false) => break,
                Err(_) => return Err(Fault::Gone),
            }
        }
        Ok(())
    }

    /// Ends the connection: everything under way is `EIO`.
    fn fail(&self, fault: Fault) {
        let mut state = self.state.lock();
        if state.dead.is_none() {
            log::error!("the gofer's connection ends: {fault}");
            state.dead = Some(fault);
        }
        state.outbox.clear();
        state.closing.clear();
        state.pending.retain(|_, p| !p.abandoned);
        let mut notify = Vec::new();
        for pending in state.pending.values_mut().filter(|p| p.answer.is_waiting()) {
            pending.answer = Slot::Ready(Err(Errno::EIO));
            notify.extend(pending.notify.take());
        }
        drop(state);
        self.answered.notify_all();
        notify.iter().for_each(|n| n());
    }
}
