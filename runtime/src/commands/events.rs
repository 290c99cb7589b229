//! `events`.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Context;
use crate::cgroup;
use crate::cli::oci::EventsArgs;
use crate::control::client::{Connection, Heard, PATIENCE};
use crate::control::protocol::{Answer, Request, Stats};
use crate::failure::{Failure, Result};
use crate::output;
use crate::state::{Record, Status};

/// `nanovisor events`: statistics once, or with events until the container ends.
///
/// # Errors
/// No such container, or it has ended.
pub fn events(cx: &Context, args: &EventsArgs) -> Result<()> {
    let record = cx.store.look(&args.id)?;
    if matches!(record.status(), Status::Stopped | Status::Creating) {
        return Err(Failure::runtime(format!("container with id {} is not running", args.id)));
    }
    let directory = cx.store.socket_directory(&record)?;
    let open = || Connection::open(directory.as_fd(), &record.inside);
    if args.stats {
        return print(&record, "stats", Some(data(now(cx, &record)?)));
    }
    let mut connection = open()?;
    connection.call(Request::Watch, &[], PATIENCE)?;
    let mut next = Instant::now() + args.interval;
    loop {
        match connection.hear()? {
            Heard::Answer(_, Answer::Oom) => print(&record, "oom", None)?,
            Heard::Answer(_, Answer::Stats(inside)) => {
                print(&record, "stats", Some(data(stats(&record, Some(inside)))))?
            }
            Heard::Answer(..) => {}
            Heard::Gone => return Ok(()),
            Heard::Nothing => {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    connection.send(Request::Stats, &[])?;
                    next += args.interval;
                    continue;
                }
                let timeout =
                    PollTimeout::try_from(left + std::time::Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
                let _ = poll(&mut [PollFd::new(connection.as_fd(), PollFlags::POLLIN)], timeout);
            }
        }
    }
}

/// What a container uses now.
///
/// # Errors
/// Its directory is gone.
pub fn now(cx: &Context, record: &Record) -> Result<cgroup::Stats> {
    let directory = cx.store.socket_directory(record)?;
    let open = || Connection::open(directory.as_fd(), &record.inside);
    // A frozen sandbox does not answer; its cgroup does.
    let inside = if record.paused { None } else { open().and_then(|mut c| inside(&mut c)).ok() };
    Ok(stats(record, inside))
}

fn data(stats: cgroup::Stats) -> serde_json::Value {
    serde_json::to_value(stats).unwrap_or_default()
}

fn inside(connection: &mut Connection) -> Result<Stats> {
    match connection.call(Request::Stats, &[], PATIENCE)? {
        Answer::Stats(stats) => Ok(stats),
        _ => Err(Failure::runtime("the sandbox does not make sense: another answer than asked for")),
    }
}

/// What the host counts for the sandbox, with the tasks that its guest has; all from inside where no cgroup
/// holds them.
fn stats(record: &Record, inside: Option<Stats>) -> cgroup::Stats {
    // The cgroup of a container in another one's sandbox holds no guest.
    let place = record.cgroup.as_ref().filter(|_| record.pod.is_none());
    let mut stats = place.map(cgroup::Place::stats).unwrap_or_default();
    if let Some(inside) = inside {
        stats.pids.current = inside.pids;
        stats.pids.limit = Some(inside.pids_limit).filter(|&n| n > 0);
        if stats.memory.usage.usage == 0 {
            stats.memory.usage.usage = inside.memory;
            stats.memory.usage.max = inside.memory_max;
            stats.memory.usage.limit = inside.memory_limit;
            stats.memory.usage.failcnt = inside.memory_failcnt;
        }
        if stats.cpu.usage.total == 0 {
            let [total, user, kernel] = inside.cpu;
            (stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.usage.kernel) = (total, user, kernel);
        }
    }
    stats
}

fn print(record: &Record, kind: &str, data: Option<serde_json::Value>) -> Result<()> {
    let mut event = serde_json::json!({ "type": kind, "id": record.id });
    if let (Some(object), Some(data)) = (event.as_object_mut(), data) {
        object.insert("data".into(), data);
    }
    output::print(&format!("{event}\n"))
}
