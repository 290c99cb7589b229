//! The command line's requests, as the sentry takes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use hostsys::SeqPacket;
use sentry::boot::{Control, ControlSource};

use crate::control::wire::Message;

/// The control socket after boot.
pub struct Requests {
    socket: Arc<SeqPacket>,
    /// A pause was handed out and not yet answered. The sentry comes back for the next request when it has acted.
    pausing: bool,
    closed: bool,
}

impl Requests {
    /// Requests that arrive on `socket`.
    #[must_use]
    pub fn new(socket: Arc<SeqPacket>) -> Self {
        Requests { socket, pausing: false, closed: false }
    }

    fn control(&mut self, message: &Message) -> Option<Control> {
        Some(match *message {
            Message::Signal(signal) => Control::Signal(signal),
            Message::WindowSize { rows, cols } => Control::WindowSize { rows, cols },
            Message::Pause => {
                self.pausing = true;
                Control::Pause
            }
            Message::Resume => Control::Resume,
            _ => return None,
        })
    }
}

impl ControlSource for Requests {
    fn fd(&self) -> &OwnedFd {
        self.socket.fd()
    }

    fn next(&mut self) -> Option<Control> {
        if std::mem::take(&mut self.pausing) {
            let _ = self.socket.send(&Message::Paused.encode(), &[]);
        }
        while !self.closed {
            match self.socket.try_receive() {
                Ok(None) => return None,
                Ok(Some(message)) if !message.is_eof() => {
                    let Some(message) = Message::decode(&message.bytes) else { continue };
                    if let Some(control) = self.control(&message) {
                        return Some(control);
                    }
                }
                _ => {
                    // The command line is gone: nobody will take the exit status.
                    self.closed = true;
                    return Some(Control::Signal(libc::SIGKILL));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_order_and_a_pause_is_answered() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let mut requests = Requests::new(Arc::new(theirs));
        assert_eq!(requests.next(), None);
        for message in [Message::Signal(15), Message::Pause, Message::Resume] {
            ours.send(&message.encode(), &[]).unwrap();
        }
        ours.send(b"rubbish", &[]).unwrap();
        assert_eq!(requests.next(), Some(Control::Signal(15)));
        assert_eq!(requests.next(), Some(Control::Pause));
        assert!(ours.try_receive().unwrap().is_none());
        assert_eq!(requests.next(), Some(Control::Resume));
        assert_eq!(Message::decode(&ours.receive().unwrap().bytes), Some(Message::Paused));
        assert_eq!(requests.next(), None);
        drop(ours);
        assert_eq!(requests.next(), Some(Control::Signal(libc::SIGKILL)));
        assert_eq!(requests.next(), None);
    }
}
