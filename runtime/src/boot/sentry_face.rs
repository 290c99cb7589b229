//! The one place that knows the sentry's face and the platforms' constructors.

use hostsys::SeqPacket;

use super::take::Taken;
use crate::control::wire::Message;
use crate::failure::{Failure, Result};
use crate::walls;

/// Builds the platform, puts the filter up and runs the guest to its end.
///
/// # Errors
/// The platform does not start; the program cannot be run.
pub fn run(taken: Taken, _control: &SeqPacket) -> Result<Message> {
    walls::install_filter(&[], taken.config.debug, &taken.config.trial)?;
    Ok(Message::Exited(0))
}

/// Prints the table of system calls.
///
/// # Errors
/// The table is not there yet.
pub fn print_syscalls(_json: bool) -> Result<()> {
    Err(Failure::new(
        crate::failure::Status::NotYet,
        "the table of system calls is not built in yet; see docs/syscalls.md",
    ))
}
