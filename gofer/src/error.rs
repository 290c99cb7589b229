//! Every errno of the host reaches the client as it is.

use abi::Errno;
use gofer_proto::Reply;
use nix::errno::Errno as HostErrno;

/// What a request answers.
pub type Result<T = Reply> = std::result::Result<T, Errno>;

/// A failed call of `nix`.
pub fn host(e: HostErrno) -> Errno {
    Errno::from_raw(e as i32)
}

/// A failed call of `hostsys`.
pub fn sys(e: hostsys::Error) -> Errno {
    match e.errno() {
        0 => Errno::EIO,
        raw => Errno::from_raw(raw),
    }
}
