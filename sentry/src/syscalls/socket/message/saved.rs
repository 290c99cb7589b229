//! Calls that send or receive as saved state.

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::{ManyOp, RecvOp, RecvOutput, SendOp};
use crate::checkpoint::op::OpState;
use crate::checkpoint::{Bytes, Id, Refused, Restorer, Saver, Unusable};
use crate::kernel::op::Op;
use crate::net::socket::Destination;
use crate::net::unix::saved::{ControlState, UnixState};
use crate::net::{MsgFlags, SocketFile};
use crate::vfs::IoCursor;
use crate::vfs::saved::FileState;

#[derive(Serialize, Deserialize)]
enum DestinationState {
    Unix(Id<UnixState>),
    Address(Bytes),
}

/// [`SendOp`]. The socket is that of the file.
#[derive(Serialize, Deserialize)]
pub struct SendState {
    file: Id<FileState>,
    cursor: IoCursor,
    to: Option<DestinationState>,
    control: ControlState,
    flags: u32,
    deadline: Option<i64>,
}

/// [`RecvOp`].
#[derive(Serialize, Deserialize)]
pub struct RecvState {
    file: Id<FileState>,
    cursor: IoCursor,
    output: RecvOutput,
    flags: u32,
    deadline: Option<i64>,
}

impl SendOp {
    pub(super) fn state(&self, saver: &mut Saver) -> Result<SendState, Refused> {
        let SendOp { file, socket: _, cursor, to, control, flags, deadline } = self;
        let to = to.as_ref().map(|to| match to {
            Destination::Unix(socket) => DestinationState::Unix(saver.sockets.id(socket)),
            Destination::Address(address) => DestinationState::Address(Bytes(address.clone())),
        });
        Ok(SendState {
            file: saver.files.id(file),
            cursor: cursor.clone(),
            to,
            control: control.save(saver),
            flags: flags.bits(),
            deadline: *deadline,
        })
    }
}

impl SendState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let file = restorer.file(self.file)?;
        let socket = SocketFile::of(&file).map_err(Unusable::step("a send"))?.socket.clone();
        let to = match self.to {
            None => None,
            Some(DestinationState::Unix(id)) => Some(Destination::Unix(restorer.socket(id)?)),
            Some(DestinationState::Address(Bytes(address))) => Some(Destination::Address(address)),
        };
        Ok(Box::new(SendOp {
            file,
            socket,
            cursor: self.cursor.checked().ok_or(Unusable::Corrupt("a send"))?,
            to,
            control: self.control.restore(restorer)?,
            flags: MsgFlags::from_bits_retain(self.flags),
            deadline: self.deadline,
        }))
    }
}

impl RecvOp {
    pub(super) fn state(&self, saver: &mut Saver) -> RecvState {
        let RecvOp { file, socket: _, cursor, output, flags, deadline } = self;
        let (file, cursor) = (saver.files.id(file), cursor.clone());
        RecvState { file, cursor, output: *output, flags: flags.bits(), deadline: *deadline }
    }
}

impl RecvState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let file = restorer.file(self.file)?;
        let socket = SocketFile::of(&file).map_err(Unusable::step("a receive"))?.socket.clone();
        let cursor = self.cursor.checked().ok_or(Unusable::Corrupt("a receive"))?;
        let flags = MsgFlags::from_bits_retain(self.flags);
        Ok(Box::new(RecvOp { file, socket, cursor, output: self.output, flags, deadline: self.deadline }))
    }
}

/// The message that a [`ManyOp`] is at.
#[derive(Serialize, Deserialize)]
enum CurrentState {
    Send(SendState),
    Recv(RecvState),
}

/// [`ManyOp`].
#[derive(Serialize, Deserialize)]
pub struct ManyState {
    file: Id<FileState>,
    at: UserAddr,
    count: u32,
    done: u32,
    flags: u32,
    send: bool,
    current: Option<CurrentState>,
    deadline: Option<i64>,
}

impl ManyOp {
    pub(super) fn state(&self, saver: &mut Saver) -> Result<ManyState, Refused> {
        let ManyOp { file, at, count, done, flags, send, current, deadline } = self;
        let current = match current.as_ref().map(|op| op.save(saver)).transpose()? {
            None => None,
            Some(OpState::Send(state)) => Some(CurrentState::Send(state)),
            Some(OpState::Recv(state)) => Some(CurrentState::Recv(state)),
            Some(_) => return Err(Refused::waiting(self.name())),
        };
        Ok(ManyState {
            file: saver.files.id(file),
            at: *at,
            count: *count,
            done: *done,
            flags: *flags,
            send: *send,
            current,
            deadline: *deadline,
        })
    }
}

impl ManyState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let ManyState { file, at, count, done, flags, send, current, deadline } = self;
        let file = restorer.file(file)?;
        SocketFile::of(&file).map_err(Unusable::step("a socket"))?;
        let current = match current {
            None => None,
            Some(CurrentState::Send(state)) => Some(state.restore(restorer)?),
            Some(CurrentState::Recv(state)) => Some(state.restore(restorer)?),
        };
        Ok(Box::new(ManyOp { file, at, count, done, flags, send, current, deadline }))
    }
}
