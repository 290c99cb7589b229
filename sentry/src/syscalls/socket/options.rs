//! getsockopt and setsockopt: the options that every socket has.

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::net::SocketFile;
use crate::vfs::FdNum;

/// Longest option value taken from a guest.
const MAX_VALUE: usize = 4096;
fn common(file: &SocketFile, name: i32) -> Option<Vec<u8>> {
    let socket = &file.socket;
    let own = match name {
        libc::SO_TYPE => socket.raw_kind(),
        libc::SO_DOMAIN => socket.domain(),
        libc::SO_PROTOCOL => socket.protocol(),
        libc::SO_ACCEPTCONN => i32::from(socket.is_listening()),
        libc::SO_ERROR => 0,
        _ => return file.options.lock().get(name),
    };
    Some(own.to_le_bytes().to_vec())
}

fn set_common(cx: &CurrentTask<'_>, file: &SocketFile, name: i32, raw: &[u8]) -> Result<(), Errno> {
    let creds = cx.creds();
    let mut options = file.options.lock();
    options.set(file.socket.domain(), name, raw, |cap| creds.has_cap(cap))?;
    let send = options.send_buffer;
    drop(options);
    file.socket.set_send_buffer(usize::try_from(send).unwrap_or(0));
    Ok(())
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
        Err(Errno::ENOPROTOOPT) if level == libc::SOL_SOCKET => set_common(cx, socket_file, name, &raw)?,
        other => other?,
    }
    ok()
}
