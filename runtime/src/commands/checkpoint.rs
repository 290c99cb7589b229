//! `checkpoint`.

use std::os::fd::AsFd;

use super::{Context, delete};
use crate::checkpoint::Folder;
use crate::cli::snapshots::{CheckpointArgs, Compression, CriuArgs};
use crate::control::client::Connection;
use crate::control::protocol::Request;
use crate::failure::{Failure, Result, Status};
use crate::kill_points::pass;
use crate::state::{Record, Status as Phase};

/// `nanovisor checkpoint`: as runc's, without `--leave-running` the container is removed after it.
///
/// # Errors
/// It does not run; something of it cannot be saved: it goes on then, and no snapshot is there.
pub fn checkpoint(cx: &Context, args: &CheckpointArgs) -> Result<()> {
    check(args)?;
    // Others must be able to change a container whose program is waited for.
    let container = if args.at_ready { None } else { Some(cx.store.take(&args.id)?) };
    let record =
        container.as_ref().map_or_else(|| cx.store.look(&args.id), |container| Ok(container.record.clone()))?;
    if record.pod.is_some() {
        let why = format!("container {} shares its sandbox with a pod, whose containers are not saved yet", args.id);
        return Err(Failure::runtime(why));
    }
    write(cx, &record, args)?;
    if args.leave_running {
        return Ok(());
    }
    pass("checkpoint-written");
    drop(container);
    delete::by_force(cx, &args.id)
}

/// Flags that promise what is not kept are refused, by name.
fn check(args: &CheckpointArgs) -> Result<()> {
    let refused = |flag: &str, why: &str| Err(Failure::new(Status::Usage, format!("{flag}: {why}")));
    if args.compression == Compression::Zstd {
        return refused("--compression zstd", "sandboxes map the pages file as it is; compress the folder to move it");
    }
    let incremental = args.pre_dump || args.parent_path.is_some();
    if incremental {
        return refused("--pre-dump, --parent-path", "a snapshot is whole; there are no incremental ones");
    }
    if args.lazy_pages || args.status_fd.is_some() || args.page_server.is_some() {
        return refused("--lazy-pages, --status-fd, --page-server", "pages lie in the snapshot's own file");
    }
    warn_of_criu(&args.criu);
    Ok(())
}

/// CRIU's flags that somebody may count on.
pub fn warn_of_criu(criu: &CriuArgs) {
    if criu.tcp_established {
        log::warn!("--tcp-established: connections to the outside are not saved; a container that has one is refused");
    }
    if let Some(mode) = criu.manage_cgroups_mode.as_deref().filter(|mode| *mode != "soft") {
        log::warn!("--manage-cgroups-mode {mode}: ignored; a container's cgroup is made of its bundle");
    }
}

/// Writes a snapshot of the container of `record`.
fn write(cx: &Context, record: &Record, args: &CheckpointArgs) -> Result<()> {
    let dir = args.image_path.as_path();
    let paused = match record.status() {
        Phase::Running => false,
        Phase::Created if args.at_ready => false,
        Phase::Paused => true,
        status => return Err(Failure::runtime(format!("container not running or paused: {}", status.name()))),
    };
    if paused && args.at_ready {
        return Err(Failure::runtime("container paused: its program cannot become ready"));
    }
    let folder = Folder::make_beside(dir)?;
    pass("checkpoint-files");
    // The host's freezer holds the sandbox's kernel too, which is to answer; its guest stays held by that kernel.
    let held = record.cgroup.as_ref().filter(|_| paused);
    held.map_or(Ok(()), |place| place.freeze(false))?;
    let request = Request::Checkpoint { at_ready: args.at_ready, stop: !args.leave_running };
    let answer = cx.store.directory(&record.id).and_then(|directory| {
        let mut connection = Connection::open(directory.as_fd(), &record.inside)?;
        connection.call(request, &[folder.state.as_fd(), folder.pages.as_fd()], args.timeout)
    });
    if let (true, Some(place)) = (args.leave_running || answer.is_err(), held) {
        place.freeze(true)?;
    }
    match answer {
        Ok(_) => Folder::put_in_place(dir),
        Err(failure) => {
            Folder::discard(dir);
            Err(failure)
        }
    }
}
