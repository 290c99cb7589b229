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

/// The two files of a snapshot.
pub struct Folder {
    /// Kernel objects.
    pub state: OwnedFd,
    /// Guest memory.
    pub pages: OwnedFd,
}

impl Folder {
    /// Opens the snapshot in `dir`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Folder { state: open(dir, STATE)?, pages: open(dir, PAGES)? })
    }

    /// New files in `dir`, which is made where it is not there.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn make(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| failed("making", dir, &e))?;
        Ok(Folder { state: create(dir, STATE)?, pages: create(dir, PAGES)? })
    }

    /// The same beside a snapshot that may be there: [`Folder::put_in_place`] or [`Folder::discard`] comes next.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn make_beside(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| failed("making", dir, &e))?;
        Ok(Folder { state: create(dir, &new(STATE))?, pages: create(dir, &new(PAGES))? })
    }

    /// The new snapshot takes the old one's place. Should it be interrupted, the halves do not match, and are refused.
    ///
    /// # Errors
    /// What `rename(2)` says.
    pub fn put_in_place(dir: &Path) -> Result<()> {
        for name in [PAGES, STATE] {
            let path = dir.join(name);
            fs::rename(dir.join(new(name)), &path).map_err(|e| failed("writing", &path, &e))?;
        }
        Ok(())
    }

    /// Removes a new snapshot that is not whole.
    pub fn discard(dir: &Path) {
        for name in [STATE, PAGES] {
            let _ = fs::remove_file(dir.join(new(name)));
        }
    }

    /// The descriptors of a sandbox to be restored, with their roles.
    #[must_use]
    pub fn into_fds(self) -> Vec<(Role, OwnedFd)> {
        vec![(Role::RestoreState, self.state), (Role::RestorePages, self.pages)]
    }
}

/// The files that `args` speak of, each with its role.
///
/// # Errors
/// A folder that cannot be made or written; a snapshot that is not there.
pub fn files(args: &DoArgs) -> Result<Vec<(Role, OwnedFd)>> {
    let mut files = Vec::new();
    if let Some(dir) = &args.restore {
        files.extend(Folder::open(dir)?.into_fds());
    }
    if let Some(dir) = &args.checkpoint_at_ready {
        let Folder { state, pages } = Folder::make(dir)?;
        files.extend([(Role::CheckpointState, state), (Role::CheckpointPages, pages)]);
    }
    Ok(files)
}

fn open(dir: &Path, name: &str) -> Result<OwnedFd> {
    let path = dir.join(name);
    File::open(&path).map(OwnedFd::from).map_err(|e| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        let status = if missing { Status::Snapshot } else { Status::Runtime };
        Failure::io(status, &format!("opening the snapshot {}", path.display()), &e)
    })
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

/// What is not whole yet.
fn new(name: &str) -> String {
    format!("{name}.new")
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::io(Status::Runtime, &format!("{doing} {}", path.display()), error)
}
