//! What commands and the pool say to each other: one JSON object a message, one answer a request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hostsys::SeqPacket;
use hostsys::seqpacket::Message;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

/// The socket's name in the pool's directory.
pub const POOL_SOCKET: &str = "pool.sock";

/// A request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// A blank sandbox of this kind.
    Take {
        /// What the blank must be, in the words of its maker.
        kind: String,
    },
    /// Figures.
    Stats,
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// A blank, whose control socket comes with the message.
    Blank {
        /// Its process id on the host.
        pid: i32,
    },
    /// There is none of this kind now.
    Empty,
    /// Figures.
    Stats(Stats),
}

/// Figures of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Blanks that can be taken now.
    pub ready: u64,
    /// Blanks that are being made.
    pub warming: u64,
    /// Blanks that were made since the pool was started.
    pub made: u64,
    /// Blanks that were taken.
    pub taken: u64,
    /// Requests that found none.
    pub missed: u64,
    /// Blanks that ended before they were taken.
    pub died: u64,
}

/// Sends `value`, with `fds`. Never waits.
///
/// # Errors
/// The other end is gone, or does not listen.
pub fn send<T: Serialize>(socket: &SeqPacket, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    match socket.try_send(&json, fds) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
        Err(e) => Err(io::Error::from_raw_os_error(e.errno())),
    }
}

/// Waits for one message.
///
/// # Errors
/// None comes in time; the other end is gone.
pub fn receive(socket: &SeqPacket, patience: Duration) -> io::Result<Message> {
    let deadline = Instant::now() + patience;
    loop {
        match socket.try_receive().map_err(|e| io::Error::from_raw_os_error(e.errno()))? {
            Some(message) if message.is_eof() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(message) => return Ok(message),
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
