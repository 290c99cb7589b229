//! Calls that wait for a connection as saved state.

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::{AcceptOp, ConnectOp};
use crate::checkpoint::{Bytes, Id, Restorer, Saver, Unusable};
use crate::kernel::op::Op;
use crate::net::SocketFile;
use crate::vfs::OpenFlags;
use crate::vfs::saved::FileState;

/// [`ConnectOp`]. The socket is that of the file.
#[derive(Serialize, Deserialize)]
pub struct ConnectState {
    file: Id<FileState>,
    addr: Bytes,
    deadline: Option<i64>,
}

/// [`AcceptOp`].
#[derive(Serialize, Deserialize)]
pub struct AcceptState {
    file: Id<FileState>,
    addr: UserAddr,
    len: UserAddr,
    flags: u32,
    deadline: Option<i64>,
}

impl ConnectOp {
    pub(super) fn state(&self, saver: &mut Saver) -> ConnectState {
        let ConnectOp { file, socket: _, addr, deadline } = self;
        ConnectState { file: saver.files.id(file), addr: Bytes(addr.clone()), deadline: *deadline }
    }
}

impl AcceptOp {
    pub(super) fn state(&self, saver: &mut Saver) -> AcceptState {
        let AcceptOp { file, socket: _, addr, len, flags, deadline } = self;
        let file = saver.files.id(file);
        AcceptState { file, addr: *addr, len: *len, flags: flags.bits(), deadline: *deadline }
    }
}

impl ConnectState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let file = restorer.file(self.file)?;
        let socket = SocketFile::of(&file).map_err(Unusable::step("a connect"))?.socket.clone();
        Ok(Box::new(ConnectOp { file, socket, addr: self.addr.0, deadline: self.deadline }))
    }
}

impl AcceptState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let file = restorer.file(self.file)?;
        let socket = SocketFile::of(&file).map_err(Unusable::step("an accept"))?.socket.clone();
        let flags = OpenFlags::from_bits_retain(self.flags);
        Ok(Box::new(AcceptOp { file, socket, addr: self.addr, len: self.len, flags, deadline: self.deadline }))
    }
}
