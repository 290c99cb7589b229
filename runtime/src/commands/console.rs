//! `--console-socket`: a pseudo-terminal of the host, whose master goes to whoever listens there.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::failure::{Failure, Result};
use crate::sandbox::config::ConsoleSize;
use crate::sandbox::streams::Streams;

/// Name of the terminal in the message: runc sends the path of the slave; receivers only need one.
const NAME: &[u8] = b"/dev/ptmx";

/// Refuses combinations that runc refuses, in its words.
///
/// # Errors
/// A terminal that nobody would get, or a socket for none.
pub fn check(terminal: bool, detach: bool, socket: Option<&Path>) -> Result<()> {
    if terminal && detach && socket.is_none() {
        return Err(Failure::runtime("cannot allocate tty if runc will detach without setting console socket"));
    }
    if socket.is_some() && !(terminal && detach) {
        return Err(Failure::runtime("cannot use console socket if runc will not detach or allocate tty"));
    }
    Ok(())
}

/// Makes a terminal and sends its master to `socket`.
///
/// # Errors
/// Nobody listens there; out of terminals.
pub fn open(socket: &Path, size: ConsoleSize) -> Result<Streams> {
    let failed = |e: std::io::Error| Failure::runtime(format!("--console-socket {}: {e}", socket.display()));
    let stream = UnixStream::connect(socket).map_err(failed)?;
    let window = hostsys::tty::WindowSize { rows: size.rows, cols: size.cols };
    let (master, slave) = hostsys::tty::raw_pair(window).map_err(|e| Failure::host("making the terminal", e))?;
    send(&stream, &master).map_err(|e| failed(e.into()))?;
    Streams::of_terminal(slave, size)
}

fn send(stream: &UnixStream, master: &OwnedFd) -> nix::Result<()> {
    let iov = [std::io::IoSlice::new(NAME)];
    let fds = [master.as_raw_fd()];
    sendmsg::<()>(stream.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&fds)], MsgFlags::MSG_NOSIGNAL, None)
        .map(|_| ())
}
