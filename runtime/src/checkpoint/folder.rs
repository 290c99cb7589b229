//! The folder of a snapshot, as the command line opens it: the sandbox gets descriptors.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cli::DoArgs;
use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::Role;

/// Kernel objects.
const STATE: &str = "state";
/// Guest memory.
const PAGES: &str = "pages";

/// The files that `args` speak of, each with its role.
///
/// # Errors
/// A folder that cannot be made or written; a snapshot that is not there.
pub fn files(args: &DoArgs) -> Result<Vec<(Role, OwnedFd)>> {
    let mut files = Vec::new();
    if let Some(dir) = &args.restore {
        files.push((Role::RestoreState, open(dir, STATE)?));
        files.push((Role::RestorePages, open(dir, PAGES)?));
    }
    if let Some(dir) = &args.checkpoint_at_ready {
        fs::create_dir_all(dir).map_err(|e| failed("making", dir, &e))?;
        files.push((Role::CheckpointState, create(dir, STATE)?));
        files.push((Role::CheckpointPages, create(dir, PAGES)?));
    }
    Ok(files)
}

fn open(dir: &Path, name: &str) -> Result<OwnedFd> {
    let path = dir.join(name);
    File::open(&path).map(OwnedFd::from).map_err(|e| failed("opening the snapshot", &path, &e))
}

/// A new file, in the place of an old one: sandboxes that run from that keep it.
fn create(dir: &Path, name: &str) -> Result<OwnedFd> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replacing", &path, &e)),
        _ => {}
    }
    // What a program held in memory is its owner's alone.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.map(OwnedFd::from).map_err(|e| failed("making", &path, &e))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::io(Status::Runtime, &format!("{doing} {}", path.display()), error)
}
