//! Creating a container: the one call for which a process is started, since a sandbox is forked, and from one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hostsys::process::Handle;

use super::io::{self, Kept, Wanted};
use super::options::Options;
use super::terminal;
use crate::failure::{Failure, Result};

/// How long `nanovisor create` may take. It has a deadline of its own, which comes first.
const PATIENCE: Duration = Duration::from_secs(90);
/// The log of it and of the sandbox, in the bundle.
pub const LOG: &str = "log.json";

/// Runs `nanovisor create`; answers what is to be kept beside the container.
///
/// # Errors
/// In its own words.
pub fn create(root: &Path, id: &str, bundle: &Path, wanted: &Wanted, options: &Options) -> Result<Kept> {
    let log = bundle.join(LOG);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("nanovisor").arg("--root").arg(root).arg("--log").arg(&log).args(["--log-format", "json"]);
    if options.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    if options.debug {
        command.arg("--debug");
    }
    command.arg("create").arg("--bundle").arg(bundle);
    for (key, value) in &options.annotations {
        command.arg("--default-annotation").arg(format!("{key}={value}"));
    }
    let kept = if wanted.terminal {
        let (slave, kept) = terminal::open(wanted)?;
        command.arg("--console-on-stdin");
        streams(&mut command, [copy(&slave)?, copy(&slave)?, slave]);
        kept
    } else {
        let opened = io::open(wanted)?;
        streams(&mut command, opened.ends);
        opened.kept
    };
    command.arg(id);
    let mut child = command.spawn().map_err(|e| Failure::runtime(format!("starting nanovisor create: {e}")))?;
    // Its copies of the streams are ours to close: a reader would never see their end.
    drop(command);
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let handle = hostsys::process::start_time(pid).and_then(|start| Handle::open(pid, start));
    if handle.is_some_and(|handle| !handle.wait(PATIENCE)) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| Failure::runtime(format!("waiting for nanovisor create: {e}")))?;
    if status.success() {
        return Ok(kept);
    }
    Err(Failure::runtime(last_error(&log).unwrap_or_else(|| format!("nanovisor create: {status}"))))
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    hostsys::fds::dup_above(fd.as_fd(), 3).map_err(|e| Failure::host("making the terminal", e))
}

fn streams(command: &mut Command, [stdin, stdout, stderr]: [OwnedFd; 3]) {
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
}

/// The last line of level `error`.
fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = lines.filter(|line| line["level"] == "error");
    errors.next()?["msg"].as_str().map(str::to_owned)
}
