//! What waits to be read at a Unix socket.

use std::collections::VecDeque;
use std::sync::Arc;

use abi::Errno;

use crate::net::control::{Control, Ucred};
use crate::net::socket::{MsgFlags, Received};
use crate::vfs::{FileDescription, IoSink, IoSource};

/// Messages that may wait at a datagram socket (`net.unix.max_dgram_qlen`).
const MAX_DATAGRAMS: usize = 512;

pub(super) struct Message {
    pub(super) data: Vec<u8>,
    /// Bytes of `data` already read (streams).
    pub(super) start: usize,
    pub(super) from: Vec<u8>,
    pub(super) control: Control,
}

/// A queue of messages. A stream reads across messages, up to one that carries descriptors.
#[derive(Default)]
pub struct Inbox {
    pub(super) messages: VecDeque<Message>,
    pub(super) bytes: usize,
    /// Nothing will be added: the peer is gone or shut its writing half.
    pub ended: bool,
    /// Nothing will be read any more.
    pub refused: bool,
    /// The peer left with unread data of ours: the next read says ECONNRESET.
    pub reset: bool,
    /// Grows with every message that comes or goes.
    pub generation: u64,
}

impl Inbox {
    /// Bytes that still fit, from a sender who may have `limit` on their way.
    pub fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.bytes)
    }

    /// Whether a datagram of `len` bytes fits now: it goes in whole, so an empty queue takes any size.
    pub fn takes_datagram(&self, len: usize, limit: usize) -> bool {
        self.messages.len() < MAX_DATAGRAMS && (len <= self.room(limit) || self.messages.is_empty())
    }

    /// Bytes of all messages.
    pub fn bytes_waiting(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of the next message (datagrams) or of all (streams).
    pub fn readable(&self, stream: bool) -> usize {
        if stream { self.bytes } else { self.messages.front().map_or(0, |m| m.data.len()) }
    }

    /// The descriptors in flight here.
    pub fn rights(&self) -> impl Iterator<Item = &Arc<FileDescription>> {
        self.messages.iter().flat_map(|m| &m.control.rights)
    }

    /// Drops everything; the descriptors in flight are returned to be dropped outside locks.
    pub fn clear(&mut self) -> Vec<Control> {
        self.bytes = 0;
        self.generation += 1;
        self.messages.drain(..).map(|m| m.control).collect()
    }

    /// Adds up to `len` bytes of `src` as one message.
    pub fn push(
        &mut self,
        src: &mut IoSource<'_>,
        len: usize,
        from: Vec<u8>,
        control: &mut Control,
    ) -> Result<usize, Errno> {
        let mut data = vec![0u8; len];
        let taken = if len == 0 { 0 } else { src.take(&mut data)? };
        data.truncate(taken);
        self.bytes += taken;
        self.generation += 1;
        self.messages.push_back(Message { data, start: 0, from, control: std::mem::take(control) });
        Ok(taken)
    }

    /// Reads one message; what does not fit is lost (MSG_TRUNC).
    pub fn read_message(&mut self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
        let message = self.messages.front().ok_or(Errno::EAGAIN)?;
        let stored = if message.data.is_empty() { 0 } else { dst.put(&message.data)? };
        let full = message.data.len();
        let mut received = Received {
            len: if flags.contains(MsgFlags::TRUNC) { full } else { stored },
            // A sender without a name is told as no address at all, not as an empty one (`unix_copy_addr`).
            from: (message.from.len() > 2).then(|| message.from.clone()),
            flags: if stored < full { MsgFlags::TRUNC } else { MsgFlags::default() },
            control: Control::default(),
        };
        if flags.contains(MsgFlags::PEEK) {
            received.control = message.control.clone();
        } else if let Some(message) = self.messages.pop_front() {
            self.bytes -= full;
            self.generation += 1;
            received.control = message.control;
        }
        Ok(received)
    }

    /// Reads bytes across messages, stopping behind one with descriptors and, where `by_sender`, at another sender's.
    pub fn read_stream(&mut self, dst: &mut IoSink<'_>, flags: MsgFlags, by_sender: bool) -> Result<Received, Errno> {
        let peek = flags.contains(MsgFlags::PEEK);
        let mut received = Received::default();
        let mut sender: Option<Option<Ucred>> = None;
        let mut index = 0;
        while let Some(message) = self.messages.get_mut(index) {
            let creds = message.control.creds;
            let has_rights = !message.control.rights.is_empty();
            let other_sender = by_sender && sender.is_some_and(|s| s != creds);
            if dst.remaining() == 0 || (received.len > 0 && (has_rights || other_sender)) {
                break;
            }
            sender = Some(creds);
            let n = match dst.put(&message.data[message.start..]) {
                Ok(n) => n,
                Err(_) if received.len > 0 => break,
                Err(e) => return Err(e),
            };
            received.len += n;
            received.control.creds = creds;
            if peek {
                received.control.rights.extend(message.control.rights.iter().cloned());
                index += 1;
            } else {
                received.control.rights.append(&mut message.control.rights);
                self.generation += 1;
                message.start += n;
                self.bytes -= n;
                if message.start < message.data.len() {
                    break;
                }
                self.messages.pop_front();
            }
            if has_rights {
                break;
            }
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(inbox: &mut Inbox, bytes: &[u8]) {
        let mut src = IoSource::kernel(bytes);
        assert_eq!(inbox.push(&mut src, bytes.len(), Vec::new(), &mut Control::default()), Ok(bytes.len()));
    }

    #[test]
    fn streams_join_and_datagrams_do_not() {
        let mut inbox = Inbox::default();
        push(&mut inbox, b"abc");
        push(&mut inbox, b"defg");
        let mut out = [0u8; 16];
        let peeked = inbox.read_stream(&mut IoSink::kernel(&mut out), MsgFlags::PEEK, false);
        assert_eq!(peeked.map(|r| r.len), Ok(7));
        let mut small = [0u8; 2];
        let got = inbox.read_message(&mut IoSink::kernel(&mut small), MsgFlags::default());
        assert_eq!(got.map(|r| (r.len, r.flags)), Ok((2, MsgFlags::TRUNC)));
        let got = inbox.read_stream(&mut IoSink::kernel(&mut small), MsgFlags::default(), false);
        assert_eq!(got.map(|r| r.len), Ok(2));
        assert_eq!(inbox.readable(true), 2);
    }
}
