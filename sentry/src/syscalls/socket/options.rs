//! getsockopt and setsockopt: the options that every socket has.

use abi::{Errno, UserAddr, time::Timeval};
use zerocopy::{FromBytes, IntoBytes};

use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::net::SocketFile;
use crate::vfs::FdNum;

/// Longest option value taken from a guest.
const MAX_VALUE: usize = 4096;
/// What SO_SNDBUF and SO_RCVBUF say (`net.core.wmem_default`).
const BUFFER: i32 = 212_992;

fn common(file: &SocketFile, name: i32) -> Option<Vec<u8>> {
    let socket = &file.socket;
    let int = |v: i32| Some(v.to_le_bytes().to_vec());
    let time = |t: Option<i64>| {
        let nanos = t.unwrap_or(0);
        Some(Timeval { sec: nanos / 1_000_000_000, usec: nanos % 1_000_000_000 / 1000 }.as_bytes().to_vec())
    };
    match name {
        libc::SO_TYPE => int(socket.raw_kind()),
        libc::SO_DOMAIN => int(socket.domain()),
        libc::SO_PROTOCOL => int(socket.protocol()),
        libc::SO_ACCEPTCONN => int(i32::from(socket.is_listening())),
        libc::SO_ERROR => int(0),
        libc::SO_SNDBUF | libc::SO_RCVBUF => int(BUFFER),
        libc::SO_REUSEADDR | libc::SO_KEEPALIVE | libc::SO_BROADCAST | libc::SO_OOBINLINE | libc::SO_PRIORITY => int(0),
        libc::SO_RCVLOWAT | libc::SO_SNDLOWAT => int(1),
        libc::SO_LINGER => Some(vec![0; 8]),
        libc::SO_RCVTIMEO => time(file.timeouts.lock().receive),
        libc::SO_SNDTIMEO => time(file.timeouts.lock().send),
        _ => None,
    }
}

pub(super) fn getsockopt(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    level: i32,
    name: i32,
    value: UserAddr,
    len: UserAddr,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let socket_file = SocketFile::of(&file)?;
    let room = usize::try_from(cx.mm()?.read_obj::<i32>(len)?).map_err(|_| Errno::EINVAL)?;
    let own = match socket_file.socket.get_option(cx, level, name) {
        Err(Errno::ENOPROTOOPT) if level == libc::SOL_SOCKET => common(socket_file, name).ok_or(Errno::ENOPROTOOPT),
        other => other,
    }?;
    let n = own.len().min(room);
    cx.mm()?.write_bytes(value, &own[..n])?;
    cx.mm()?.write_obj(len, &u32::try_from(n).map_err(|_| Errno::EINVAL)?)?;
    ok()
}

fn parse_timeout(raw: &[u8]) -> Result<Option<i64>, Errno> {
    let (tv, _) = Timeval::read_from_prefix(raw).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&tv.usec) {
        return Err(Errno::EDOM);
    }
    let nanos = tv.sec.max(0).saturating_mul(1_000_000_000).saturating_add(tv.usec * 1000);
    Ok((nanos > 0).then_some(nanos))
}

fn set_common(file: &SocketFile, name: i32, raw: &[u8]) -> Result<(), Errno> {
    match name {
        libc::SO_RCVTIMEO => file.timeouts.lock().receive = parse_timeout(raw)?,
        libc::SO_SNDTIMEO => file.timeouts.lock().send = parse_timeout(raw)?,
        libc::SO_LINGER if raw.len() >= 8 => {}
        // Accepted and without effect on local sockets, as on Linux.
        libc::SO_SNDBUF
        | libc::SO_RCVBUF
        | libc::SO_REUSEADDR
        | libc::SO_KEEPALIVE
        | libc::SO_BROADCAST
        | libc::SO_OOBINLINE
        | libc::SO_PRIORITY
        | libc::SO_RCVLOWAT
            if raw.len() >= 4 => {}
        libc::SO_TYPE | libc::SO_DOMAIN | libc::SO_PROTOCOL | libc::SO_ERROR | libc::SO_ACCEPTCONN => {
            return Err(Errno::ENOPROTOOPT);
        }
        libc::SO_LINGER | libc::SO_SNDBUF | libc::SO_RCVBUF => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

pub(super) fn setsockopt(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    level: i32,
    name: i32,
    value: UserAddr,
    len: i32,
) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let socket_file = SocketFile::of(&file)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(MAX_VALUE);
    let mut raw = vec![0u8; len];
    cx.mm()?.read_bytes(value, &mut raw)?;
    match socket_file.socket.set_option(cx, level, name, &raw) {
        Err(Errno::ENOPROTOOPT) if level == libc::SOL_SOCKET => set_common(socket_file, name, &raw)?,
        other => other?,
    }
    ok()
}
