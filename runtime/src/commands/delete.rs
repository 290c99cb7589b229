//! `delete`.

use std::os::fd::AsFd;
use std::time::Duration;

use hostsys::process::Handle;

use super::{Context, join};
use crate::cli::oci::DeleteArgs;
use crate::failure::{Failure, Result};
use crate::hooks::{self, Kind};
use crate::kill_points::pass;
use crate::state::{Container, Record, Status};

/// How long a killed sandbox may take to be gone: it has guest memory to give back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long `--force` waits for the lock.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);

/// `nanovisor delete`.
///
/// # Errors
/// No such container; it runs, and no `--force`.
pub fn delete(cx: &Context, args: &DeleteArgs) -> Result<()> {
    if args.force {
        return by_force(cx, &args.id);
    }
    let container = cx.store.take(&args.id)?;
    match container.record.status() {
        // One in the making whose maker is gone (we hold its lock) has nothing to lose.
        Status::Stopped | Status::Created | Status::Creating => remove(container),
        status => {
            Err(Failure::runtime(format!("cannot delete container {} that is not stopped: {}", args.id, status.name())))
        }
    }
}

/// Removes a container in whatever state it is. One that is not there is no failure.
///
/// # Errors
/// Something of it cannot be removed.
pub fn by_force(cx: &Context, id: &str) -> Result<()> {
    match cx.store.take_by_force(id, FORCE_PATIENCE) {
        Ok(container) => remove(container),
        Err(failure) if failure.message.contains("does not exist") => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn remove(container: Container) -> Result<()> {
    let gone = destroy(&container.record);
    if gone {
        pass("delete-emptied");
        hooks::run_all_the_same(Kind::Poststop, &container.record, Status::Stopped);
        container.forget();
        return Ok(());
    }
    Err(Failure::runtime(format!("container {} could not be removed whole; try again", container.record.id)))
}

/// Ends the processes of a container and removes its cgroups. False where something lives on.
pub fn destroy(record: &Record) -> bool {
    if let Some(pod) = &record.pod
        && let Ok(directory) = std::fs::File::open(&pod.directory)
        && !join::destroy(directory.as_fd(), &record.inside)
    {
        // It goes with the process that stands for it, or with its sandbox.
        log::debug!("container {} was not in its sandbox any more", record.id);
    }
    let handle = Handle::open(record.pid, record.start_time).filter(|_| record.pid > 0);
    if let Some(place) = &record.cgroup {
        // First: what is frozen does not die.
        place.kill_all();
    }
    let ended = handle.is_none_or(|process| {
        process.signal(libc::SIGKILL);
        process.wait(PATIENCE)
    });
    if !ended {
        log::error!("process {} of container {} does not end", record.pid, record.id);
        return false;
    }
    pass("delete-killed");
    match record.cgroup.as_ref().map_or(Ok(()), crate::cgroup::Place::remove) {
        Ok(()) => true,
        Err(failure) => {
            log::error!("{failure}");
            false
        }
    }
}
