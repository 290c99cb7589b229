//! A command's connection to a sandbox. The sandbox is not believed: every wait has a deadline, every text is cleaned.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hostsys::SeqPacket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::{self, Answer, Assembler, Call, Request};
use super::wire::printable;
use crate::failure::{Failure, Result, not_started};

/// How long a sandbox may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub struct Connection {
    socket: SeqPacket,
    container: String,
    assembler: Assembler,
    next_id: u64,
}

/// What is heard on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing (whole) yet.
    Nothing,
    /// An answer (with its id) or an event (0).
    Answer(u64, Answer),
    /// The sandbox is gone.
    Gone,
}

impl Connection {
    /// Connects to the sandbox that listens in `directory`, about the container that it calls `container`.
    ///
    /// # Errors
    /// Nobody listens: the container has stopped.
    pub fn open(directory: BorrowedFd<'_>, container: &str) -> Result<Self> {
        let socket = SeqPacket::connect(directory, crate::state::Record::socket()).map_err(|e| match e.errno() {
            libc::ECONNREFUSED | libc::ENOENT => Failure::runtime("container not running"),
            _ => Failure::host("connecting to the sandbox", e),
        })?;
        Ok(Connection { socket, container: container.to_owned(), assembler: Assembler::default(), next_id: 1 })
    }

    /// Sends a request and does not wait; answers its id.
    ///
    /// # Errors
    /// The sandbox is gone, or takes nothing any more.
    pub fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let call = Call { container: self.container.clone(), request };
        let deadline = Instant::now() + PATIENCE;
        for (n, packet) in protocol::encode(id, &call).map_err(Failure::runtime)?.iter().enumerate() {
            let fds = if n == 0 { fds } else { &[] };
            while !self.socket.try_send(packet, fds).map_err(|e| Failure::host("asking the sandbox", e))? {
                self.wait(PollFlags::POLLOUT, deadline)?;
            }
        }
        Ok(id)
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The sandbox is gone or does not answer in time; it refuses, in its words.
    pub fn call(&mut self, request: Request, fds: &[BorrowedFd<'_>], patience: Duration) -> Result<Answer> {
        let id = self.send(request, fds)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.hear()? {
                Heard::Answer(got, Answer::Refused(errno, text)) if got == id => return Err(refusal(errno, &text)),
                Heard::Answer(got, answer) if got == id => return Ok(answer),
                Heard::Answer(..) => {}
                Heard::Gone => return Err(Failure::runtime("container not running")),
                Heard::Nothing => self.wait(PollFlags::POLLIN, deadline)?,
            }
        }
    }

    /// Takes what has come, without waiting.
    ///
    /// # Errors
    /// The sandbox says what means nothing.
    pub fn hear(&mut self) -> Result<Heard> {
        loop {
            let packet = match self.socket.try_receive() {
                Ok(None) => return Ok(Heard::Nothing),
                Ok(Some(packet)) if packet.is_eof() => return Ok(Heard::Gone),
                Ok(Some(packet)) => packet,
                Err(e) => return Err(Failure::host("hearing the sandbox", e)),
            };
            let whole = self.assembler.take::<Answer>(packet);
            let whole = whole.map_err(|e| Failure::runtime(format!("the sandbox does not make sense: {e}")))?;
            if let Some(whole) = whole {
                return Ok(Heard::Answer(whole.id, whole.value));
            }
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::runtime("the sandbox does not answer; `delete --force` removes it"));
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(Failure::runtime(format!("waiting for the sandbox: poll: {e}"))),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a refusal means. Words that containerd looks for are in it where runc would say them.
fn refusal(errno: i32, text: &str) -> Failure {
    let text = printable(text.as_bytes());
    if errno == libc::ESRCH {
        return Failure::runtime(format!("no such process: {text}"));
    }
    Failure::new(not_started(abi::Errno::from_raw(errno), &text), text)
}
