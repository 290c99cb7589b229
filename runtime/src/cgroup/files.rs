//! Files and directories of cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxCpu;

use crate::failure::{Failure, Result};

/// Rounds of waiting for a cgroup to become empty or frozen, each twice as long as the one before: 2 ms to 1 s, 2 s together.
const ROUNDS: u32 = 10;

fn failed(path: &Path, e: &io::Error) -> Failure {
    Failure::runtime(format!("cgroup {}: {e}", path.display()))
}

/// Makes a cgroup and those above it. One that is there already is used: others may have made it for us.
pub fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))
}

/// Writes a value.
pub fn write(dir: &Path, file: &str, value: impl std::fmt::Display) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, value.to_string())
        .map_err(|e| Failure::runtime(format!("cgroup {}: writing {value}: {e}", path.display())))
}

/// Writes the CPUs and memory nodes, whose files are the same in both versions.
pub fn set_cpuset(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            write(dir, file, value)?;
        }
    }
    Ok(())
}

/// Writes a value if this kernel has the file.
pub fn write_if_there(dir: &Path, file: &str, value: impl std::fmt::Display) -> Result<()> {
    if dir.join(file).exists() {
        return write(dir, file, value);
    }
    log::warn!("cgroup {}: this host has no {file}; not limited to {value}", dir.display());
    Ok(())
}

/// Reads a value, without its line end.
pub fn read(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok().map(|text| text.trim_end().to_owned())
}

/// Reads a number; `max` and what is no number are `None`.
pub fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file)?.parse().ok()
}

/// Reads `key value` lines.
pub fn table(dir: &Path, file: &str) -> Vec<(String, u64)> {
    let text = read(dir, file).unwrap_or_default();
    let pair = |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

/// Puts a process in.
pub fn add(dir: &Path, pid: i32) -> Result<()> {
    write(dir, "cgroup.procs", pid)
}

/// Kills what is in a cgroup and below.
pub fn kill_all(dir: &Path) {
    // Linux 5.14, v2: all at once, forks included.
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for dir in below(dir) {
        for pid in read(&dir, "cgroup.procs").unwrap_or_default().lines().filter_map(|l| l.parse().ok()) {
            if pid > 0 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// A cgroup and those below it, the lowest first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    found.push(dir.to_owned());
    found
}

/// Tries until it works, or for two seconds. The kernel tells nobody when the last task of a v1 cgroup has gone from
/// its lists (which is after its parent saw it end), so there is nothing to wait on.
pub fn patiently(mut attempt: impl FnMut() -> bool) -> bool {
    for round in 0..=ROUNDS {
        if attempt() {
            return true;
        }
        let _ = poll(&mut [], PollTimeout::from(2u16 << round.min(9)));
    }
    false
}

/// Removes a cgroup and what is below it.
pub fn remove(dir: &Path) -> Result<()> {
    let mut last = None;
    let gone = patiently(|| {
        for dir in below(dir) {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => last = Some(failed(&dir, &e)),
                _ => {}
            }
        }
        !dir.exists()
    });
    match last {
        Some(failure) if !gone => Err(failure),
        _ => Ok(()),
    }
}
