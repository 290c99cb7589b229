//! Unix sockets as saved state, with what waits in them: data, descriptors in flight, connections not yet accepted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::inbox::{Inbox, Message};
use super::{State, UnixSocket};
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::kernel::wait::WaitQueue;
use crate::net::control::{Control, Ucred};
use crate::net::socket::SocketKind;
use crate::sync::{Level, Mutex};
use crate::vfs::InodeKey;
use crate::vfs::saved::FileState;

/// Where a socket is bound, for those who look for it.
#[derive(Serialize, Deserialize)]
pub(super) enum Binding {
    Abstract(u32, Vec<u8>),
    Inode(InodeKey),
}

#[derive(Serialize, Deserialize)]
struct MessageState {
    data: Bytes,
    start: u32,
    from: Vec<u8>,
    control: ControlState,
}

/// [`Control`].
#[derive(Serialize, Deserialize)]
pub struct ControlState {
    rights: Vec<Id<FileState>>,
    creds: Option<Ucred>,
}

impl Control {
    /// Its state.
    pub fn save(&self, saver: &mut Saver) -> ControlState {
        let Control { rights, creds } = self;
        ControlState { rights: rights.iter().map(|file| saver.files.id(file)).collect(), creds: *creds }
    }
}

impl ControlState {
    /// The control data.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Control, Unusable> {
        let rights = self.rights.into_iter().map(|id| restorer.file(id)).collect::<Result<_, _>>()?;
        Ok(Control { rights, creds: self.creds })
    }
}

#[derive(Serialize, Deserialize)]
struct InboxState {
    messages: Vec<MessageState>,
    ended: bool,
    refused: bool,
    reset: bool,
}

/// [`UnixSocket`].
#[derive(Serialize, Deserialize)]
pub struct UnixState {
    kind: SocketKind,
    creds: Ucred,
    address: Option<Address>,
    bindings: Vec<Binding>,
    peer: Option<Id<UnixState>>,
    connected: bool,
    peer_address: Option<Address>,
    peer_creds: Option<Ucred>,
    backlog: Option<(Vec<Id<UnixState>>, u32)>,
    shut_write: bool,
    pass_creds: bool,
    blocked: Vec<Id<UnixState>>,
    send_buffer: u32,
    inbox: InboxState,
}

impl Object for UnixSocket {
    type State = UnixState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<UnixState, Refused> {
        // Who waits for a place in a backlog tries again.
        let UnixSocket { me: _, kernel, kind, creds, state, inbox, queue: _, connecting: _, send_buffer } = &**self;
        let bindings = kernel.unix.bindings_of(self);
        let state = state.lock();
        let State { address, peer, connected, peer_address, peer_creds, backlog, shut_write, pass_creds, blocked } =
            &*state;
        let mut id = |socket: &Arc<UnixSocket>| saver.sockets.id(socket);
        let peer = peer.upgrade().map(|peer| id(&peer));
        let blocked = blocked.iter().filter_map(Weak::upgrade).map(|socket| id(&socket)).collect();
        let waiting = backlog
            .as_ref()
            .map(|(waiting, max)| (waiting.iter().map(&mut id).collect(), u32::try_from(*max).unwrap_or(u32::MAX)));
        Ok(UnixState {
            kind: *kind,
            creds: *creds,
            address: address.clone(),
            bindings,
            peer,
            connected: *connected,
            peer_address: peer_address.clone(),
            peer_creds: *peer_creds,
            backlog: waiting,
            shut_write: *shut_write,
            pass_creds: *pass_creds,
            blocked,
            send_buffer: u32::try_from(send_buffer.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            inbox: inbox.lock().save(saver),
        })
    }
}

impl Inbox {
    fn save(&self, saver: &mut Saver) -> InboxState {
        let Inbox { messages, bytes: _, ended, refused, reset, generation: _ } = self;
        let message = |Message { data, start, from, control }: &Message| MessageState {
            data: Bytes(data.clone()),
            start: u32::try_from(*start).unwrap_or(u32::MAX),
            from: from.clone(),
            control: control.save(saver),
        };
        let messages = messages.iter().map(message).collect();
        InboxState { messages, ended: *ended, refused: *refused, reset: *reset }
    }
}

impl InboxState {
    /// Fills the inbox of `socket`.
    fn restore(self, socket: &Arc<UnixSocket>, restorer: &mut Restorer) -> Result<(), Unusable> {
        let mut messages = VecDeque::with_capacity(self.messages.len());
        let (mut bytes, mut carries) = (0, false);
        for MessageState { data: Bytes(data), start, from, control } in self.messages {
            let start = start as usize;
            bytes += data.len().checked_sub(start).ok_or(Unusable::Corrupt("a message"))?;
            let control = control.restore(restorer)?;
            carries |= !control.rights.is_empty();
            messages.push_back(Message { data, start, from, control });
        }
        {
            let mut inbox = socket.inbox.lock();
            (inbox.messages, inbox.bytes) = (messages, bytes);
            (inbox.ended, inbox.refused, inbox.reset) = (self.ended, self.refused, self.reset);
        }
        if carries {
            restorer.kernel.unix.in_flight.sent_to(socket);
        }
        Ok(())
    }
}

impl UnixState {
    /// The socket; peers and what waits in it follow.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(mut self, restorer: &mut Restorer) -> Result<Arc<UnixSocket>, Unusable> {
        let kernel = restorer.kernel.clone();
        let state = State {
            address: self.address.take(),
            peer: Weak::new(),
            connected: self.connected,
            peer_address: self.peer_address.take(),
            peer_creds: self.peer_creds,
            backlog: None,
            shut_write: self.shut_write,
            pass_creds: self.pass_creds,
            blocked: Vec::new(),
        };
        let socket = Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kernel: kernel.clone(),
            kind: self.kind,
            creds: self.creds,
            state: Mutex::new(Level::File, state),
            inbox: Mutex::new(Level::FilePeer, Inbox::default()),
            queue: WaitQueue::new(),
            connecting: Mutex::new(Level::Leaf, None),
            send_buffer: AtomicUsize::new(self.send_buffer as usize),
        });
        for binding in self.bindings.drain(..) {
            match binding {
                Binding::Abstract(net, name) => {
                    let bound = kernel.unix.bind_abstract(net, &name, &socket);
                    bound.map_err(Unusable::step("a socket's name"))?;
                }
                Binding::Inode(key) => kernel.unix.bind_inode(key, &socket),
            }
        }
        let linked = socket.clone();
        restorer.later.push(Box::new(move |restorer| self.link(&linked, restorer)));
        Ok(socket)
    }

    fn link(self, socket: &Arc<UnixSocket>, restorer: &mut Restorer) -> Result<(), Unusable> {
        let peer = self.peer.map(|id| restorer.socket(id)).transpose()?;
        let mut all = |ids: Vec<Id<UnixState>>| {
            ids.into_iter().map(|id| restorer.socket(id)).collect::<Result<Vec<_>, Unusable>>()
        };
        let blocked = all(self.blocked)?;
        let backlog = match self.backlog {
            Some((waiting, max)) => Some((VecDeque::from(all(waiting)?), max as usize)),
            None => None,
        };
        {
            let mut state = socket.state.lock();
            state.peer = peer.as_ref().map(Arc::downgrade).unwrap_or_default();
            state.blocked = blocked.iter().map(Arc::downgrade).collect();
            state.backlog = backlog;
        }
        self.inbox.restore(socket, restorer)?;
        // Weak references keep nothing alive: a peer without an open file would be one that was closed.
        restorer.kept.extend(peer);
        Ok(())
    }
}
