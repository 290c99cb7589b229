//! Sending and receiving.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::kernel::wait::Events;
use crate::net::control::Control;
use crate::net::socket::{Destination, MsgFlags, Received, SocketKind};
use crate::net::unix::UnixSocket;
use crate::net::unix::address::Address;
use crate::vfs::{IoSink, IoSource};

impl UnixSocket {
    pub(super) fn do_send(
        &self,
        src: &mut IoSource<'_>,
        to: Option<&Destination>,
        control: &mut Control,
        flags: MsgFlags,
    ) -> Result<usize, Errno> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        // `unix_seqpacket_sendmsg` looks at the socket's error first.
        if self.kind == SocketKind::SeqPacket && self.take_reset() {
            return Err(Errno::ECONNRESET);
        }
        let peer = self.target(to)?;
        control.creds.get_or_insert(self.creds);
        let from = self.state.lock().address.clone().unwrap_or(Address::Unnamed).to_bytes();
        let rights = !control.rights.is_empty();
        let sent = self.put(&peer, src, from, control);
        if sent.is_ok() {
            peer.queue.wake(Events::READABLE);
            if rights {
                self.kernel.unix.in_flight.sent_to(&peer);
            }
        }
        sent
    }

    /// Takes the socket's error: the peer left with unread data of ours.
    pub(super) fn take_reset(&self) -> bool {
        std::mem::take(&mut self.inbox.lock().reset)
    }

    fn target(&self, to: Option<&Destination>) -> Result<Arc<UnixSocket>, Errno> {
        if let Some(Destination::Unix(target)) = to {
            return Ok(target.clone());
        }
        let state = self.state.lock();
        if !state.connected {
            return Err(Errno::ENOTCONN);
        }
        if state.shut_write {
            return Err(Errno::EPIPE);
        }
        let gone = if self.is_connection() { Errno::EPIPE } else { Errno::ECONNREFUSED };
        state.peer.upgrade().ok_or(gone)
    }

    fn put(
        &self,
        peer: &Arc<UnixSocket>,
        src: &mut IoSource<'_>,
        from: Vec<u8>,
        control: &mut Control,
    ) -> Result<usize, Errno> {
        let (len, limit) = (src.remaining(), self.send_buffer.load(Ordering::Relaxed));
        let mut inbox = peer.inbox.lock();
        if inbox.refused {
            return Err(if self.is_connection() { Errno::EPIPE } else { Errno::ECONNREFUSED });
        }
        if self.is_stream() {
            if len == 0 {
                return Ok(0);
            }
            let room = inbox.room(limit);
            if room == 0 {
                return Err(Errno::EAGAIN);
            }
            // Bounded pieces: a megabyte at once would hold the lock and double the memory for long.
            return inbox.push(src, len.min(room).min(64 << 10), from, control);
        }
        // The kernel keeps 32 bytes of the buffer for itself (`unix_dgram_sendmsg`).
        if len > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        if !inbox.takes_datagram(len, limit) {
            drop(inbox);
            self.note_blocked(peer);
            return Err(Errno::EAGAIN);
        }
        inbox.push(src, len, from, control)
    }

    /// Asks `peer` to wake us when it has read: our waiters wait on our own queue.
    fn note_blocked(&self, peer: &UnixSocket) {
        let mut state = peer.state.lock();
        state.blocked.retain(|w| w.strong_count() > 0 && !w.ptr_eq(&self.me));
        state.blocked.push(self.me.clone());
    }

    pub(super) fn do_recv(&self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (pass_creds, connected) = {
            let state = self.state.lock();
            (state.pass_creds, state.connected)
        };
        if self.is_connection() && !connected {
            // A stream that never connected: EINVAL; a packet socket: ENOTCONN (af_unix.c).
            return Err(if self.is_stream() { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        let mut received = {
            let mut inbox = self.inbox.lock();
            if inbox.is_empty() {
                if std::mem::take(&mut inbox.reset) {
                    return Err(Errno::ECONNRESET);
                }
                return if inbox.ended { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
            }
            match self.kind {
                SocketKind::Stream => inbox.read_stream(dst, flags, pass_creds)?,
                _ => inbox.read_message(dst, flags)?,
            }
        };
        if !pass_creds {
            received.control.creds = None;
        }
        if self.is_connection() {
            received.from = None;
        }
        if !flags.contains(MsgFlags::PEEK) {
            self.wake_senders();
        }
        Ok(received)
    }

    fn wake_senders(&self) {
        let (peer, blocked) = {
            let mut state = self.state.lock();
            (state.peer.upgrade(), std::mem::take(&mut state.blocked))
        };
        for socket in peer.into_iter().chain(blocked.iter().filter_map(std::sync::Weak::upgrade)) {
            socket.queue.wake(Events::WRITABLE);
        }
    }
}
