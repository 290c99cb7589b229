//! A command that has connected.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hostsys::SeqPacket;
use sentry::boot::{Control, Target};
use sentry::checkpoint::Destination;

use super::container::{self, Fds};
use crate::control::protocol::{self, Answer, Assembler, Call, Request, Whole};
use crate::failure::{Failure, Result};
use crate::sandbox::config::Role;
use crate::sandbox::describe::ProcessConfig;

/// Its connection.
pub struct Peer {
    socket: SeqPacket,
    assembler: Assembler,
    /// The container whose events it wants.
    pub watches: Option<String>,
}

impl Peer {
    /// A fresh connection.
    pub fn new(socket: SeqPacket) -> Self {
        Peer { socket, assembler: Assembler::default(), watches: None }
    }

    /// The next request, if it is there whole.
    ///
    /// # Errors
    /// The end of the connection: by itself, or for a reason.
    pub fn hear(&mut self) -> std::result::Result<Option<Whole<Call>>, Option<String>> {
        loop {
            let packet = match self.socket.try_receive() {
                Ok(None) => return Ok(None),
                Ok(Some(packet)) if packet.is_eof() => return Err(None),
                Ok(Some(packet)) => packet,
                Err(e) => return Err(Some(e.to_string())),
            };
            if let Some(whole) = self.assembler.take(packet).map_err(Some)? {
                return Ok(Some(whole));
            }
        }
    }

    /// Sends an answer or (with id 0) an event. Never waits.
    ///
    /// # Errors
    /// It does not listen, or too slowly.
    pub fn tell(&mut self, id: u64, answer: &Answer) -> std::result::Result<(), String> {
        for packet in protocol::encode(id, answer)? {
            if !self.socket.try_send(&packet, &[]).map_err(|e| e.to_string())? {
                return Err("it does not read its answers".to_owned());
            }
        }
        Ok(())
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sentry's form of a request; `None` for one that is not its business.
///
/// # Errors
/// Descriptors are missing.
pub fn control(call: Call, fds: Vec<OwnedFd>) -> Result<Option<Control>> {
    let id = call.container;
    Ok(Some(match call.request {
        Request::Start => Control::Start { id },
        Request::Exec { process, stderr } => {
            let mut fds = Fds::new(roles(&process, stderr).into_iter().zip(fds));
            Control::Exec { id, process: Box::new(container::process(*process, &mut fds)?) }
        }
        Request::Signal { target, signo } => {
            let target = match target {
                protocol::Target::Init => Target::Init,
                protocol::Target::Process(pid) => Target::Process(pid),
                protocol::Target::All => Target::All,
            };
            Control::Signal { id, target, signo }
        }
        Request::WindowSize { pid, rows, cols } => Control::WindowSize { id, pid, rows, cols },
        Request::Pause => Control::Pause { id },
        Request::Resume => Control::Resume { id },
        Request::Processes => Control::Processes { id },
        Request::Stats => Control::Stats { id },
        Request::Update(limits) => Control::Update { id, limits: container::limits(limits) },
        Request::Checkpoint { at_ready, stop } => {
            let mut fds = fds.into_iter().map(File::from);
            let (Some(state), Some(pages)) = (fds.next(), fds.next()) else {
                return Err(Failure::runtime("a checkpoint without files"));
            };
            Control::Checkpoint { id, destination: Box::new(Destination { state, pages, stop_after: stop }), at_ready }
        }
        Request::Watch => return Ok(None),
        Request::Create { mut container, fds: roles } => {
            container.id = id;
            let mut fds = Fds::new(roles.into_iter().zip(fds));
            Control::Create(Box::new(container::container(*container, &mut fds)?))
        }
        Request::Destroy => Control::Destroy { id },
    }))
}

/// What the descriptors of an exec are.
fn roles(process: &ProcessConfig, stderr: bool) -> Vec<Role> {
    let mut roles = match (process.console, stderr) {
        (Some(_), true) => vec![Role::Console, Role::Stderr],
        (Some(_), false) => vec![Role::Console],
        (None, _) => vec![Role::Stdin, Role::Stdout, Role::Stderr],
    };
    roles.extend((0..process.preserved.min(64)).map(|_| Role::Preserved));
    roles
}
