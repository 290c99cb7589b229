//! What every socket family provides.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::net::control::Control;
use crate::vfs::{IoSink, IoSource};

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
}

impl SocketKind {
    /// From `socket(2)`'s type without its flags.
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::SOCK_STREAM => Some(SocketKind::Stream),
            libc::SOCK_DGRAM => Some(SocketKind::Datagram),
            libc::SOCK_SEQPACKET => Some(SocketKind::SeqPacket),
            _ => None,
        }
    }

    /// The number, as SO_TYPE tells it.
    #[must_use]
    pub fn raw(self) -> i32 {
        match self {
            SocketKind::Stream => libc::SOCK_STREAM,
            SocketKind::Datagram => libc::SOCK_DGRAM,
            SocketKind::SeqPacket => libc::SOCK_SEQPACKET,
        }
    }
}

bitflags::bitflags! {
    /// Flags of send and receive calls and of received messages (`MSG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MsgFlags: u32 {
        /// Out-of-band data.
        const OOB = 0x1;
        /// Leave it in the queue.
        const PEEK = 0x2;
        /// Control data did not fit.
        const CTRUNC = 0x8;
        /// Data did not fit; as a request: answer the full length.
        const TRUNC = 0x20;
        /// Don't wait.
        const DONTWAIT = 0x40;
        /// End of record.
        const EOR = 0x80;
        /// Wait for all of it.
        const WAITALL = 0x100;
        /// No SIGPIPE.
        const NOSIGNAL = 0x4000;
        /// More is coming.
        const MORE = 0x8000;
        /// Wait for the first of several messages only.
        const WAITFORONE = 0x10000;
        /// Received descriptors close on exec.
        const CMSG_CLOEXEC = 0x4000_0000;
        /// Everything else, passed through.
        const _ = !0;
    }
}

/// Which half to shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// No more receiving.
    pub read: bool,
    /// No more sending.
    pub write: bool,
}

/// Where a message goes.
#[derive(Clone)]
pub enum Destination {
    /// A socket of this kernel.
    Unix(Arc<crate::net::unix::UnixSocket>),
    /// An address that the family interprets.
    Address(Vec<u8>),
}

/// A received message.
#[derive(Default)]
pub struct Received {
    /// Bytes stored, or the full length of the message where MSG_TRUNC asked for it.
    pub len: usize,
    /// Sender's address, as bytes of a `sockaddr`.
    pub from: Option<Vec<u8>>,
    /// Control data.
    pub control: Control,
    /// MSG_TRUNC, MSG_EOR, ...
    pub flags: MsgFlags,
}

/// A socket. Nothing waits: what would is `EAGAIN`, and the caller waits on the queue.
pub trait Socket: Send + Sync {
    /// AF_* number.
    fn domain(&self) -> i32;
    /// Type.
    fn kind(&self) -> SocketKind;
    /// The number that SO_TYPE tells, where a raw socket is served as a datagram one.
    fn raw_kind(&self) -> i32 {
        self.kind().raw()
    }
    /// Protocol number, for SO_PROTOCOL.
    fn protocol(&self) -> i32;

    /// Binds to an address (`sockaddr` bytes).
    ///
    /// # Errors
    /// `EADDRINUSE`; `EINVAL` where bound already or malformed; what the file system says.
    fn bind(&self, cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno>;

    /// Begins to accept connections.
    ///
    /// # Errors
    /// `EOPNOTSUPP`; `EINVAL`.
    fn listen(&self, cx: &mut CurrentTask<'_>, backlog: i32) -> Result<(), Errno>;

    /// Takes a connection.
    ///
    /// # Errors
    /// `EAGAIN` where there is none; `EINVAL` where it does not listen.
    fn accept(&self) -> Result<Arc<dyn Socket>, Errno>;

    /// Connects, or sets a datagram socket's peer.
    ///
    /// # Errors
    /// `EAGAIN` where it must wait on the returned queue's owner: see [`Socket::connect_queue`]; `ECONNREFUSED`; ...
    fn connect(&self, cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<(), Errno>;

    /// Where a connect that answered `EAGAIN` waits.
    fn connect_queue(&self) -> Option<WaitQueue> {
        None
    }

    /// Finds the destination of a message, once: a name may lead elsewhere at the next try.
    ///
    /// # Errors
    /// `EINVAL`; `ECONNREFUSED`; what the file system says.
    fn destination(&self, _cx: &mut CurrentTask<'_>, addr: &[u8]) -> Result<Destination, Errno> {
        Ok(Destination::Address(addr.to_vec()))
    }

    /// Sends; `to` is for unconnected datagram sockets. `control` is left empty once it is on its way.
    ///
    /// # Errors
    /// `EAGAIN`; `EPIPE`; `ECONNREFUSED`; `EMSGSIZE`; `ENOTCONN`; `EDESTADDRREQ`; ...
    fn send(
        &self,
        src: &mut IoSource<'_>,
        to: Option<&Destination>,
        control: &mut Control,
        flags: MsgFlags,
    ) -> Result<usize, Errno>;

    /// Receives.
    ///
    /// # Errors
    /// `EAGAIN`; `ENOTCONN`; `ECONNRESET`.
    fn recv(&self, dst: &mut IoSink<'_>, flags: MsgFlags) -> Result<Received, Errno>;

    /// Shuts a half or both.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn shutdown(&self, how: Shutdown) -> Result<(), Errno>;

    /// Own address, as `sockaddr` bytes.
    fn local_addr(&self) -> Vec<u8>;

    /// Peer's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn peer_addr(&self) -> Result<Vec<u8>, Errno>;

    /// An option's value. Options common to all families are tried first by the caller.
    ///
    /// # Errors
    /// `ENOPROTOOPT`.
    fn get_option(&self, _cx: &CurrentTask<'_>, _level: i32, _name: i32) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOPROTOOPT)
    }

    /// Sets an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT`; `EINVAL`.
    fn set_option(&self, _cx: &CurrentTask<'_>, _level: i32, _name: i32, _value: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOPROTOOPT)
    }

    /// SO_SNDBUF was set: bytes on their way that sending may not exceed.
    fn set_send_buffer(&self, _bytes: usize) {}

    /// Whether it listens (SO_ACCEPTCONN).
    fn is_listening(&self) -> bool;

    /// Bytes that wait to be read (FIONREAD / SIOCINQ).
    fn readable_bytes(&self) -> usize;

    /// Bytes that were sent and not yet read by the peer (SIOCOUTQ).
    fn unread_bytes(&self) -> usize {
        0
    }

    /// Readiness.
    fn poll(&self) -> Events;

    /// Woken at every change of readiness.
    fn wait_queue(&self) -> &WaitQueue;

    /// Its file is gone.
    fn close(&self);

    /// For downcasts to the family's own type.
    fn as_any(&self) -> &dyn std::any::Any;
}
