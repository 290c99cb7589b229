//! Who keeps a template: a process that does nothing else but hand out its descriptors. It outlives whoever made the
//! template, and the pool.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hostsys::SeqPacket;
use hostsys::seqpacket::Listener;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::proto::receive;
use crate::sealed::Sealed;

/// The socket's name in a template's directory.
pub const TEMPLATE_SOCKET: &str = "template.sock";
/// What goes with the descriptors.
const WORD: &[u8] = b"template 1";
/// How long a holder may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hands the template out to whoever connects, until the process is killed.
pub fn hold(template: &Sealed, listener: &Listener) -> ! {
    loop {
        let _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        while let Ok(Some(peer)) = listener.accept() {
            // Who does not take it has gone: it is a new connection's first message, so there is room for it.
            let _ = peer.try_send(WORD, &[template.state.as_fd(), template.pages.as_fd()]);
        }
    }
}

/// Fetches the template that is held in `directory`.
///
/// # Errors
/// Its holder is gone (`ECONNREFUSED`, `ENOENT`), or is none.
pub fn fetch(directory: BorrowedFd<'_>) -> io::Result<Sealed> {
    let socket = SeqPacket::connect(directory, TEMPLATE_SOCKET).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    let message = receive(&socket, PATIENCE)?;
    let mut fds = message.fds.into_iter();
    match (message.bytes.as_slice(), fds.next(), fds.next()) {
        (WORD, Some(state), Some(pages)) => Sealed::check(state, pages),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is held by another version of nanovisor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::Writable;

    #[test]
    fn a_template_is_handed_out_to_many() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(dir.path()).unwrap();
        assert!(fetch(dir.as_fd()).is_err());
        let listener = Listener::bind(dir.as_fd(), TEMPLATE_SOCKET).unwrap();
        let sealed = Writable::new().unwrap().seal().unwrap();
        std::thread::spawn(move || hold(&sealed, &listener));
        for _ in 0..3 {
            fetch(dir.as_fd()).unwrap();
        }
    }
}
