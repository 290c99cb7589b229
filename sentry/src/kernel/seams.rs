//! Where the process side meets memory, loader and files.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use memory::copy::Atomic32;

use crate::kernel::creds::Creds;
use crate::kernel::task::CurrentTask;
use crate::mm::Mm;
use crate::vfs::{FdNum, FileDescription};

/// What a futex word is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FutexKey(u64, u64);

/// The key of the word at `addr`.
///
/// # Errors
/// `EINVAL` where it is not aligned; `EFAULT`.
pub fn futex_key(mm: &Arc<Mm>, addr: UserAddr, _private: bool) -> Result<FutexKey, Errno> {
    if !addr.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    Ok(FutexKey(Arc::as_ptr(mm) as usize as u64, addr.0))
}

/// An atomic operation on a guest word; answers the value before.
///
/// # Errors
/// `EFAULT`.
pub fn atomic32(mm: &Mm, addr: UserAddr, op: Atomic32) -> Result<u32, Errno> {
    let seen: u32 = mm.read_obj(addr)?;
    match op {
        Atomic32::Load => {}
        Atomic32::CompareExchange { old, new } if seen == old => mm.write_obj(addr, &new)?,
        Atomic32::CompareExchange { .. } => {}
        Atomic32::Exchange(new) => mm.write_obj(addr, &new)?,
        Atomic32::Add(n) => mm.write_obj(addr, &seen.wrapping_add(n))?,
    }
    Ok(seen)
}

/// A copy-on-write copy of an address space.
///
/// # Errors
/// `ENOMEM`.
pub fn fork_mm(_mm: &Arc<Mm>) -> Result<Arc<Mm>, Errno> {
    Err(Errno::ENOMEM)
}

/// Opens a program.
///
/// # Errors
/// As `execveat(2)`.
pub fn open_exec(
    _cx: &mut CurrentTask<'_>,
    _dir: FdNum,
    _path: &[u8],
    _flags: i32,
) -> Result<Arc<FileDescription>, Errno> {
    Err(Errno::ENOENT)
}

/// What AT_EXECFN and a script's argument call the program (`alloc_bprm`).
#[must_use]
pub fn exec_name(dir: FdNum, path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') || dir.0 == libc::AT_FDCWD {
        return path.to_vec();
    }
    let mut name = format!("/dev/fd/{}", dir.0).into_bytes();
    if !path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(path);
    }
    name
}

/// A program in a fresh address space.
pub struct Image {
    /// The address space.
    pub mm: Arc<Mm>,
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub sp: u64,
}

/// What a program is started with.
pub struct Program {
    /// The file.
    pub file: Arc<FileDescription>,
    /// The name it was called by (AT_EXECFN, and a script's argument).
    pub execfn: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Who it will run as.
    pub creds: Arc<Creds>,
    /// AT_SECURE.
    pub secure: bool,
}

/// Loads a program.
///
/// # Errors
/// `ENOEXEC` and what the files say.
pub fn load(_cx: &mut CurrentTask<'_>, _program: &Program) -> Result<Image, Errno> {
    Err(Errno::ENOEXEC)
}

/// Guest memory: bytes in all, bytes in use.
#[must_use]
pub fn memory_size(kernel: &crate::kernel::Kernel) -> (u64, u64) {
    (kernel.memory.limit(), kernel.memory.used())
}
