//! Taking over what the command line prepared.

use hostsys::SeqPacket;

use super::container::Fds;
use crate::control;
use crate::failure::{Failure, Result};
use crate::sandbox::config::SandboxConfig;

/// The configuration and its descriptors.
pub struct Taken {
    /// What to do.
    pub config: SandboxConfig,
    /// With what.
    pub fds: Fds,
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
    let fds = Fds::new(config.fds.iter().copied().zip(fds));
    Ok(Taken { config, fds })
}
