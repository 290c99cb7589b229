//! stat and its kin, access, statfs.

use abi::{Errno, UserAddr};
use zerocopy::{Immutable, IntoBytes};

use crate::kernel::creds::Creds;
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fs_at::{
    self, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Place, file_attr, resolve,
};
use crate::vfs::mount::MountFlags;
use crate::vfs::perm::{self, MAY_EXEC, MAY_WRITE};
use crate::vfs::{Attr, Caller, FdNum, FileType, PathRef, StatFs};

syscall_table! {
    4 stat(path: UserStr, buf: UserAddr);
    5 fstat(fd: FdNum, buf: UserAddr);
    6 lstat(path: UserStr, buf: UserAddr);
    21 access(path: UserStr, mode: u32);
    137 statfs(path: UserStr, buf: UserAddr);
    138 fstatfs(fd: FdNum, buf: UserAddr);
    262 newfstatat(dir: FdNum, path: UserStr, buf: UserAddr, flags: u32);
    269 faccessat(dir: FdNum, path: UserStr, mode: u32);
    332 statx(dir: FdNum, path: UserStr, flags: u32, mask: u32, buf: UserAddr);
    439 faccessat2(dir: FdNum, path: UserStr, mode: u32, flags: u32);
    303 name_to_handle_at(dir: FdNum, path: UserStr, handle: UserAddr, mount: UserAddr, flags: u32) Partial("no file system here has handles: EOPNOTSUPP");
    304 open_by_handle_at(mount: FdNum, handle: UserAddr, flags: u32) Partial("no file system here has handles: ESTALE");
}

/// `struct stat` of x86-64 (`arch/x86/include/uapi/asm/stat.h`).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Stat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pad: u32,
    rdev: u64,
    size: u64,
    blksize: u64,
    blocks: u64,
    times: [i64; 6],
    unused: [u64; 3],
}

impl Stat {
    fn new(a: &Attr) -> Self {
        Stat {
            dev: a.key.dev,
            ino: a.key.ino,
            nlink: u64::from(a.nlink),
            mode: a.kind.mode_bits() | a.perm,
            uid: a.uid,
            gid: a.gid,
            pad: 0,
            rdev: a.rdev,
            size: a.size,
            blksize: u64::from(a.blksize),
            blocks: a.blocks,
            times: [a.atime.sec, a.atime.nsec, a.mtime.sec, a.mtime.nsec, a.ctime.sec, a.ctime.nsec],
            unused: [0; 3],
        }
    }
}

fn put_stat(cx: &CurrentTask<'_>, attr: &Attr, buf: UserAddr) -> SyscallResult {
    cx.mm()?.write_obj(buf, &Stat::new(attr))?;
    ok()
}

fn stat_at(cx: &CurrentTask<'_>, dir: FdNum, path: UserStr, buf: UserAddr, flags: u32) -> SyscallResult {
    let attr = resolve(cx, &Caller::of(cx.task)?, dir, path, flags)?.attr()?;
    put_stat(cx, &attr, buf)
}

fn stat(cx: &mut CurrentTask<'_>, path: UserStr, buf: UserAddr) -> SyscallResult {
    stat_at(cx, AT_FDCWD, path, buf, 0)
}

fn lstat(cx: &mut CurrentTask<'_>, path: UserStr, buf: UserAddr) -> SyscallResult {
    stat_at(cx, AT_FDCWD, path, buf, AT_SYMLINK_NOFOLLOW)
}

fn fstat(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr) -> SyscallResult {
    let attr = file_attr(&*cx.fds()?.get(fd)?)?;
    put_stat(cx, &attr, buf)
}

fn newfstatat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, buf: UserAddr, flags: u32) -> SyscallResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    stat_at(cx, dir, path, buf, flags)
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: u32,
}

/// `struct statx` (`include/uapi/linux/stat.h`).
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    times: [StatxTime; 4],
    rdev: [u32; 2],
    dev: [u32; 2],
    mnt_id: u64,
    dio_align: [u32; 2],
    spare: [u64; 12],
}

/// `STATX_BASIC_STATS`.
const STATX_BASIC_STATS: u32 = 0x7ff;
/// `STATX_MNT_ID`.
const STATX_MNT_ID: u32 = 0x1000;
/// `STATX__RESERVED`.
const STATX_RESERVED: u32 = 0x8000_0000;
/// `STATX_ATTR_MOUNT_ROOT`.
const ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `major` and `minor` as `statx` gives them.
fn device(dev: u64) -> [u32; 2] {
    let part = |n: u64| u32::try_from(n).unwrap_or(0);
    [part(nix::sys::stat::major(dev)), part(nix::sys::stat::minor(dev))]
}

impl Statx {
    fn new(a: &Attr, place: Option<&PathRef>) -> Self {
        let time = |t: abi::Timespec| StatxTime { sec: t.sec, nsec: u32::try_from(t.nsec).unwrap_or(0), pad: 0 };
        let mount_root = place.is_some_and(PathRef::is_mount_root);
        Statx {
            mask: STATX_BASIC_STATS | STATX_MNT_ID,
            blksize: a.blksize,
            attributes: if mount_root { ATTR_MOUNT_ROOT } else { 0 },
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            mode: u16::try_from(a.kind.mode_bits() | a.perm).unwrap_or(0),
            pad: 0,
            ino: a.key.ino,
            size: a.size,
            blocks: a.blocks,
            attributes_mask: ATTR_MOUNT_ROOT,
            times: [time(a.atime), time(abi::Timespec::default()), time(a.ctime), time(a.mtime)],
            rdev: device(a.rdev),
            dev: device(a.key.dev),
            mnt_id: place.map_or(0, |p| u64::from(p.mount.id)),
            dio_align: [0; 2],
            spare: [0; 12],
        }
    }
}

fn statx(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, flags: u32, mask: u32, buf: UserAddr) -> SyscallResult {
    /// `AT_STATX_SYNC_TYPE`.
    const SYNC_TYPE: u32 = 0x6000;
    if mask & STATX_RESERVED != 0 || flags & SYNC_TYPE == SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | SYNC_TYPE) != 0 {
        return Err(Errno::EINVAL);
    }
    let place = resolve(cx, &Caller::of(cx.task)?, dir, path, flags)?;
    cx.mm()?.write_obj(buf, &Statx::new(&place.attr()?, place.path()))?;
    ok()
}

/// The credentials that `access(2)` checks: real ids, and the capabilities they would have.
fn real_creds(creds: &Creds) -> Creds {
    let mut real = creds.clone();
    real.uid[3] = real.uid[0];
    real.gid[3] = real.gid[0];
    /// `SECBIT_NO_SETUID_FIXUP`.
    const NO_SETUID_FIXUP: u32 = 4;
    if real.securebits & NO_SETUID_FIXUP == 0 {
        real.caps.effective = if real.uid[0] == 0 { real.caps.permitted } else { 0 };
    }
    real
}

fn access_at(cx: &CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32, flags: u32) -> SyscallResult {
    /// `AT_EACCESS`.
    const AT_EACCESS: u32 = 0x200;
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut caller = Caller::of(cx.task)?;
    if flags & AT_EACCESS == 0 {
        caller.creds = std::sync::Arc::new(real_creds(&caller.creds));
    }
    let place = resolve(cx, &caller, dir, path, flags)?;
    let attr = place.attr()?;
    if let Some(path) = place.path() {
        let noexec = path.mount.flags().contains(MountFlags::NOEXEC);
        if mode & MAY_EXEC != 0 && attr.kind == FileType::Regular && noexec {
            return Err(Errno::EACCES);
        }
    }
    perm::check_mode(&caller.creds, &attr, mode)?;
    let special = !matches!(attr.kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    if mode & MAY_WRITE != 0 && !special {
        place.check_writable()?;
    }
    ok()
}

fn access(cx: &mut CurrentTask<'_>, path: UserStr, mode: u32) -> SyscallResult {
    access_at(cx, AT_FDCWD, path, mode, 0)
}

fn faccessat(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32) -> SyscallResult {
    access_at(cx, dir, path, mode, 0)
}

fn faccessat2(cx: &mut CurrentTask<'_>, dir: FdNum, path: UserStr, mode: u32, flags: u32) -> SyscallResult {
    access_at(cx, dir, path, mode, flags)
}

/// `struct statfs` of x86-64.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct RawStatFs {
    kind: u64,
    bsize: u64,
    blocks: [u64; 3],
    files: [u64; 2],
    fsid: u64,
    namelen: u64,
    frsize: u64,
    flags: u64,
    spare: [u64; 4],
}

fn put_statfs(cx: &CurrentTask<'_>, place: &Place, buf: UserAddr) -> SyscallResult {
    /// `ST_VALID`: the flags mean something.
    const ST_VALID: u64 = 0x20;
    if let Ok(inode) = place.inode() {
        inode.refresh_statfs()?;
    }
    let s = place.inode().map_or(StatFs { namelen: 255, bsize: 4096, ..StatFs::default() }, |i| i.statfs());
    let mount = place.path().map_or(0, |p| {
        let f = p.mount.flags();
        let bits = f & (MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
        let relatime = if f.contains(MountFlags::RELATIME) { 0x1000 } else { 0 };
        let ro = if p.mount.is_readonly() { 1 } else { 0 };
        u64::from(bits.bits() | (f & (MountFlags::NOATIME | MountFlags::NODIRATIME)).bits() | relatime | ro)
    });
    let raw = RawStatFs {
        kind: s.magic,
        bsize: s.bsize,
        blocks: s.blocks,
        files: s.files,
        fsid: place.attr()?.key.dev,
        namelen: s.namelen,
        frsize: s.bsize,
        flags: s.flags | mount | ST_VALID,
        spare: [0; 4],
    };
    cx.mm()?.write_obj(buf, &raw)?;
    ok()
}

fn statfs(cx: &mut CurrentTask<'_>, path: UserStr, buf: UserAddr) -> SyscallResult {
    let place = resolve(cx, &Caller::of(cx.task)?, AT_FDCWD, path, 0)?;
    put_statfs(cx, &place, buf)
}

fn fstatfs(cx: &mut CurrentTask<'_>, fd: FdNum, buf: UserAddr) -> SyscallResult {
    let file = cx.fds()?.get(fd)?;
    put_statfs(cx, &fs_at::Place::File(file), buf)
}

/// `MAX_HANDLE_SZ`.
const MAX_HANDLE: u32 = 128;

fn name_to_handle_at(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    handle: UserAddr,
    _mount: UserAddr,
    flags: u32,
) -> SyscallResult {
    if flags & !(fs_at::AT_SYMLINK_FOLLOW | fs_at::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let follow = if flags & fs_at::AT_SYMLINK_FOLLOW != 0 { 0 } else { fs_at::AT_SYMLINK_NOFOLLOW };
    fs_at::resolve(cx, &caller, dir, path, follow | (flags & fs_at::AT_EMPTY_PATH))?;
    let size: u32 = cx.mm()?.read_obj(handle)?;
    Err(if size > MAX_HANDLE { Errno::EINVAL } else { Errno::EOPNOTSUPP })
}

fn open_by_handle_at(cx: &mut CurrentTask<'_>, mount: FdNum, handle: UserAddr, _flags: u32) -> SyscallResult {
    if !cx.creds().has_cap(crate::vfs::perm::CAP_DAC_READ_SEARCH) {
        return Err(Errno::EPERM);
    }
    if mount != fs_at::AT_FDCWD {
        cx.fds()?.get(mount)?;
    }
    let size: u32 = cx.mm()?.read_obj(handle)?;
    Err(if size == 0 || size > MAX_HANDLE { Errno::EINVAL } else { Errno::ESTALE })
}
