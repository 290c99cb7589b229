//! `ps`.

use std::os::fd::AsFd;

use super::{Context, list};
use crate::cli::oci::{ListFormat, PsArgs};
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::{Answer, Process, Request};
use crate::control::wire::printable;
use crate::failure::{Failure, Result};
use crate::output;
use crate::state::Status;

/// `nanovisor ps`: the guest's processes, by their ids inside; as JSON the host's, as runc and those who read it have it.
///
/// # Errors
/// No such container, or it has ended.
pub fn ps(cx: &Context, args: &PsArgs) -> Result<()> {
    let record = cx.store.look(&args.id)?;
    if matches!(record.status(), Status::Stopped | Status::Creating) {
        return Err(Failure::runtime("container not running"));
    }
    if args.format == ListFormat::Json {
        return output::print(&format!("{}\n", serde_json::json!([record.pid])));
    }
    let directory = cx.store.socket_directory(&record)?;
    let answer = Connection::open(directory.as_fd(), &record.inside)?.call(Request::Processes, &[], PATIENCE)?;
    let Answer::Processes(mut all) = answer else {
        return Err(Failure::runtime("the sandbox does not make sense: another answer than asked for"));
    };
    all.sort_by_key(|process| process.pid);
    let head = ["UID", "PID", "PPID", "TIME", "CMD"].map(str::to_owned).to_vec();
    let rows = std::iter::once(head).chain(all.iter().map(row)).collect();
    output::print(&list::columns(rows))
}

fn row(process: &Process) -> Vec<String> {
    let seconds = process.cpu / 1_000_000_000;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let command = printable(process.command.as_bytes());
    vec![process.uid.to_string(), process.pid.to_string(), process.ppid.to_string(), time, command]
}
