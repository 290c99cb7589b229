//! Taking over what the command line prepared.

use std::os::fd::OwnedFd;

use hostsys::SeqPacket;

use crate::control;
use crate::failure::{Failure, Result};
use crate::sandbox::config::{Role, SandboxConfig};

/// The configuration and its descriptors.
pub struct Taken {
    /// What to do.
    pub config: SandboxConfig,
    fds: Vec<(Role, OwnedFd)>,
}

/// Receives the configuration.
///
/// # Errors
/// The command line is gone, or sent other descriptors than it said.
pub fn take(control: &SeqPacket) -> Result<Taken> {
    let (config, fds): (SandboxConfig, _) = control::receive_config(control)?;
    if config.fds.len() != fds.len() {
        let text = format!("{} descriptors were promised and {} came", config.fds.len(), fds.len());
        return Err(Failure::runtime(text));
    }
    let fds = config.fds.iter().copied().zip(fds).collect();
    Ok(Taken { config, fds })
}

impl Taken {
    /// Takes the descriptor with this role out, if it came.
    pub fn fd(&mut self, role: Role) -> Option<OwnedFd> {
        let at = self.fds.iter().position(|(r, _)| *r == role)?;
        Some(self.fds.swap_remove(at).1)
    }

    /// Takes a descriptor out that must be there.
    ///
    /// # Errors
    /// It did not come.
    pub fn need(&mut self, role: Role) -> Result<OwnedFd> {
        self.fd(role).ok_or_else(|| Failure::runtime(format!("the sandbox got no {role:?} descriptor")))
    }
}
