//! Leave to read a terminal that other jobs read as well.
//!
//! The sandbox process is in no session of the terminal's, so the host lets it read whatever is typed, whoever it is
//! meant for. The command is of a job there: it is asked (`?`) before a read and told (`.`) after it. It answers `+` once
//! its job is in the foreground, `-` to withdraw that before it was used (the question stands), and `!` to one that may
//! never read, where the host would say `EIO`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::kernel::reactor::{HostWatch, Reactor};
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Asked,
    Open,
    Refused,
}

/// The way to who gives leave.
pub struct Gate {
    // Before the descriptor, so that it is unwatched first.
    _watch: HostWatch,
    socket: OwnedFd,
    state: Mutex<State>,
}

impl Gate {
    /// A gate whose answers wake `queue`.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn open(reactor: &Arc<Reactor>, socket: OwnedFd, queue: &WaitQueue) -> std::io::Result<Self> {
        let watch = reactor.watch_with(&socket, queue)?;
        Ok(Gate { _watch: watch, socket, state: Mutex::new(Level::Leaf, State::Closed) })
    }

    fn hear(&self, state: &mut State) {
        let mut word = [0; 1];
        while let Ok(1) = recv(self.socket.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
            *state = match word[0] {
                b'+' => State::Open,
                b'-' => State::Asked,
                _ => State::Refused,
            };
        }
    }

    fn say(&self, word: u8) {
        // Who does not listen any more has no answer either; the sandbox ends with it.
        let _ = send(self.socket.as_raw_fd(), &[word], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }

    /// Whether one may read now; asks where that is not known.
    ///
    /// # Errors
    /// `EAGAIN` where the answer is not there yet; `EIO` where it is no.
    pub fn pass(&self) -> Result<(), Errno> {
        let mut state = self.state.lock();
        self.hear(&mut state);
        match *state {
            State::Open => Ok(()),
            State::Asked => Err(Errno::EAGAIN),
            State::Closed => {
                *state = State::Asked;
                self.say(b'?');
                Err(Errno::EAGAIN)
            }
            State::Refused => {
                *state = State::Closed;
                Err(Errno::EIO)
            }
        }
    }

    /// One has read: the next asks again.
    pub fn used(&self) {
        *self.state.lock() = State::Closed;
        self.say(b'.');
    }
}
