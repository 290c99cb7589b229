//! `memfd_create(2)` and file seals.

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::fs::tmpfs::{self, MemFile, TmpFs};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::mm::object;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::syscalls::fd::install;
use crate::vfs::{Caller, FileDescription, Inode, OpenFlags};

syscall_table! {
    319 memfd_create(name: UserStr, flags: u32) Partial("no huge pages");
}

/// Longest name (`MFD_NAME_MAX_LEN`, without its NUL).
const NAME_MAX: usize = 249;
/// `F_SEAL_EXEC`.
const SEAL_EXEC: u32 = 0x20;

mod mfd {
    pub const CLOEXEC: u32 = 1;
    pub const ALLOW_SEALING: u32 = 2;
    pub const HUGETLB: u32 = 4;
    pub const NOEXEC_SEAL: u32 = 8;
    pub const EXEC: u32 = 16;
}

fn memfd_create(cx: &mut CurrentTask<'_>, name: UserStr, flags: u32) -> SyscallResult {
    // A page size may stand in the upper bits, for huge pages alone.
    let sizes = if flags & mfd::HUGETLB != 0 { 0x3f << 26 } else { 0 };
    let known = mfd::CLOEXEC | mfd::ALLOW_SEALING | mfd::HUGETLB | mfd::NOEXEC_SEAL | mfd::EXEC | sizes;
    if flags & !known != 0 || flags & (mfd::EXEC | mfd::NOEXEC_SEAL) == mfd::EXEC | mfd::NOEXEC_SEAL {
        return Err(Errno::EINVAL);
    }
    let name =
        cx.mm()?.read_cstr(name.0, NAME_MAX).map_err(|e| if e == Errno::ENAMETOOLONG { Errno::EINVAL } else { e })?;
    if flags & mfd::HUGETLB != 0 {
        return Err(Errno::ENOSYS);
    }
    let kernel = cx.kernel().clone();
    let fs = kernel.memfds.get_or_init(|| tmpfs::kernel_mount(&kernel.vfs, &kernel.memory));
    let file = create(cx, fs, &name, flags)?;
    let cloexec = if flags & mfd::CLOEXEC != 0 { OpenFlags::CLOEXEC } else { OpenFlags::default() };
    install(cx, file, cloexec)
}

fn create(cx: &CurrentTask<'_>, fs: &Arc<TmpFs>, name: &[u8], flags: u32) -> Result<Arc<FileDescription>, Errno> {
    let caller = Caller::of(cx.task)?;
    let noexec = flags & mfd::NOEXEC_SEAL != 0;
    let perm = if noexec { 0o666 } else { 0o777 };
    let node = tmpfs::unnamed_file(fs, perm, caller.creds.fsuid(), caller.creds.fsgid())?;
    let path = caller.vfs.memfd_path(node.clone(), name);
    let ops = node.clone().open(&caller, OpenFlags::RDWR)?;
    let memory = memory_of(ops.as_any())?;
    if flags & mfd::ALLOW_SEALING == 0 && !noexec {
        memory.add_seals(object::SEAL_SEAL)?;
    } else if noexec {
        memory.add_seals(SEAL_EXEC)?;
    }
    Ok(FileDescription::new(ops, OpenFlags::RDWR, Some(path), Some(node)))
}

fn memory_of(ops: &dyn std::any::Any) -> Result<&Arc<object::MemoryObject>, Errno> {
    ops.downcast_ref::<MemFile>().ok_or(Errno::EINVAL)?.memory()
}

/// `fcntl(F_GET_SEALS)`.
///
/// # Errors
/// `EINVAL` where it is no file in memory.
pub(super) fn get_seals(file: &FileDescription) -> SyscallResult {
    let named = file.inode.as_ref().is_some_and(|i| i.attr().nlink > 0);
    let seals = memory_of(file.ops.as_any())?.seals();
    // What has a name in a tmpfs cannot be sealed.
    ret(if named { object::SEAL_SEAL } else { seals })
}

/// `fcntl(F_ADD_SEALS)`.
///
/// # Errors
/// `EPERM` where it is not writable or sealed against seals; `EINVAL`; `EBUSY`.
pub(super) fn add_seals(file: &FileDescription, seals: UserAddr) -> SyscallResult {
    const ALL: u64 = 0x3f;
    let memory = memory_of(file.ops.as_any())?;
    if !file.flags().writable() {
        return Err(Errno::EPERM);
    }
    let seals = u32::try_from(seals.0 & 0xffff_ffff).ok().filter(|s| u64::from(*s) & !ALL == 0).ok_or(Errno::EINVAL)?;
    if file.inode.as_ref().is_some_and(|i| i.attr().nlink > 0) {
        return Err(Errno::EPERM);
    }
    memory.add_seals(seals)?;
    ok()
}
