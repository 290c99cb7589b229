//! `pause` and `resume`: the sandbox's kernel stops its tasks, and the host's freezer holds the sandbox.

use std::os::fd::AsFd;

use super::{Context, pod};
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::Request;
use crate::failure::{Failure, Result};
use crate::state::Status;

/// `nanovisor pause`.
///
/// # Errors
/// It does not run; it cannot be held.
pub fn pause(cx: &Context, id: &str) -> Result<()> {
    let mut container = cx.store.take(id)?;
    if !matches!(container.record.status(), Status::Running | Status::Created) {
        return Err(Failure::runtime(format!(
            "container not running or created: {}",
            container.record.status().name()
        )));
    }
    let directory = cx.store.socket_directory(&container.record)?;
    let mut connection = Connection::open(directory.as_fd(), &container.record.inside)?;
    connection.call(Request::Pause, &[], PATIENCE)?;
    container.record.paused = true;
    container.save()?;
    // A sandbox that others live in goes on.
    let alone = container.record.pod.is_none() && pod::members(cx, id).is_empty();
    if let Some(place) = container.record.cgroup.as_ref().filter(|_| alone)
        && let Err(failure) = place.freeze(true)
    {
        // Its guest is held all the same.
        log::warn!("{failure}");
    }
    Ok(())
}

/// `nanovisor resume`.
///
/// # Errors
/// It is not paused.
pub fn resume(cx: &Context, id: &str) -> Result<()> {
    let mut container = cx.store.take(id)?;
    if !container.record.paused || container.record.status() == Status::Stopped {
        return Err(Failure::runtime("container not paused"));
    }
    if let Some(place) = &container.record.cgroup {
        place.freeze(false)?;
    }
    let directory = cx.store.socket_directory(&container.record)?;
    let mut connection = Connection::open(directory.as_fd(), &container.record.inside)?;
    connection.call(Request::Resume, &[], PATIENCE)?;
    container.record.paused = false;
    container.save()
}
