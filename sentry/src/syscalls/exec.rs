//! execve and execveat.

use abi::{Errno, UserAddr};

use crate::kernel::exec;
use crate::kernel::limits::resource;
use crate::kernel::op::SyscallResult;
use crate::kernel::task::CurrentTask;
use crate::mm::Mm;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::vfs::FdNum;

syscall_table! {
    59 execve(path: UserStr, argv: UserAddr, envp: UserAddr);
    322 execveat(dir: FdNum, path: UserStr, argv: UserAddr, envp: UserAddr, flags: u32);
}

const AT_EMPTY_PATH: u32 = 0x1000;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// Longest path with its NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;
/// Longest single argument with its NUL (`MAX_ARG_STRLEN`).
const MAX_ARG_STRLEN: usize = 131_072;
/// Most arguments (`MAX_ARG_STRINGS` is larger; memory ends first).
const MAX_ARG_STRINGS: usize = 0x7fff_ffff;

/// Bytes that all strings and their pointers may take: a quarter of the stack limit, at most 6 MiB, at least 128 KiB.
fn budget(cx: &CurrentTask<'_>) -> usize {
    let quarter = cx.task.group.limit(resource::STACK) / 4;
    usize::try_from(quarter.clamp(131_072, 6 << 20)).unwrap_or(131_072)
}

/// Reads a NULL-terminated array of strings; a null array is empty.
fn strings(mm: &Mm, array: UserAddr, left: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut out = Vec::new();
    if array.is_null() {
        return Ok(out);
    }
    while out.len() < MAX_ARG_STRINGS {
        let at = array.checked_add(out.len() as u64 * 8).ok_or(Errno::EFAULT)?;
        let pointer: u64 = mm.read_obj(at)?;
        if pointer == 0 {
            return Ok(out);
        }
        let text = mm.read_cstr(UserAddr(pointer), MAX_ARG_STRLEN - 1).map_err(|e| match e {
            Errno::ENAMETOOLONG => Errno::E2BIG,
            other => other,
        })?;
        *left = left.checked_sub(text.len() + 1 + 8).ok_or(Errno::E2BIG)?;
        out.push(text);
    }
    Err(Errno::E2BIG)
}

fn execve(cx: &mut CurrentTask<'_>, path: UserStr, argv: UserAddr, envp: UserAddr) -> SyscallResult {
    execveat(cx, FdNum(libc::AT_FDCWD), path, argv, envp, 0)
}

fn execveat(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: UserStr,
    argv: UserAddr,
    envp: UserAddr,
    flags: u32,
) -> SyscallResult {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    let path = mm.read_cstr(path.0, PATH_MAX - 1)?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    let mut left = budget(cx);
    let mut argv = strings(&mm, argv, &mut left)?;
    let envp = strings(&mm, envp, &mut left)?;
    if argv.is_empty() {
        // Programs expect argv[0]; the kernel gives an empty one (since 5.18).
        argv.push(Vec::new());
    }
    drop(mm);
    exec::execve(cx, dir, &path, flags, argv, envp)
}
