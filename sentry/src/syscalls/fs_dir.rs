//! Directories and names: listing, where one is, making and removing names.

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fs_at::{self, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Place, resolve};
use crate::vfs::perm::{self, CAP_DAC_READ_SEARCH, CAP_MKNOD, CAP_SYS_CHROOT, MAY_EXEC};
use crate::vfs::{Caller, DirEntry, FdNum, FileDescription, FileType, NewNode, PathRef, change, rename as renames};

syscall_table! {
    78 getdents(fd: FdNum, buf: UserAddr, count: u32);
    79 getcwd(buf: UserAddr, size: usize);
    80 chdir(path: UserStr);
    81 fchdir(fd: FdNum);
    82 rename(old: UserStr, new: UserStr);
    83 mkdir(path: UserStr, mode: u32);
    84 rmdir(path: UserStr);
    86 link(old: UserStr, new: UserStr);
    87 unlink(path: UserStr);
    88 symlink(target: UserStr, path: UserStr);
    89 readlink(path: UserStr, buf: UserAddr, size: i32);
    95 umask(mask: u32);
    133 mknod(path: UserStr, mode: u32, dev: u32);
    161 chroot(path: UserStr);
    217 getdents64(fd: FdNum, buf: UserAddr, count: u32);
    258 mkdirat(dir: FdNum, path: UserStr, mode: u32);
    259 mknodat(dir: FdNum, path: UserStr, mode: u32, dev: u32);
    263 unlinkat(dir: FdNum, path: UserStr, flags: u32);
    264 renameat(old_dir: FdNum, old: UserStr, new_dir: FdNum, new: UserStr);
    265 linkat(old_dir: FdNum, old: UserStr, new_dir: FdNum, new: UserStr, flags: u32);
    266 symlinkat(target: UserStr, dir: FdNum, path: UserStr);
    267 readlinkat(dir: FdNum, path: UserStr, buf: UserAddr, size: i32);
    316 renameat2(old_dir: FdNum, old: UserStr, new_dir: FdNum, new: UserStr, flags: u32);
}

/// Which record a listing writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `struct linux_dirent`: the type is the record's last byte.
    Old,
    /// `struct linux_dirent64`.
    New,
}

/// Appends a record; `false` where it does not fit into `max` bytes.
fn put_record(out: &mut Vec<u8>, max: usize, format: Format, entry: &DirEntry, next: u64) -> bool {
    let (header, tail) = if format == Format::New { (19, 1) } else { (18, 2) };
    let len = (header + entry.name.len() + tail).next_multiple_of(8);
    let Ok(reclen) = u16::try_from(len) else { return false };
    if out.len() + len > max {
        return false;
    }
    let start = out.len();
    out.extend_from_slice(&entry.ino.to_le_bytes());
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&reclen.to_le_bytes());
    if format == Format::New {
        out.push(entry.kind.dirent_type());
    }
    out.extend_from_slice(&entry.name);
    out.resize(start + len, 0);
    if let Some(last) = out.last_mut().filter(|_| format == Format::Old) {
        *last = entry.kind.dirent_type();
    }
    true
}

/// Positions 0 and 1 are `.` and `..`; the file system's cookies follow.
const DOTS: u64 = 2;

fn list(
    caller: &Caller<'_>,
    file: &FileDescription,
    from: u64,
    max: usize,
    format: Format,
) -> Result<(Vec<u8>, u64), Errno> {
    let path = file.path.as_ref().ok_or(Errno::ENOTDIR)?;
    let own = path.inode().attr().key.ino;
    let parent = path.dentry.parent().map_or(own, |p| p.inode().attr().key.ino);
    let mut out = Vec::new();
    let (mut at, mut full) = (from, false);
    for (index, name, ino) in [(0, b".".as_slice(), own), (1, b"..".as_slice(), parent)] {
        if at == index && !full {
            let entry = DirEntry { name: name.to_vec(), ino, kind: FileType::Directory, next: 0 };
            full = !put_record(&mut out, max, format, &entry, index + 1);
            at = if full { at } else { index + 1 };
        }
    }
    if !full {
        file.ops.list(caller, at - DOTS, &mut |entry| {
            let next = entry.next.saturating_add(DOTS);
            full = !put_record(&mut out, max, format, &entry, next);
            at = if full { at } else { next };
            !full
        })?;
    }
    // Not even one fits (getdents(2)).
    if full && out.is_empty() { Err(Errno::EINVAL) } else { Ok((out, at)) }
}

fn listing(cx: &CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: u32, format: Format) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    if file.flags().contains(crate::vfs::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let kind = fs_at::file_attr(&file)?.kind;
    if kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let caller = Caller::of(cx.task)?;
    if file.path.as_ref().is_some_and(|p| p.inode().attr().nlink == 0) {
        return Err(Errno::ENOENT);
    }
    // A guest may offer gigabytes; a piece at a time is what every file system gives.
    let max = (count as usize).min(64 << 10);
    let mut position = file.offset.lock();
    let (records, next) = list(&caller, &file, *position, max, format)?;
    cx.mm()?.write_bytes(buf, &records)?;
    *position = next;
    drop(position);
    if let Some(path) = &file.path {
        path.notify(crate::vfs::notify::event::ACCESS);
    }
    ret(records.len() as u64)
}

fn getdents(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: u32) -> SyscallResult {
    listing(cx, fd, buf, count, Format::Old)
}

fn getdents64(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr, count: u32) -> SyscallResult {
    listing(cx, fd, buf, count, Format::New)
}

fn getcwd(cx: &mut CurrentTask<'_>, buf: UserAddr, size: usize) -> SyscallResult {
    let caller = Caller::of(cx.task)?;
    let shown = caller.cwd.path_from(&caller.root);
    if shown.deleted {
        return Err(Errno::ENOENT);
    }
    let mut path = if shown.reachable { Vec::new() } else { b"(unreachable)".to_vec() };
    path.extend_from_slice(&shown.path);
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE);
    }
    cx.mm()?.write_bytes(buf, &path)?;
    ret(path.len() as u64)
}

/// A directory that may be entered.
fn enterable(caller: &Caller<'_>, place: &PathRef) -> Result<(), Errno> {
    let attr = place.inode().attr();
    if attr.kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    perm::check_mode(&caller.creds, &attr, MAY_EXEC)
}

fn set_cwd(cx: &CurrentTask<'_>, place: PathRef) -> SyscallResult {
    let fs = cx.fs()?;
    let old = std::mem::replace(&mut fs.state.lock().cwd, place);
    drop(old);
    ok()
}

fn directory(cx: &CurrentTask<'_>, path: UserStr) -> Result<PathRef, Errno> {
    let caller = Caller::of(cx.task)?;
    match resolve(cx, &caller, AT_FDCWD, path, 0)? {
        Place::Path(place) => enterable(&caller, &place).map(|()| place),
        Place::File(_) => Err(Errno::ENOTDIR),
    }
}

fn chdir(cx: &mut CurrentTask<'_>, path: UserStr) -> SyscallResult {
    let place = directory(cx, path)?;
    set_cwd(cx, place)
}

fn fchdir(cx: &mut CurrentTask<'_>, fd: FdNum) -> SyscallResult {
    let place = cx.fds()?.get(fd)?.path.clone().ok_or(Errno::ENOTDIR)?;
    enterable(&Caller::of(cx.task)?, &place)?;
    set_cwd(cx, place)
}

fn chroot(cx: &mut CurrentTask<'_>, path: UserStr) -> SyscallResult {
    let place = directory(cx, path)?;
    if !cx.creds().has_cap(CAP_SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    let fs = cx.fs()?;
    let old = std::mem::replace(&mut fs.state.lock().root, place);
    drop(old);
    ok()
}

fn umask(cx: &mut CurrentTask<'_>, mask: u32) -> SyscallResult {
    let fs = cx.fs()?;
    let old = std::mem::replace(&mut fs.state.lock().umask, mask & 0o777);
    ret(old)
}

/// Makes something at `path`.
fn make(
    cx: &CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    kind: FileType,
    mode: u32,
    fill: impl FnOnce(&mut NewNode) -> Result<(), Errno>,
) -> SyscallResult {
    let path = fs_at::path(cx, path)?;
    let caller = Caller::of(cx.task)?;
    let start = fs_at::start(cx, &caller, dir, &path)?;
    change::make(&caller, start, &path, kind, mode, fill)?;
    ok()
}

fn mkdirat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32) -> SyscallResult {
    make(cx, dir, path, FileType::Directory, mode & 0o1777, |_| Ok(()))
}

fn mkdir(cx: &mut CurrentTask<'_>, path: UserStr, mode: u32) -> SyscallResult {
    mkdirat(cx, AT_FDCWD, path, mode)
}

fn symlinkat(cx: &mut CurrentTask<'_>, target: UserStr, dir: FdNum, path: UserStr) -> SyscallResult {
    let target = fs_at::path(cx, target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    make(cx, dir, path, FileType::Symlink, 0o777, |node| {
        node.target = target;
        Ok(())
    })
}

fn symlink(cx: &mut CurrentTask<'_>, target: UserStr, path: UserStr) -> SyscallResult {
    symlinkat(cx, target, AT_FDCWD, path)
}

/// A `dev_t` as system calls pass it (`new_decode_dev`).
fn decode_dev(dev: u32) -> u64 {
    let (major, minor) = ((dev & 0xf_ff00) >> 8, (dev & 0xff) | ((dev >> 12) & 0xf_ff00));
    nix::sys::stat::makedev(u64::from(major), u64::from(minor))
}

fn mknodat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32, dev: u32) -> SyscallResult {
    let kind = match mode & libc::S_IFMT {
        0 | libc::S_IFREG => FileType::Regular,
        libc::S_IFDIR => return Err(Errno::EPERM),
        _ => FileType::from_mode(mode).filter(|k| *k != FileType::Symlink).ok_or(Errno::EINVAL)?,
    };
    let creds = cx.creds();
    make(cx, dir, path, kind, mode, |node| {
        if matches!(kind, FileType::CharDevice | FileType::BlockDevice) {
            if !creds.has_cap(CAP_MKNOD) {
                return Err(Errno::EPERM);
            }
            node.rdev = decode_dev(dev);
        }
        Ok(())
    })
}

fn mknod(cx: &mut CurrentTask<'_>, path: UserStr, mode: u32, dev: u32) -> SyscallResult {
    mknodat(cx, AT_FDCWD, path, mode, dev)
}

fn unlinkat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, flags: u32) -> SyscallResult {
    /// `AT_REMOVEDIR`.
    const AT_REMOVEDIR: u32 = 0x200;
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = fs_at::path(cx, path)?;
    let caller = Caller::of(cx.task)?;
    let start = fs_at::start(cx, &caller, dir, &path)?;
    let remove = if flags & AT_REMOVEDIR != 0 { change::rmdir } else { change::unlink };
    remove(&caller, start, &path)?;
    ok()
}

fn unlink(cx: &mut CurrentTask<'_>, path: UserStr) -> SyscallResult {
    unlinkat(cx, AT_FDCWD, path, 0)
}

fn rmdir(cx: &mut CurrentTask<'_>, path: UserStr) -> SyscallResult {
    unlinkat(cx, AT_FDCWD, path, 0x200)
}

fn linkat(
    cx: &mut CurrentTask<'_>,
    old_dir: FdNum,
    old: UserStr,
    new_dir: FdNum,
    new: UserStr,
    flags: u32,
) -> SyscallResult {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let follow = if flags & AT_SYMLINK_FOLLOW != 0 { 0 } else { AT_SYMLINK_NOFOLLOW };
    if flags & AT_EMPTY_PATH != 0 && !caller.creds.has_cap(CAP_DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let source = resolve(cx, &caller, old_dir, old, follow | (flags & AT_EMPTY_PATH))?;
    let source = source.path().cloned().ok_or(Errno::EXDEV)?;
    let path = fs_at::path(cx, new)?;
    let start = fs_at::start(cx, &caller, new_dir, &path)?;
    change::link(&caller, &source, start, &path)?;
    ok()
}

fn link(cx: &mut CurrentTask<'_>, old: UserStr, new: UserStr) -> SyscallResult {
    linkat(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn renameat2(
    cx: &mut CurrentTask<'_>,
    old_dir: FdNum,
    old: UserStr,
    new_dir: FdNum,
    new: UserStr,
    flags: u32,
) -> SyscallResult {
    let (old, new) = (fs_at::path(cx, old)?, fs_at::path(cx, new)?);
    let caller = Caller::of(cx.task)?;
    let old_start = fs_at::start(cx, &caller, old_dir, &old)?;
    let new_start = fs_at::start(cx, &caller, new_dir, &new)?;
    renames::rename(&caller, (old_start, &old), (new_start, &new), flags)?;
    ok()
}

fn renameat(cx: &mut CurrentTask<'_>, old_dir: FdNum, old: UserStr, new_dir: FdNum, new: UserStr) -> SyscallResult {
    renameat2(cx, old_dir, old, new_dir, new, 0)
}

fn rename(cx: &mut CurrentTask<'_>, old: UserStr, new: UserStr) -> SyscallResult {
    renameat2(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn readlinkat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, buf: UserAddr, size: i32) -> SyscallResult {
    let size = usize::try_from(size).ok().filter(|s| *s > 0).ok_or(Errno::EINVAL)?;
    let caller = Caller::of(cx.task)?;
    // An empty path names the descriptor, which must be a symlink then (readlinkat(2)).
    let place = resolve(cx, &caller, dir, path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    if matches!(place, Place::File(_)) && place.attr()?.kind != FileType::Symlink {
        return Err(Errno::ENOENT);
    }
    if matches!(&place, Place::Path(p) if *p == caller.cwd) && fs_at::path(cx, path)?.is_empty() {
        return Err(Errno::ENOENT);
    }
    let target = place.inode()?.readlink(&caller)?;
    let shown = target.get(..target.len().min(size)).unwrap_or_default();
    cx.mm()?.write_bytes(buf, shown)?;
    ret(shown.len() as u64)
}

fn readlink(cx: &mut CurrentTask<'_>, path: UserStr, buf: UserAddr, size: i32) -> SyscallResult {
    if fs_at::path(cx, path)?.is_empty() {
        return Err(Errno::ENOENT);
    }
    readlinkat(cx, AT_FDCWD, path, buf, size)
}
