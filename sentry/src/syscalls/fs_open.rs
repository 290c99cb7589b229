//! open and its kin.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::fs::pipe::fifo;
use crate::kernel::op::SyscallResult;
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fd::install;
use crate::syscalls::fs_at::{self, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW};
use crate::vfs::open::{OpenHow, Opened, open as open_file};
use crate::vfs::walk::Resolve;
use crate::vfs::{Caller, FdNum, FileDescription, OpenFlags};

syscall_table! {
    2 open(path: UserStr, flags: u32, mode: u32);
    85 creat(path: UserStr, mode: u32);
    257 openat(dir: FdNum, path: UserStr, flags: u32, mode: u32);
    437 openat2(dir: FdNum, path: UserStr, how: UserAddr, size: usize);
}

/// Opens and installs.
fn open_at(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, how: OpenHow) -> SyscallResult {
    let path = fs_at::path(cx, path)?;
    let opened = {
        let caller = Caller::of(cx.task)?;
        let start = fs_at::start(cx, &caller, dir, &path)?;
        open_file(&caller, &cx.kernel().devices, start, &path, how)?
    };
    match opened {
        Opened::File(file) => install(cx, file, how.flags),
        Opened::Fifo(place, flags) => {
            let inode = place.inode().clone();
            fifo::open(cx, inode, place, flags)
        }
    }
}

fn plain(flags: u32, mode: u32) -> OpenHow {
    OpenHow { flags: OpenFlags::from_bits_truncate(flags) | OpenFlags::LARGEFILE, mode, ..OpenHow::default() }
}

fn open(cx: &mut CurrentTask<'_>, path: UserStr, flags: u32, mode: u32) -> SyscallResult {
    open_at(cx, AT_FDCWD, path, plain(flags, mode))
}

fn openat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, flags: u32, mode: u32) -> SyscallResult {
    open_at(cx, dir, path, plain(flags, mode))
}

fn creat(cx: &mut CurrentTask<'_>, path: UserStr, mode: u32) -> SyscallResult {
    open_at(cx, AT_FDCWD, path, plain((OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC).bits(), mode))
}

/// `struct open_how` (`include/uapi/linux/openat2.h`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Reads an extensible structure of `size` bytes, of which we know `size_of::<T>()` (`copy_struct_from_user`).
pub(crate) fn read_extensible<T: FromBytes + IntoBytes>(
    cx: &CurrentTask<'_>,
    at: UserAddr,
    size: usize,
    min: usize,
) -> Result<T, Errno> {
    let known = size_of::<T>();
    if size < min {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0u8; size.max(known)];
    cx.mm()?.read_bytes(at, bytes.get_mut(..size).unwrap_or_default())?;
    let (head, rest) = bytes.split_at(known);
    if rest.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    T::read_from_bytes(head).map_err(|_| Errno::EINVAL)
}

fn openat2(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, how: UserAddr, size: usize) -> SyscallResult {
    let raw: RawHow = read_extensible(cx, how, size, size_of::<RawHow>())?;
    let bits = u32::try_from(raw.flags).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits(bits).ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(raw.resolve).ok_or(Errno::EINVAL)?;
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE);
    if (raw.mode != 0 && !creates) || raw.mode & !0o7777 != 0 {
        return Err(Errno::EINVAL);
    }
    let path_only = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if flags.contains(OpenFlags::PATH) && !path_only.contains(flags) {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(Resolve::CACHED) {
        // We never know beforehand that nothing would wait; saying so is allowed (openat2(2), EAGAIN).
        return Err(Errno::EAGAIN);
    }
    let mode = u32::try_from(raw.mode).map_err(|_| Errno::EINVAL)?;
    open_at(cx, dir, path, OpenHow { flags: flags | OpenFlags::LARGEFILE, mode, resolve, exec: false })
}

/// Opens a program: a regular file that may be executed, on a mount that lets it.
///
/// # Errors
/// `EACCES`; `ELOOP` for a symlink with AT_SYMLINK_NOFOLLOW; as the walk.
pub fn open_exec(cx: &mut CurrentTask<'_>, dir: FdNum, path: &[u8], flags: u32) -> Result<Arc<FileDescription>, Errno> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let nofollow = if flags & AT_SYMLINK_NOFOLLOW != 0 { OpenFlags::NOFOLLOW } else { OpenFlags::empty() };
    let how = OpenHow { flags: nofollow | OpenFlags::LARGEFILE, exec: true, ..OpenHow::default() };
    let devices = &cx.kernel().devices;
    let opened = if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        let place = cx.fds()?.get(dir)?.path.clone().ok_or(Errno::EACCES)?;
        crate::vfs::open::open_place(&caller, devices, place, how, false)?
    } else {
        let start = fs_at::start(cx, &caller, dir, path)?;
        open_file(&caller, devices, start, path, how)?
    };
    match opened {
        Opened::File(file) => Ok(file),
        Opened::Fifo(..) => Err(Errno::EACCES),
    }
}
