//! Modes, owners, times, lengths, positions, and what pushes data to a disk that is not there.

use abi::time::NANOS_PER_SEC;
use abi::{Errno, Timespec, UserAddr};

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fs_at::{self, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Place, resolve};
use crate::vfs::notify::event;
use crate::vfs::perm::{self, MAY_WRITE};
use crate::vfs::set_attr::{self, NewTime};
use crate::vfs::{Caller, FdNum, FileType, OpenFlags, SetAttr, Whence};

syscall_table! {
    8 lseek(fd: FdNum, offset: i64, whence: i32);
    74 fsync(fd: FdNum);
    75 fdatasync(fd: FdNum);
    76 truncate(path: UserStr, size: i64);
    77 ftruncate(fd: FdNum, size: i64);
    90 chmod(path: UserStr, mode: u32);
    91 fchmod(fd: FdNum, mode: u32);
    92 chown(path: UserStr, uid: u32, gid: u32);
    93 fchown(fd: FdNum, uid: u32, gid: u32);
    94 lchown(path: UserStr, uid: u32, gid: u32);
    132 utime(path: UserStr, times: UserAddr);
    162 sync();
    187 readahead(fd: FdNum, offset: i64, count: usize);
    221 fadvise64(fd: FdNum, offset: i64, len: i64, advice: i32);
    235 utimes(path: UserStr, times: UserAddr);
    260 fchownat(dir: FdNum, path: UserStr, uid: u32, gid: u32, flags: u32);
    261 futimesat(dir: FdNum, path: UserStr, times: UserAddr);
    268 fchmodat(dir: FdNum, path: UserStr, mode: u32);
    277 sync_file_range(fd: FdNum, offset: i64, len: i64, flags: u32);
    280 utimensat(dir: FdNum, path: UserStr, times: UserAddr, flags: u32);
    285 fallocate(fd: FdNum, mode: i32, offset: i64, len: i64);
    306 syncfs(fd: FdNum);
    452 fchmodat2(dir: FdNum, path: UserStr, mode: u32, flags: u32);
}

fn lseek(cx: &mut CurrentTask<'_>, fd: FdNum, offset: i64, whence: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    let whence = match whence {
        libc::SEEK_SET => Whence::Set,
        libc::SEEK_CUR => Whence::Current,
        libc::SEEK_END => Whence::End,
        libc::SEEK_DATA => Whence::Data,
        libc::SEEK_HOLE => Whence::Hole,
        _ => return Err(Errno::EINVAL),
    };
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let mut position = file.offset.lock();
    *position = file.ops.seek(&file, *position, offset, whence)?;
    ret(*position)
}

fn fsync(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    file.ops.sync(&file)?;
    ok()
}

fn fdatasync(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    fsync(cx, fd)
}

fn sync(_cx: &mut CurrentTask<'_>) -> SyscallResult {
    ok()
}

fn syncfs(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { ok() }
}

fn sync_file_range(cx: &mut CurrentTask<'_>, fd: FdNum, offset: i64, len: i64, flags: u32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if file.ops.is_seekable() { ok() } else { Err(Errno::ESPIPE) }
}

fn readahead(cx: &mut CurrentTask<'_>, fd: FdNum, _offset: i64, _count: usize) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF);
    }
    if fs_at::file_attr(&file)?.kind == FileType::Regular { ok() } else { Err(Errno::EINVAL) }
}

fn fadvise64(cx: &mut CurrentTask<'_>, fd: FdNum, _offset: i64, len: i64, advice: i32) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if fs_at::file_attr(&file)?.kind == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { ok() }
}

/// A place that may be changed.
fn changeable(
    cx: &CurrentTask<'_>,
    caller: &Caller<'_>,
    dir: FdNum,
    path: UserStr,
    flags: u32,
) -> Result<Place, Errno> {
    let place = resolve(cx, caller, dir, path, flags)?;
    place.check_writable()?;
    Ok(place)
}

/// An open file that may be changed, O_PATH excepted.
fn changeable_fd(cx: &CurrentTask<'_>, fd: FdNum) -> Result<Place, Errno> {
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let place = Place::File(file);
    place.check_writable()?;
    Ok(place)
}

/// Tells those who watch.
fn changed(place: &Place, mask: u32) {
    if let Some(path) = place.path() {
        path.notify(mask);
    }
}

/// Runs `change` on the inode; an open file without one (a pipe, a socket) takes any change and forgets it.
fn on_inode(
    place: &Place,
    mask: u32,
    change: impl FnOnce(&dyn crate::vfs::Inode) -> Result<(), Errno>,
) -> SyscallResult {
    match place.inode() {
        Ok(inode) => {
            change(inode.as_ref())?;
            changed(place, mask);
        }
        Err(_) if matches!(place, Place::File(_)) => {}
        Err(errno) => return Err(errno),
    }
    ok()
}

fn chmod_at(cx: &CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32, flags: u32) -> SyscallResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let place = changeable(cx, &caller, dir, path, flags)?;
    if place.attr()?.kind == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    on_inode(&place, event::ATTRIB, |inode| set_attr::chmod(&caller, inode, mode))
}

fn chmod(cx: &mut CurrentTask<'_>, path: UserStr, mode: u32) -> SyscallResult {
    chmod_at(cx, AT_FDCWD, path, mode, 0)
}

fn fchmodat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32) -> SyscallResult {
    chmod_at(cx, dir, path, mode, 0)
}

fn fchmodat2(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32, flags: u32) -> SyscallResult {
    chmod_at(cx, dir, path, mode, flags)
}

fn fchmod(cx: &mut CurrentTask<'_>, fd: FdNum, mode: u32) -> SyscallResult {
    let place = changeable_fd(cx, fd)?;
    let caller = Caller::of(cx.task)?;
    on_inode(&place, event::ATTRIB, |inode| set_attr::chmod(&caller, inode, mode))
}

/// -1 leaves an id as it is.
fn id(raw: u32) -> Option<u32> {
    (raw != u32::MAX).then_some(raw)
}

fn chown_at(cx: &CurrentTask<'_>, dir: FdNum, path: UserStr, ids: (u32, u32), flags: u32) -> SyscallResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let place = changeable(cx, &caller, dir, path, flags)?;
    on_inode(&place, event::ATTRIB, |inode| set_attr::chown(&caller, inode, id(ids.0), id(ids.1)))
}

fn chown(cx: &mut CurrentTask<'_>, path: UserStr, uid: u32, gid: u32) -> SyscallResult {
    chown_at(cx, AT_FDCWD, path, (uid, gid), 0)
}

fn lchown(cx: &mut CurrentTask<'_>, path: UserStr, uid: u32, gid: u32) -> SyscallResult {
    chown_at(cx, AT_FDCWD, path, (uid, gid), AT_SYMLINK_NOFOLLOW)
}

fn fchownat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, uid: u32, gid: u32, flags: u32) -> SyscallResult {
    chown_at(cx, dir, path, (uid, gid), flags)
}

fn fchown(cx: &mut CurrentTask<'_>, fd: FdNum, uid: u32, gid: u32) -> SyscallResult {
    let place = changeable_fd(cx, fd)?;
    let caller = Caller::of(cx.task)?;
    on_inode(&place, event::ATTRIB, |inode| set_attr::chown(&caller, inode, id(uid), id(gid)))
}

/// `UTIME_NOW`.
const UTIME_NOW: i64 = 0x3fff_ffff;
/// `UTIME_OMIT`.
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn new_time(time: Timespec) -> Result<NewTime, Errno> {
    match time.nsec {
        UTIME_NOW => Ok(NewTime::Now),
        UTIME_OMIT => Ok(NewTime::Omit),
        0..NANOS_PER_SEC => Ok(NewTime::At(time)),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(place: &Place, caller: &Caller<'_>, times: [NewTime; 2]) -> SyscallResult {
    place.check_writable()?;
    let mask = match times {
        [NewTime::Omit, _] => event::MODIFY,
        [_, NewTime::Omit] => event::ACCESS,
        _ => event::ATTRIB,
    };
    on_inode(place, mask, |inode| set_attr::utimes(caller, inode, times[0], times[1]))
}

fn utimensat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, times: UserAddr, flags: u32) -> SyscallResult {
    let times = if times.is_null() {
        [NewTime::Now; 2]
    } else {
        let [atime, mtime]: [Timespec; 2] = cx.mm()?.read_obj(times)?;
        [new_time(atime)?, new_time(mtime)?]
    };
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    // futimens: no path at all.
    if path.0.is_null() && dir != AT_FDCWD {
        if flags & AT_SYMLINK_NOFOLLOW != 0 {
            return Err(Errno::EINVAL);
        }
        let file = cx.fds()?.get(dir)?;
        if file.flags().contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        return set_times(&Place::File(file), &caller, times);
    }
    if times == [NewTime::Omit; 2] {
        return ok();
    }
    let place = resolve(cx, &caller, dir, path, flags)?;
    set_times(&place, &caller, times)
}

fn futimesat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, times: UserAddr) -> SyscallResult {
    let times = if times.is_null() {
        [NewTime::Now; 2]
    } else {
        let raw: [abi::time::Timeval; 2] = cx.mm()?.read_obj(times)?;
        let [Ok(atime), Ok(mtime)] = raw.map(|t| match t.usec {
            0..1_000_000 => Ok(NewTime::At(Timespec { sec: t.sec, nsec: t.usec * 1000 })),
            _ => Err(Errno::EINVAL),
        }) else {
            return Err(Errno::EINVAL);
        };
        [atime, mtime]
    };
    let caller = Caller::of(cx.task)?;
    if path.0.is_null() && dir != AT_FDCWD {
        let file = cx.fds()?.get(dir)?;
        return set_times(&Place::File(file), &caller, times);
    }
    let place = resolve(cx, &caller, dir, path, 0)?;
    set_times(&place, &caller, times)
}

fn utimes(cx: &mut CurrentTask<'_>, path: UserStr, times: UserAddr) -> SyscallResult {
    futimesat(cx, AT_FDCWD, path, times)
}

fn utime(cx: &mut CurrentTask<'_>, path: UserStr, times: UserAddr) -> SyscallResult {
    let times = if times.is_null() {
        [NewTime::Now; 2]
    } else {
        let [atime, mtime]: [i64; 2] = cx.mm()?.read_obj(times)?;
        [atime, mtime].map(|sec| NewTime::At(Timespec { sec, nsec: 0 }))
    };
    let caller = Caller::of(cx.task)?;
    let place = resolve(cx, &caller, AT_FDCWD, path, 0)?;
    set_times(&place, &caller, times)
}

/// Checks a new length against RLIMIT_FSIZE (`inode_newsize_ok`).
fn check_size(cx: &mut CurrentTask<'_>, old: u64, new: u64) -> Result<(), Errno> {
    if new > old && new > cx.task.group.limit(crate::kernel::limits::resource::FSIZE) {
        super::read_write::file_too_big(cx);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

fn truncate(cx: &mut CurrentTask<'_>, path: UserStr, size: i64) -> SyscallResult {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let caller = Caller::of(cx.task)?;
    let place = resolve(cx, &caller, AT_FDCWD, path, 0)?;
    let path = place.path().ok_or(Errno::EINVAL)?;
    let attr = path.inode().attr();
    match attr.kind {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    place.check_writable()?;
    perm::check(&caller.creds, path, MAY_WRITE)?;
    check_size(cx, attr.size, size)?;
    let perm = set_attr::mode_after_write(&caller.creds, &attr);
    path.inode().set_attr(&SetAttr { size: Some(size), perm, ..SetAttr::default() })?;
    path.notify(event::MODIFY);
    ok()
}

fn ftruncate(cx: &mut CurrentTask<'_>, fd: FdNum, size: i64) -> SyscallResult {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if fs_at::file_attr(&file)?.kind != FileType::Regular || !file.flags().writable() {
        return Err(Errno::EINVAL);
    }
    check_size(cx, fs_at::file_attr(&file)?.size, size)?;
    file.ops.truncate(&file, size)?;
    changed(&Place::File(file), event::MODIFY);
    ok()
}

fn fallocate(cx: &mut CurrentTask<'_>, fd: FdNum, mode: i32, offset: i64, len: i64) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    /// `FALLOC_FL_*` that exist.
    const KNOWN: u32 = 0x7f;
    let mode = mode.cast_unsigned();
    // A hole never changes the length; the man page's combinations.
    if mode & !KNOWN != 0 || (mode & 2 != 0 && mode & 1 == 0) {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.flags().writable() {
        return Err(Errno::EBADF);
    }
    match fs_at::file_attr(&file)?.kind {
        FileType::Fifo => return Err(Errno::ESPIPE),
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::ENODEV),
    }
    if offset.checked_add(len).is_none() {
        return Err(Errno::EFBIG);
    }
    if mode & 1 == 0 {
        check_size(cx, fs_at::file_attr(&file)?.size, offset.cast_unsigned() + len.cast_unsigned())?;
    }
    file.ops.allocate(&file, mode, offset.cast_unsigned(), len.cast_unsigned())?;
    changed(&Place::File(file), event::MODIFY);
    ok()
}
