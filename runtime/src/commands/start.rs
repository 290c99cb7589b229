//! `start`.

use std::os::fd::AsFd;

use super::Context;
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::Request;
use crate::failure::{Failure, Result};
use crate::hooks::{self, Kind};
use crate::kill_points::pass;
use crate::state::{Phase, Record, Status};

/// `nanovisor start`.
///
/// # Errors
/// A container that is not merely created; a hook that fails.
pub fn start(cx: &Context, id: &str) -> Result<()> {
    let mut container = cx.store.take(id)?;
    match container.record.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::runtime("cannot start a container that has stopped")),
        Status::Running | Status::Paused => return Err(Failure::runtime("cannot start an already running container")),
        Status::Creating => return Err(Failure::runtime("cannot start a container in the creating state")),
    }
    hooks::run(Kind::StartContainer, &container.record, Status::Created)?;
    // Written first: whoever sees the program run must not be told that it waits.
    container.record.phase = Phase::Running;
    container.save()?;
    pass("start-saved");
    if let Err(failure) = tell(cx, &container.record) {
        container.record.phase = Phase::Created;
        container.save()?;
        return Err(failure);
    }
    pass("start-started");
    hooks::run_all_the_same(Kind::Poststart, &container.record, Status::Running);
    Ok(())
}

/// Gives the first process the word.
///
/// # Errors
/// The sandbox is gone, or refuses.
pub fn tell(cx: &Context, record: &Record) -> Result<()> {
    let directory = cx.store.socket_directory(record)?;
    Connection::open(directory.as_fd(), &record.inside)?.call(Request::Start, &[], PATIENCE).map(|_| ())
}
