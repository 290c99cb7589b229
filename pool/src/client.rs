//! Asking a pool.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hostsys::SeqPacket;

use crate::proto::{Ask, POOL_SOCKET, Stats, Told, receive, send};

/// How long a pool may take: it makes a blank meanwhile, at worst.
const PATIENCE: Duration = Duration::from_secs(5);

/// A blank sandbox, ours now.
#[derive(Debug)]
pub struct Taken {
    /// Its process id.
    pub pid: i32,
    /// Its control socket.
    pub control: SeqPacket,
}

/// Takes a blank of `kind` from the pool that listens in `directory`. `None` where it has none.
///
/// # Errors
/// There is no pool, or it makes no sense.
pub fn take(directory: BorrowedFd<'_>, kind: &str) -> io::Result<Option<Taken>> {
    let (told, fds) = ask(directory, &Ask::Take { kind: kind.to_owned() })?;
    match (told, fds.into_iter().next()) {
        (Told::Blank { pid }, Some(fd)) => Ok(Some(Taken { pid, control: SeqPacket::from_fd(fd) })),
        (Told::Empty, _) => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The figures of the pool that listens in `directory`.
///
/// # Errors
/// There is no pool, or it makes no sense.
pub fn stats(directory: BorrowedFd<'_>) -> io::Result<Stats> {
    match ask(directory, &Ask::Stats)?.0 {
        Told::Stats(stats) => Ok(stats),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn ask(directory: BorrowedFd<'_>, ask: &Ask) -> io::Result<(Told, Vec<std::os::fd::OwnedFd>)> {
    let socket =
        SeqPacket::connect(directory.as_fd(), POOL_SOCKET).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    send(&socket, ask, &[])?;
    let message = receive(&socket, PATIENCE)?;
    Ok((serde_json::from_slice(&message.bytes)?, message.fds))
}
