//! The lock of a container: one command at a time changes it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::failure::{Failure, Result};

/// How long a command waits for another one to be done with the container: longer than any takes, hooks apart.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Takes the lock at `path`; `None` where the container goes while we wait for it.
///
/// # Errors
/// It is held for longer than `patience`.
pub fn take(path: &Path, patience: Duration) -> Result<Option<Flock<File>>> {
    let Ok(file) = File::options().create(false).write(true).open(path) else { return Ok(None) };
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => wait(file, path, patience)?,
        Err((_, e)) => return Err(Failure::runtime(format!("{}: flock: {e}", path.display()))),
    };
    // The holder before us may have been `delete`.
    let same = lock.metadata().ok().zip(std::fs::metadata(path).ok()).is_some_and(|(a, b)| a.ino() == b.ino());
    Ok(same.then_some(lock))
}

/// flock has no deadline of its own: a thread waits, and is left behind if it waits for too long.
fn wait(file: File, path: &Path, patience: Duration) -> Result<Flock<File>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(Flock::lock(file, FlockArg::LockExclusive)));
    match receiver.recv_timeout(patience) {
        Ok(Ok(lock)) => Ok(lock),
        Ok(Err((_, e))) => Err(Failure::runtime(format!("{}: flock: {e}", path.display()))),
        Err(_) => Err(Failure::runtime(format!(
            "another command has been changing the container for {} s (it holds {})",
            patience.as_secs(),
            path.display()
        ))),
    }
}
