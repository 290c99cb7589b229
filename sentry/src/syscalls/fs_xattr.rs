//! Extended attributes (`xattr(7)`).

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fs_at::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Place, resolve};
use crate::syscalls::fs_open::read_extensible;
use crate::vfs::notify::event;
use crate::vfs::perm::{self, CAP_SETFCAP, CAP_SYS_ADMIN, MAY_READ, MAY_WRITE};
use crate::vfs::{Caller, FdNum, FileType, Inode, OpenFlags, XattrOps};

syscall_table! {
    188 setxattr(path: UserStr, name: UserStr, value: UserAddr, size: usize, flags: u32);
    189 lsetxattr(path: UserStr, name: UserStr, value: UserAddr, size: usize, flags: u32);
    190 fsetxattr(fd: FdNum, name: UserStr, value: UserAddr, size: usize, flags: u32);
    191 getxattr(path: UserStr, name: UserStr, value: UserAddr, size: usize);
    192 lgetxattr(path: UserStr, name: UserStr, value: UserAddr, size: usize);
    193 fgetxattr(fd: FdNum, name: UserStr, value: UserAddr, size: usize);
    194 listxattr(path: UserStr, list: UserAddr, size: usize);
    195 llistxattr(path: UserStr, list: UserAddr, size: usize);
    196 flistxattr(fd: FdNum, list: UserAddr, size: usize);
    197 removexattr(path: UserStr, name: UserStr);
    198 lremovexattr(path: UserStr, name: UserStr);
    199 fremovexattr(fd: FdNum, name: UserStr);
    463 setxattrat(dir: FdNum, path: UserStr, flags: u32, name: UserStr, args: UserAddr, size: usize);
    464 getxattrat(dir: FdNum, path: UserStr, flags: u32, name: UserStr, args: UserAddr, size: usize);
    465 listxattrat(dir: FdNum, path: UserStr, flags: u32, list: UserAddr, size: usize);
    466 removexattrat(dir: FdNum, path: UserStr, flags: u32, name: UserStr);
}

/// `XATTR_NAME_MAX`.
const NAME_MAX: usize = 255;
/// `XATTR_SIZE_MAX`.
const SIZE_MAX: usize = 65536;
/// `XATTR_LIST_MAX`.
const LIST_MAX: usize = 65536;

/// Which file a call names.
#[derive(Clone, Copy)]
enum Which {
    Path(UserStr),
    Link(UserStr),
    Fd(FdNum),
    At(FdNum, UserStr, u32),
}

fn place(cx: &CurrentTask<'_>, caller: &Caller<'_>, which: Which) -> Result<Place, Errno> {
    match which {
        Which::Path(path) => resolve(cx, caller, AT_FDCWD, path, 0),
        Which::Link(path) => resolve(cx, caller, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW),
        Which::At(_, _, flags) if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 => Err(Errno::EINVAL),
        Which::At(dir, path, flags) => resolve(cx, caller, dir, path, flags),
        Which::Fd(fd) => {
            let file = cx.fds()?.get(fd)?;
            if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(Place::File(file)) }
        }
    }
}

fn name(cx: &CurrentTask<'_>, at: UserStr) -> Result<Vec<u8>, Errno> {
    match cx.mm()?.read_cstr(at.0, NAME_MAX) {
        Ok(name) if name.is_empty() => Err(Errno::ERANGE),
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        other => other,
    }
}

/// Checks what `xattr_permission` and the handlers of each namespace check.
fn check(caller: &Caller<'_>, inode: &Arc<dyn Inode>, name: &[u8], write: bool) -> Result<(), Errno> {
    let attr = inode.attr();
    let admin = caller.creds.has_cap(CAP_SYS_ADMIN);
    if name.starts_with(b"security.") {
        let may = if name == b"security.capability" { admin || caller.creds.has_cap(CAP_SETFCAP) } else { admin };
        return if write && !may { Err(Errno::EPERM) } else { Ok(()) };
    }
    if name.starts_with(b"trusted.") {
        return match (admin, write) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ENODATA),
        };
    }
    if !name.starts_with(b"user.") {
        return Err(Errno::EOPNOTSUPP);
    }
    if name == b"user." {
        return Err(Errno::EINVAL);
    }
    if !matches!(attr.kind, FileType::Regular | FileType::Directory) {
        return Err(if write { Errno::EPERM } else { Errno::ENODATA });
    }
    let sticky = attr.kind == FileType::Directory && attr.perm & libc::S_ISVTX != 0;
    if write && sticky && !perm::is_owner(&caller.creds, &attr) {
        return Err(Errno::EPERM);
    }
    perm::check_mode(&caller.creds, &attr, if write { MAY_WRITE } else { MAY_READ })
}

fn ops(inode: &Arc<dyn Inode>) -> Result<&dyn XattrOps, Errno> {
    inode.xattrs().ok_or(Errno::EOPNOTSUPP)
}

fn set(cx: &CurrentTask<'_>, which: Which, at: UserStr, value: UserAddr, size: usize, flags: u32) -> SyscallResult {
    let flags = i32::try_from(flags).ok().filter(|f| f & !3 == 0).ok_or(Errno::EINVAL)?;
    let name = name(cx, at)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0u8; size];
    cx.mm()?.read_bytes(value, &mut bytes)?;
    let caller = Caller::of(cx.task)?;
    let place = place(cx, &caller, which)?;
    place.check_writable()?;
    let inode = place.inode().map_err(|_| Errno::EOPNOTSUPP)?;
    check(&caller, &inode, &name, true)?;
    ops(&inode)?.set(&name, &bytes, flags)?;
    if let Some(path) = place.path() {
        path.notify(event::ATTRIB);
    }
    ok()
}

/// Answers `bytes`, or their number where no room is offered.
fn answer(cx: &CurrentTask<'_>, bytes: &[u8], to: UserAddr, size: usize) -> SyscallResult {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        cx.mm()?.write_bytes(to, bytes)?;
    }
    ret(bytes.len() as u64)
}

fn get(cx: &CurrentTask<'_>, which: Which, at: UserStr, value: UserAddr, size: usize) -> SyscallResult {
    let name = name(cx, at)?;
    let caller = Caller::of(cx.task)?;
    let inode = place(cx, &caller, which)?.inode().map_err(|_| Errno::EOPNOTSUPP)?;
    check(&caller, &inode, &name, false)?;
    let bytes = ops(&inode)?.get(&name)?;
    answer(cx, &bytes, value, size)
}

fn list(cx: &CurrentTask<'_>, which: Which, to: UserAddr, size: usize) -> SyscallResult {
    let caller = Caller::of(cx.task)?;
    let Ok(inode) = place(cx, &caller, which)?.inode() else { return ret(0u64) };
    let admin = caller.creds.has_cap(CAP_SYS_ADMIN);
    let mut out = Vec::new();
    for name in inode.xattrs().map_or(Ok(Vec::new()), |ops| ops.list())? {
        // Names of the trusted namespace are for the administrator alone.
        if admin || !name.starts_with(b"trusted.") {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    if out.len() > LIST_MAX {
        return Err(Errno::E2BIG);
    }
    answer(cx, &out, to, size)
}

fn remove(cx: &CurrentTask<'_>, which: Which, at: UserStr) -> SyscallResult {
    let name = name(cx, at)?;
    let caller = Caller::of(cx.task)?;
    let place = place(cx, &caller, which)?;
    place.check_writable()?;
    let inode = place.inode().map_err(|_| Errno::EOPNOTSUPP)?;
    check(&caller, &inode, &name, true)?;
    ops(&inode)?.remove(&name)?;
    if let Some(path) = place.path() {
        path.notify(event::ATTRIB);
    }
    ok()
}

fn setxattr(
    cx: &mut CurrentTask<'_>,
    path: UserStr,
    name: UserStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(cx, Which::Path(path), name, value, size, flags)
}

fn lsetxattr(
    cx: &mut CurrentTask<'_>,
    path: UserStr,
    name: UserStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(cx, Which::Link(path), name, value, size, flags)
}

fn fsetxattr(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    name: UserStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(cx, Which::Fd(fd), name, value, size, flags)
}

fn getxattr(cx: &mut CurrentTask<'_>, path: UserStr, name: UserStr, value: UserAddr, size: usize) -> SyscallResult {
    get(cx, Which::Path(path), name, value, size)
}

fn lgetxattr(cx: &mut CurrentTask<'_>, path: UserStr, name: UserStr, value: UserAddr, size: usize) -> SyscallResult {
    get(cx, Which::Link(path), name, value, size)
}

fn fgetxattr(cx: &mut CurrentTask<'_>, fd: FdNum, name: UserStr, value: UserAddr, size: usize) -> SyscallResult {
    get(cx, Which::Fd(fd), name, value, size)
}

fn listxattr(cx: &mut CurrentTask<'_>, path: UserStr, to: UserAddr, size: usize) -> SyscallResult {
    list(cx, Which::Path(path), to, size)
}

fn llistxattr(cx: &mut CurrentTask<'_>, path: UserStr, to: UserAddr, size: usize) -> SyscallResult {
    list(cx, Which::Link(path), to, size)
}

fn flistxattr(cx: &mut CurrentTask<'_>, fd: FdNum, to: UserAddr, size: usize) -> SyscallResult {
    list(cx, Which::Fd(fd), to, size)
}

fn removexattr(cx: &mut CurrentTask<'_>, path: UserStr, name: UserStr) -> SyscallResult {
    remove(cx, Which::Path(path), name)
}

fn lremovexattr(cx: &mut CurrentTask<'_>, path: UserStr, name: UserStr) -> SyscallResult {
    remove(cx, Which::Link(path), name)
}

fn fremovexattr(cx: &mut CurrentTask<'_>, fd: FdNum, name: UserStr) -> SyscallResult {
    remove(cx, Which::Fd(fd), name)
}

/// `struct xattr_args`: value, then size and flags.
fn xattr_args(cx: &CurrentTask<'_>, args: UserAddr, size: usize) -> Result<(UserAddr, usize, u32), Errno> {
    let [value, packed]: [u64; 2] = read_extensible(cx, args, size, 16)?;
    let (size, flags) = (packed & u64::from(u32::MAX), packed >> 32);
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    Ok((UserAddr(value), size, u32::try_from(flags).map_err(|_| Errno::EINVAL)?))
}

fn setxattrat(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    flags: u32,
    name: UserStr,
    args: UserAddr,
    size: usize,
) -> SyscallResult {
    let (value, len, how) = xattr_args(cx, args, size)?;
    set(cx, Which::At(dir, path, flags), name, value, len, how)
}

fn getxattrat(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    flags: u32,
    name: UserStr,
    args: UserAddr,
    size: usize,
) -> SyscallResult {
    let (value, len, how) = xattr_args(cx, args, size)?;
    if how != 0 {
        return Err(Errno::EINVAL);
    }
    get(cx, Which::At(dir, path, flags), name, value, len)
}

fn listxattrat(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    flags: u32,
    to: UserAddr,
    size: usize,
) -> SyscallResult {
    list(cx, Which::At(dir, path, flags), to, size)
}

fn removexattrat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, flags: u32, name: UserStr) -> SyscallResult {
    remove(cx, Which::At(dir, path, flags), name)
}
