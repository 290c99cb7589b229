//! What the sandbox process must still be allowed to do when its own filter is loaded.

use std::os::fd::{AsRawFd, BorrowedFd};

use platform::{ArgRule, SyscallRule};

use crate::sys::SYSEMU;

/// The requests of ptrace in use. None reads or writes a stub's memory.
const REQUESTS: [u32; 13] = [
    SYSEMU,
    libc::PTRACE_CONT,
    libc::PTRACE_GETREGS,
    libc::PTRACE_SETREGS,
    // Writes a register here: the offset is of `struct user`, not an address.
    libc::PTRACE_POKEUSER,
    libc::PTRACE_GETREGSET,
    libc::PTRACE_SETREGSET,
    libc::PTRACE_GETSIGINFO,
    libc::PTRACE_GETEVENTMSG,
    libc::PTRACE_SEIZE,
    libc::PTRACE_INTERRUPT,
    libc::PTRACE_DETACH,
    libc::PTRACE_GET_SYSCALL_INFO,
];

/// The rules, given the socket on which descriptors go to the stubs.
pub fn rules(socket: BorrowedFd<'_>) -> Vec<SyscallRule> {
    let ptrace = |&request: &u32| SyscallRule::with(libc::SYS_ptrace, &[ArgRule::eq32(0, u64::from(request))]);
    let mut rules: Vec<SyscallRule> = REQUESTS.iter().map(ptrace).collect();
    let signal = |n: i32| SyscallRule::with(libc::SYS_tgkill, &[ArgRule::eq32(2, n as u64)]);
    rules.extend([
        SyscallRule::with(libc::SYS_wait4, &[ArgRule::eq32(2, libc::__WALL as u32 as u64)]),
        signal(libc::SIGKILL),
        signal(crate::kick::KICK),
        SyscallRule::with(libc::SYS_sendmsg, &[ArgRule::eq32(0, socket.as_raw_fd() as u64)]),
        // For CPUs made after boot: their thread and stub are pinned to a core.
        SyscallRule::any(libc::SYS_sched_setaffinity),
        SyscallRule::any(libc::SYS_gettid),
    ]);
    rules
}
