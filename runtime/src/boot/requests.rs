//! The command line's requests, as the sentry takes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use hostsys::SeqPacket;
use sentry::boot::{Control, ControlSource, Event, Reply, Request, Target, Token};

use crate::control::wire::Message;

/// The one container of `nanovisor do`.
pub const CONTAINER_ID: &str = "do";
/// Its first process.
const INIT: i32 = 1;
/// The token of a pause, the only request whose answer is told; the others have 0.
const PAUSE: Token = 1;

/// The control socket after boot.
pub struct Requests {
    socket: Arc<SeqPacket>,
    closed: bool,
}

impl Requests {
    /// Requests that arrive on `socket`.
    #[must_use]
    pub fn new(socket: Arc<SeqPacket>) -> Self {
        Requests { socket, closed: false }
    }
}

fn request(message: &Message) -> Option<Request> {
    let id = CONTAINER_ID.to_owned();
    let control = match *message {
        Message::Signal(signo) => Control::Signal { id, target: Target::Init, signo },
        Message::WindowSize { rows, cols } => Control::WindowSize { id, pid: INIT, rows, cols },
        Message::Pause => return Some(Request { token: PAUSE, control: Control::Pause { id } }),
        Message::Resume => Control::Resume { id },
        _ => return None,
    };
    Some(Request { token: 0, control })
}

impl ControlSource for Requests {
    fn fd(&self) -> &OwnedFd {
        self.socket.fd()
    }

    fn next(&mut self) -> Option<Request> {
        while !self.closed {
            match self.socket.try_receive() {
                Ok(None) => return None,
                Ok(Some(message)) if !message.is_eof() => {
                    let Some(message) = Message::decode(&message.bytes) else { continue };
                    if let Some(request) = request(&message) {
                        return Some(request);
                    }
                }
                _ => {
                    // The command line is gone: nobody will take the exit status.
                    self.closed = true;
                    return Some(Request { token: 0, control: Control::Shutdown });
                }
            }
        }
        None
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        if token == PAUSE {
            let _ = self.socket.send(&Message::Paused.encode(), &[]);
        }
        if let Err((errno, sentence)) = reply {
            log::debug!("a request was refused: {sentence} ({errno})");
        }
    }

    /// The end of the program is told by the end of the sandbox.
    fn event(&mut self, _: Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_order_and_a_pause_is_answered() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let mut requests = Requests::new(Arc::new(theirs));
        assert!(requests.next().is_none());
        for message in [Message::Signal(15), Message::Pause, Message::Resume] {
            ours.send(&message.encode(), &[]).unwrap();
        }
        ours.send(b"rubbish", &[]).unwrap();
        assert!(matches!(requests.next().unwrap().control, Control::Signal { signo: 15, target: Target::Init, .. }));
        let pause = requests.next().unwrap();
        assert!(matches!(pause.control, Control::Pause { .. }));
        assert!(ours.try_receive().unwrap().is_none());
        requests.reply(pause.token, Ok(sentry::boot::Answer::Done));
        assert!(matches!(requests.next().unwrap().control, Control::Resume { .. }));
        assert_eq!(Message::decode(&ours.receive().unwrap().bytes), Some(Message::Paused));
        assert!(requests.next().is_none());
        drop(ours);
        assert!(matches!(requests.next().unwrap().control, Control::Shutdown));
        assert!(requests.next().is_none());
    }
}
