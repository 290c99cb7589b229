//! Mounting.

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fs_at::{self, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Place, resolve};
use crate::vfs::mount::MountFlags;
use crate::vfs::perm::CAP_SYS_ADMIN;
use crate::vfs::walk::PATH_MAX;
use crate::vfs::{Caller, PathRef, mount_ops};

syscall_table! {
    155 pivot_root(new_root: UserStr, put_old: UserStr);
    165 mount(source: UserStr, target: UserStr, fstype: UserStr, flags: u64, data: UserAddr) Partial("tmpfs, proc, sysfs, devpts, devtmpfs, mqueue; bind, move, remount of a mount's flags; propagation is private");
    166 umount2(target: UserStr, flags: u32) Partial("no MNT_EXPIRE");
}

/// `MS_*`.
mod ms {
    pub const REMOUNT: u64 = 32;
    pub const BIND: u64 = 4096;
    pub const MOVE: u64 = 8192;
    pub const REC: u64 = 16384;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const SILENT: u64 = 32768;
    pub const PROPAGATION: u64 = UNBINDABLE | PRIVATE | SLAVE | SHARED;
    pub const MGC_VAL: u64 = 0xc0ed_0000;
}

fn string(cx: &CurrentTask<'_>, at: UserStr) -> Result<Vec<u8>, Errno> {
    if at.0.is_null() { Ok(Vec::new()) } else { cx.mm()?.read_cstr(at.0, PATH_MAX) }
}

fn place(cx: &CurrentTask<'_>, caller: &Caller<'_>, at: UserStr, flags: u32) -> Result<PathRef, Errno> {
    match resolve(cx, caller, AT_FDCWD, at, flags)? {
        Place::Path(path) => Ok(path),
        Place::File(_) => Err(Errno::EINVAL),
    }
}

fn mount_flags(flags: u64) -> MountFlags {
    let known = MountFlags::all().difference(MountFlags::STRICTATIME);
    let mut out = MountFlags::from_bits_truncate(u32::try_from(flags & 0xffff_ffff).unwrap_or(0)).intersection(known);
    // Relative access times unless something else is asked for.
    let strict = flags & u64::from(MountFlags::STRICTATIME.bits()) != 0;
    if !strict && !out.contains(MountFlags::NOATIME) {
        out |= MountFlags::RELATIME;
    }
    out
}

fn mount(
    cx: &mut CurrentTask<'_>,
    source: UserStr,
    target: UserStr,
    fstype: UserStr,
    flags: u64,
    data: UserAddr,
) -> SyscallResult {
    let (kind, from) = (string(cx, fstype)?, string(cx, source)?);
    let options = if data.is_null() { Vec::new() } else { cx.mm()?.read_cstr(data, PATH_MAX)? };
    let caller = Caller::of(cx.task)?;
    let at = place(cx, &caller, target, 0)?;
    if !caller.creds.has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let flags = if flags & 0xffff_0000 == ms::MGC_VAL { flags & 0xffff } else { flags };
    let has = |bits: u64| flags & bits != 0;
    if has(ms::REMOUNT) || has(ms::PROPAGATION) {
        if !at.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        if has(ms::REMOUNT) {
            at.mount.set_flags(mount_flags(flags));
            return ok();
        }
        // One kind of propagation at a time; there are no peers here, so each is as good as private.
        let rest = flags & !(ms::REC | ms::SILENT);
        return if rest.is_power_of_two() { ok() } else { Err(Errno::EINVAL) };
    }
    if has(ms::BIND | ms::MOVE) {
        if from.is_empty() {
            return Err(if source.0.is_null() { Errno::EINVAL } else { Errno::ENOENT });
        }
        let what = place(cx, &caller, source, 0)?;
        if has(ms::BIND) {
            mount_ops::bind(&caller, &what, at, has(ms::REC))?;
        } else {
            mount_ops::relocate(&caller, &what, at)?;
        }
        return ok();
    }
    if fstype.0.is_null() {
        return Err(Errno::EINVAL);
    }
    let shown = if from.is_empty() { b"none".to_vec() } else { from };
    mount_ops::mount_new(cx.kernel(), &caller, (&kind, &shown, &options), at, mount_flags(flags))?;
    ok()
}

fn umount2(cx: &mut CurrentTask<'_>, target: UserStr, flags: u32) -> SyscallResult {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let caller = Caller::of(cx.task)?;
    let at = place(cx, &caller, target, if flags & NOFOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 })?;
    if !caller.creds.has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & EXPIRE != 0 {
        return Err(if flags & (FORCE | DETACH) != 0 { Errno::EINVAL } else { Errno::EBUSY });
    }
    mount_ops::unmount(&caller, at, flags & DETACH != 0)?;
    ok()
}

fn pivot_root(cx: &mut CurrentTask<'_>, new_root: UserStr, put_old: UserStr) -> SyscallResult {
    let caller = Caller::of(cx.task)?;
    if !caller.creds.has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let (_, _) = (fs_at::path(cx, new_root)?, fs_at::path(cx, put_old)?);
    let new = place(cx, &caller, new_root, 0)?;
    let old = place(cx, &caller, put_old, 0)?;
    mount_ops::pivot_root(cx.kernel(), &caller, &new, &old)?;
    ok()
}
