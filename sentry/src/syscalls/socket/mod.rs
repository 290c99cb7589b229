//! Socket calls. Addresses, control data and vectors are parsed once, at the edge.

pub mod message;
mod options;
pub mod setup;

use abi::{Errno, UserAddr};

use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::vfs::FdNum;

use message::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};
use options::{getsockopt, setsockopt};
use setup::{accept, accept4, bind, connect, getpeername, getsockname, listen, shutdown, socket, socketpair};

syscall_table! {
    41 socket(domain: i32, kind: i32, protocol: i32) Partial("AF_UNIX; other families answer EAFNOSUPPORT");
    42 connect(fd: FdNum, addr: UserAddr, len: i32);
    43 accept(fd: FdNum, addr: UserAddr, len: UserAddr);
    44 sendto(fd: FdNum, buf: UserAddr, count: usize, flags: u32, addr: UserAddr, len: i32);
    45 recvfrom(fd: FdNum, buf: UserAddr, count: usize, flags: u32, addr: UserAddr, len: UserAddr);
    46 sendmsg(fd: FdNum, msg: UserAddr, flags: u32);
    47 recvmsg(fd: FdNum, msg: UserAddr, flags: u32);
    48 shutdown(fd: FdNum, how: i32);
    49 bind(fd: FdNum, addr: UserAddr, len: i32);
    50 listen(fd: FdNum, backlog: i32);
    51 getsockname(fd: FdNum, addr: UserAddr, len: UserAddr);
    52 getpeername(fd: FdNum, addr: UserAddr, len: UserAddr);
    53 socketpair(domain: i32, kind: i32, protocol: i32, fds: UserAddr);
    54 setsockopt(fd: FdNum, level: i32, name: i32, value: UserAddr, len: i32);
    55 getsockopt(fd: FdNum, level: i32, name: i32, value: UserAddr, len: UserAddr);
    288 accept4(fd: FdNum, addr: UserAddr, len: UserAddr, flags: u32);
    299 recvmmsg(fd: FdNum, msgs: UserAddr, count: u32, flags: u32, timeout: UserAddr);
    307 sendmmsg(fd: FdNum, msgs: UserAddr, count: u32, flags: u32);
}

/// Bytes of `struct sockaddr_storage`.
const SOCKADDR_MAX: usize = 128;

/// Reads a socket address.
fn read_addr(cx: &CurrentTask<'_>, addr: UserAddr, len: i32) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(len).ok().filter(|l| *l <= SOCKADDR_MAX).ok_or(Errno::EINVAL)?;
    let mut raw = vec![0u8; len];
    cx.mm()?.read_bytes(addr, &mut raw)?;
    Ok(raw)
}

/// Writes a socket address and its full length, cut to the room that `len` points at.
fn write_addr(cx: &CurrentTask<'_>, raw: &[u8], addr: UserAddr, len: UserAddr) -> Result<(), Errno> {
    let mm = cx.mm()?;
    let room = usize::try_from(mm.read_obj::<i32>(len)?).map_err(|_| Errno::EINVAL)?;
    mm.write_bytes(addr, &raw[..raw.len().min(room)])?;
    mm.write_obj(len, &u32::try_from(raw.len()).map_err(|_| Errno::EINVAL)?)
}
