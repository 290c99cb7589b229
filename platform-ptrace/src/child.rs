//! The first instructions of the master stub: from a copy of the sandbox process to an empty one.
//!
//! Runs between a raw `clone3` and the jump into the stub's code page, in a copy of a process that may have had
//! several threads: no allocation, no locks, no unwinding, nothing but system calls.

use libc::{c_int, c_long};

use crate::layout::{self, Region};
use crate::sys;

/// What the child needs, prepared by the parent.
pub struct Plan<'a> {
    /// The inherited region.
    pub region: &'a Region,
    /// Our end of the socket for descriptors.
    pub socket: c_int,
    /// Reading end of the lifeline.
    pub lifeline: c_int,
    /// File of the command buffers.
    pub commands: c_int,
}

/// `struct clone_args`, its first version (Linux 5.3).
#[derive(Default)]
#[repr(C)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    rest: [u64; 7],
}

/// `CLONE_CLEAR_SIGHAND`: handlers back to default (Linux 5.5).
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Forks the master stub off; answers its pid to the parent.
pub fn spawn(plan: &Plan<'_>) -> std::io::Result<libc::pid_t> {
    let args = CloneArgs { flags: CLONE_CLEAR_SIGHAND, ..CloneArgs::default() };
    // SAFETY: like fork; the child only runs `enter`, which makes system calls and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(std::io::Error::last_os_error()),
        // SAFETY: we are the child.
        0 => unsafe { enter(plan) },
        pid => Ok(pid as libc::pid_t),
    }
}

/// `RSEQ_FLAG_UNREGISTER`.
const RSEQ_FLAG_UNREGISTER: c_int = 1;

unsafe fn must(step: c_int, result: c_long) -> c_long {
    if result < 0 {
        // SAFETY: ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, step) };
    }
    result
}

/// The step that moves descriptors.
pub const MOVING: c_int = 3;

/// Exit statuses of a master stub that fails before it is traced, and what each means.
pub const STEPS: [(c_int, &str); 7] = [
    (1, "it was not told to go on"),
    (2, "prctl"),
    (MOVING, "its descriptors could not be moved"),
    (4, "close_range"),
    (5, "madvise"),
    (6, "rt_sigprocmask"),
    (7, "rseq"),
];

unsafe fn enter(plan: &Plan<'_>) -> ! {
    // SAFETY: plain system calls on our own descriptors and memory; `asm!` leaves for good.
    unsafe {
        let mut go = 0u8;
        let got = libc::syscall(libc::SYS_read, plan.lifeline, &raw mut go, 1usize);
        must(1, got - 1);
        // A process that dropped privileges is not dumpable, hence not traceable; the stub holds nothing secret.
        must(2, libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1usize, 0usize, 0usize, 0usize));
        must(2, libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize));
        let mask = 0u64;
        must(
            6,
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut::<u64>(), 8),
        );
        let high =
            |fd: c_int| must(MOVING, libc::syscall(libc::SYS_fcntl, fd, libc::F_DUPFD, layout::FD_FIRST_FILE)) as c_int;
        let fds = [high(plan.socket), high(plan.lifeline), high(plan.commands)];
        must(MOVING, libc::syscall(libc::SYS_dup2, fds[0], layout::FD_SOCKET));
        must(MOVING, libc::syscall(libc::SYS_dup2, fds[1], layout::FD_LIFELINE));
        must(MOVING, libc::syscall(libc::SYS_dup2, fds[2], layout::FD_COMMANDS));
        must(4, libc::syscall(libc::SYS_close_range, layout::FD_FIRST_FILE, u32::MAX, 0));
        // Sixteen keys, so that any key a guest asks for can be used; without hardware support there is none.
        while libc::syscall(libc::SYS_pkey_alloc, 0usize, 0usize) >= 0 {}
        let place = plan.region.layout;
        let rseq = (place.scratch() as *const sys::RseqConfig).read_volatile();
        if rseq.area != 0 {
            must(7, libc::syscall(libc::SYS_rseq, rseq.area, rseq.len, RSEQ_FLAG_UNREGISTER, rseq.signature));
        }
        must(5, libc::syscall(libc::SYS_madvise, place.scratch(), abi::PAGE_SIZE, libc::MADV_DONTFORK));
        std::arch::asm!(
            "jmp {entry}",
            entry = in(reg) place.setup(),
            in("r12") place.base,
            in("r13") place.end(),
            in("r14") layout::TASK_END - place.end(),
            in("r15") plan.region.filter,
            options(noreturn)
        )
    }
}
