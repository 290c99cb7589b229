//! A connected pair of message sockets that carries descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, sendmsg, socket, socketpair,
};

use crate::error::{Error, Result};

/// Most descriptors in one message (the kernel's SCM_MAX_FD is 253).
pub const MAX_FDS: usize = 32;
/// Most bytes in one message; well below the default socket buffer.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// One end of a `SOCK_SEQPACKET` socket pair: messages keep their bounds, and the other end's death is an empty one.
#[derive(Debug)]
pub struct SeqPacket(OwnedFd);

/// What arrived: bytes and descriptors (close-on-exec). Both empty means that the other end is gone.
#[derive(Debug, Default)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, in the sender's order.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// Whether the other end has closed.
    #[must_use]
    pub fn is_eof(&self) -> bool {
        self.bytes.is_empty() && self.fds.is_empty()
    }
}

impl SeqPacket {
    /// A connected pair, close-on-exec.
    ///
    /// # Errors
    /// What `socketpair` says.
    pub fn pair() -> Result<(SeqPacket, SeqPacket)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| Error::new("socketpair", e))?;
        Ok((SeqPacket(a), SeqPacket(b)))
    }

    /// Connects to the socket that listens as `name` in `directory`, however long the directory's own path is. Never blocks.
    ///
    /// # Errors
    /// `ECONNREFUSED` and `ENOENT` where nobody listens, `EAGAIN` where too many wait; what `socket` or `connect` say.
    pub fn connect(directory: BorrowedFd<'_>, name: &str) -> Result<SeqPacket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(|e| Error::new("socket", e))?;
        let connected = connect(socket.as_raw_fd(), &address(directory, name)?);
        connected.map_err(|e| Error::new("connect (control socket)", e))?;
        Ok(SeqPacket(socket))
    }

    /// Takes over a descriptor that is an end of such a pair.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        SeqPacket(fd)
    }

    /// The descriptor, to look at.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// The descriptor.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message of at most [`MAX_MESSAGE`] bytes and [`MAX_FDS`] descriptors; waits for room. Never raises SIGPIPE.
    ///
    /// # Errors
    /// `EPIPE` where the other end is gone; what `sendmsg` says.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with(bytes, fds, MsgFlags::MSG_NOSIGNAL).map(|_| ())
    }

    /// [`SeqPacket::send`] where there is room; answers false where there is none.
    ///
    /// # Errors
    /// As [`SeqPacket::send`].
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool> {
        self.send_with(bytes, fds, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: MsgFlags) -> Result<bool> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let iov = [IoSlice::new(bytes)];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &iov, control, flags, None) {
                Ok(_) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if flags.contains(MsgFlags::MSG_DONTWAIT) => return Ok(false),
                Err(e) => return Err(Error::new("sendmsg (control socket)", e)),
            }
        }
    }

    /// Waits for one message. At the end of the connection the message is empty.
    ///
    /// # Errors
    /// `EMSGSIZE` for a message that was cut; `EMFILE` where a descriptor could not be taken; what `recvmsg` says.
    pub fn receive(&self) -> Result<Message> {
        Ok(self.receive_with(MsgFlags::empty())?.unwrap_or_default())
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    /// As [`SeqPacket::receive`].
    pub fn try_receive(&self) -> Result<Option<Message>> {
        self.receive_with(MsgFlags::MSG_DONTWAIT)
    }

    fn receive_with(&self, flags: MsgFlags) -> Result<Option<Message>> {
        let mut bytes = vec![0u8; MAX_MESSAGE];
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let (len, got, fds) = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), flags | MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => break (message.bytes, message.flags, take_fds(&message)?),
                // A reset is the other end's death with our messages unread. It is told once, before what the other
                // end had sent, which is its last words, and its end.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(Error::new("recvmsg (control socket)", e)),
            }
        };
        if got.contains(MsgFlags::MSG_CTRUNC) {
            return Err(Error::new("recvmsg (passed descriptors)", Errno::EMFILE));
        }
        if got.contains(MsgFlags::MSG_TRUNC) {
            return Err(Error::new("recvmsg (control socket)", Errno::EMSGSIZE));
        }
        bytes.truncate(len);
        Ok(Some(Message { bytes, fds }))
    }
}

/// A socket that others [connect](SeqPacket::connect) to.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

impl Listener {
    /// Listens as `name` in `directory`, for the owner alone.
    ///
    /// # Errors
    /// `EADDRINUSE` where the name is taken; what `socket`, `bind`, `fchmodat` or `listen` say.
    pub fn bind(directory: BorrowedFd<'_>, name: &str) -> Result<Listener> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(|e| Error::new("socket", e))?;
        // What a socket may be connected by is the mode of its name, which is the socket's own at bind.
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::sys::stat::fchmod(&socket, mode).map_err(|e| Error::new("fchmod (control socket)", e))?;
        bind(socket.as_raw_fd(), &address(directory, name)?).map_err(|e| Error::new("bind (control socket)", e))?;
        let backlog = Backlog::new(BACKLOG).map_err(|e| Error::new("listen", e))?;
        listen(&socket, backlog).map_err(|e| Error::new("listen (control socket)", e))?;
        Ok(Listener(socket))
    }

    /// Takes over a descriptor that is such a socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Listener(fd)
    }

    /// The descriptor.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The next connection, if somebody waits.
    ///
    /// # Errors
    /// What `accept4` says.
    pub fn accept(&self) -> Result<Option<SeqPacket>> {
        loop {
            match accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
                // SAFETY: a fresh descriptor.
                Ok(fd) => return Ok(Some(SeqPacket(unsafe { OwnedFd::from_raw_fd(fd) }))),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(e) => return Err(Error::new("accept4 (control socket)", e)),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `sun_path` holds 108 bytes, and paths are longer: the way through the directory's descriptor is short.
fn address(directory: BorrowedFd<'_>, name: &str) -> Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    UnixAddr::new(path.as_str()).map_err(|e| Error::new("sockaddr_un", e))
}

fn take_fds(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for control in message.cmsgs().map_err(|e| Error::new("recvmsg (control data)", e))? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel made these descriptors for us in this very call.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(fds)
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn messages_and_descriptors_cross_and_the_end_is_seen() {
        let (a, b) = SeqPacket::pair().unwrap();
        let file = tempfile_fd();
        a.send(b"hello", &[file.as_fd()]).unwrap();
        a.send(b"x", &[]).unwrap();
        assert!(a.try_receive().unwrap().is_none());
        let first = b.receive().unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (&b"hello"[..], 1));
        std::fs::File::from(first.fds.into_iter().next().unwrap()).write_all(b"ok").unwrap();
        assert_eq!(b.receive().unwrap().bytes, b"x");
        drop(a);
        assert!(b.receive().unwrap().is_eof());
        assert_eq!(b.send(b"late", &[]).unwrap_err().errno(), libc::EPIPE);
    }

    #[test]
    fn last_words_survive_messages_that_were_not_read() {
        let (a, b) = SeqPacket::pair().unwrap();
        a.send(b"never read", &[]).unwrap();
        b.send(b"last words", &[]).unwrap();
        drop(b);
        assert_eq!(a.receive().unwrap().bytes, b"last words");
        assert!(a.receive().unwrap().is_eof());
    }

    #[test]
    fn a_listener_is_found_through_its_directory() {
        let base = std::env::temp_dir().join(format!("seqpacket-{}", std::process::id()));
        let deep = base.join("a-name-of-some-length".repeat(6));
        std::fs::create_dir_all(&deep).unwrap();
        let dir = std::fs::File::open(&deep).unwrap();
        let listener = Listener::bind(dir.as_fd(), "s").unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = SeqPacket::connect(dir.as_fd(), "s").unwrap();
        let server = listener.accept().unwrap().unwrap();
        client.send(b"hello", &[]).unwrap();
        assert_eq!(server.receive().unwrap().bytes, b"hello");
        drop(listener);
        assert_eq!(SeqPacket::connect(dir.as_fd(), "s").unwrap_err().errno(), libc::ECONNREFUSED);
        std::fs::remove_dir_all(base).unwrap();
    }

    fn tempfile_fd() -> OwnedFd {
        nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap()
    }
}
