//! The legacy vsyscall page, as on a kernel with `vsyscall=xonly` (`arch/x86/entry/vsyscall/vsyscall_64.c`): nothing can
//! be read there, but a call to one of its three entries is made for the caller. Old static binaries still do that.

use abi::{Errno, UserAddr};

use crate::kernel::op::Flow;
use crate::kernel::seccomp;
use crate::kernel::task::CurrentTask;

/// Where the page lies, above all that a guest can map.
pub const PAGE: u64 = 0xffff_ffff_ff60_0000;

/// The system call behind an entry; `None` for any other address.
fn number(entry: u64) -> Option<u64> {
    match entry.wrapping_sub(PAGE) {
        0 => Some(libc::SYS_gettimeofday.cast_unsigned()),
        0x400 => Some(libc::SYS_time.cast_unsigned()),
        0x800 => Some(libc::SYS_getcpu.cast_unsigned()),
        _ => None,
    }
}

/// Makes the call whose entry the guest jumped to and returns from it. `false` where that was no entry or an argument
/// or the stack is bad: the jump is the fault that it would be anywhere else.
pub fn emulate(cx: &mut CurrentTask<'_>) -> bool {
    if cx.task.seccomp.mode() != seccomp::DISABLED {
        // Filters are not asked here: for who has some, nothing is here.
        return false;
    }
    number(cx.own.arch.regs.rip).is_some_and(|nr| call(cx, nr).is_ok())
}

fn call(cx: &mut CurrentTask<'_>, nr: u64) -> Result<(), Errno> {
    let regs = cx.own.arch.regs;
    let back: u64 = cx.mm()?.read_obj(UserAddr(regs.rsp))?;
    let answer = match crate::syscalls::dispatch(cx, nr, regs.syscall_args()) {
        Ok(Flow::Return(value)) => Ok(value),
        // None of the three waits.
        Ok(Flow::Block(_) | Flow::Resume) => Err(Errno::ENOSYS),
        Err(errno) => Err(errno),
    };
    crate::syscalls::trace::exit(cx, answer);
    let answer = answer?;
    let regs = &mut cx.own.arch.regs;
    regs.rax = answer;
    regs.rip = back;
    regs.rsp = regs.rsp.wrapping_add(8);
    Ok(())
}
