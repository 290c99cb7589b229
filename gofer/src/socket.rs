//! The host's Unix sockets, where the operator allows them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::{Kind, NewFile, Reply};
use hostsys::opath;
use nix::sys::socket::{self, UnixAddr};

use crate::error::{Result, host, sys};
use crate::look::component;
use crate::nodes::Node;
use crate::server::{Outcome, Server};

/// A socket that never makes this process wait: a full backlog is the client's EAGAIN.
fn new_socket(kind: u32) -> Result<OwnedFd> {
    let kind = kind.cast_signed();
    if !matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET) {
        return Err(Errno::EPROTOTYPE);
    }
    opath::unix_socket(kind | libc::SOCK_NONBLOCK).map_err(sys)
}

impl Server {
    pub fn connect(&self, node: &Node, kind: u32) -> Result<Outcome> {
        if !self.options.uds_connect || node.kind != Kind::Socket {
            return Err(Errno::ECONNREFUSED);
        }
        let fd = new_socket(kind)?;
        let addr = UnixAddr::new(self.magic.path(node.fd()).as_str()).map_err(host)?;
        socket::connect(fd.as_raw_fd(), &addr).map_err(host)?;
        Ok(Outcome { reply: Reply::Donated(self.attr_of(&node.fd())?), fd: Some(fd) })
    }

    pub fn bind(&self, dir: &Arc<Node>, name: &[u8], kind: u32, new: &NewFile) -> Result<Outcome> {
        let dir = self.parent(dir)?;
        component(name)?;
        if !self.options.uds_bind {
            return Err(Errno::EPERM);
        }
        let fd = new_socket(kind)?;
        // sun_path holds 107 bytes; UnixAddr says ENAMETOOLONG.
        let mut path = self.magic.path(dir.fd()).into_bytes();
        path.push(b'/');
        path.extend_from_slice(name);
        let addr = UnixAddr::new(path.as_slice()).map_err(host)?;
        socket::bind(fd.as_fd().as_raw_fd(), &addr).map_err(host)?;
        let entry = self.adopt(dir, name, Kind::Socket, new)?;
        Ok(Outcome { reply: Reply::Created(entry), fd: Some(fd) })
    }
}
