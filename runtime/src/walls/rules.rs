//! The system calls that the sandbox process may make after boot, whatever the platform, each with its reason.
//!
//! Nothing here names a path, a host process, a socket address, an identity or a namespace. What a platform needs
//! besides comes from its `seccomp_rules`.

use libc::{
    SYS_accept4, SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close, SYS_dup,
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_wait, SYS_eventfd2, SYS_exit, SYS_exit_group,
    SYS_fallocate, SYS_fcntl, SYS_fdatasync, SYS_fstat, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_getpid, SYS_getrandom,
    SYS_gettid, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap,
    SYS_nanosleep, SYS_newfstatat, SYS_open, SYS_openat, SYS_poll, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv,
    SYS_preadv2, SYS_prlimit64, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readv, SYS_recvfrom,
    SYS_recvmsg, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto, SYS_set_robust_list,
    SYS_sigaltstack, SYS_statx, SYS_tgkill, SYS_timerfd_settime, SYS_write, SYS_writev,
};
use platform::ArgRule;

/// One allowed form of a call.
pub struct Rule {
    /// Number.
    pub nr: i64,
    /// Conditions, all of which must hold.
    pub args: &'static [ArgRule],
}

const fn any(nr: i64) -> Rule {
    Rule { nr, args: &[] }
}

const fn with(nr: i64, args: &'static [ArgRule]) -> Rule {
    Rule { nr, args }
}

/// `CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|SETTLS|PARENT_SETTID|CHILD_CLEARTID`: what `pthread_create` asks for.
pub const THREAD: u64 = 0x003d_0f00;
/// The sandbox process is init of its pid namespace.
const OWN_PID: u64 = 1;
const NO_EXEC: ArgRule = ArgRule::masked(2, libc::PROT_EXEC as u64, 0);

/// Calls that run.
pub const ALLOWED: &[Rule] = &[
    // Streams, the console, the log, guest files that are descriptors of the host: only descriptors handed over exist.
    any(SYS_read),
    any(SYS_write),
    any(SYS_readv),
    any(SYS_writev),
    any(SYS_pread64),
    any(SYS_pwrite64),
    any(SYS_preadv),
    any(SYS_pwritev),
    any(SYS_preadv2), // RWF_NOWAIT: workers do not block
    any(SYS_pwritev2),
    any(SYS_lseek),
    any(SYS_fsync), // of a stream that is a file
    any(SYS_fdatasync),
    any(SYS_close),
    any(SYS_dup),
    any(SYS_fstat),
    with(SYS_newfstatat, &[ArgRule::eq32(3, libc::AT_EMPTY_PATH as u64)]), // fstat of newer libcs
    with(SYS_statx, &[ArgRule::masked(2, libc::AT_EMPTY_PATH as u64, libc::AT_EMPTY_PATH as u64)]),
    with(SYS_fcntl, &[ArgRule::eq32(1, libc::F_GETFL as u64)]),
    with(SYS_fcntl, &[ArgRule::eq32(1, libc::F_GETFD as u64)]),
    with(SYS_fcntl, &[ArgRule::eq32(1, libc::F_DUPFD_CLOEXEC as u64)]),
    with(SYS_ioctl, &[ArgRule::eq32(1, libc::FIONREAD)]), // how much a stream holds
    with(SYS_ioctl, &[ArgRule::eq32(1, libc::TIOCGWINSZ)]), // how large the console is now
    // The control socket, and streams that are sockets. No call makes, binds or connects one; `accept4` works on the one
    // listening socket that was handed over.
    any(SYS_accept4),
    any(SYS_sendmsg),
    any(SYS_recvmsg),
    any(SYS_sendto),
    any(SYS_recvfrom),
    // Guest memory and the heap: any mapping but executable ones.
    with(SYS_mmap, &[NO_EXEC]),
    with(SYS_mprotect, &[NO_EXEC]),
    any(SYS_munmap),
    any(SYS_mremap),
    any(SYS_madvise),
    any(SYS_brk),
    any(SYS_fallocate), // punching freed frames out of the memory file
    any(SYS_ftruncate),
    // How many descriptors we may hold: asked for a gofer's files, whose container comes later.
    with(SYS_prlimit64, &[ArgRule::eq32(0, 0), ArgRule::masked(2, u64::MAX, 0)]),
    // Waiting and time.
    any(SYS_futex),
    any(SYS_epoll_wait),
    any(SYS_epoll_pwait),
    any(SYS_epoll_pwait2),
    any(SYS_epoll_ctl),
    any(SYS_poll),
    any(SYS_ppoll),
    any(SYS_eventfd2), // wake-ups of threads started later
    any(SYS_timerfd_settime),
    any(SYS_clock_gettime),
    any(SYS_nanosleep),
    any(SYS_clock_nanosleep),
    any(SYS_restart_syscall),
    any(SYS_getrandom),
    // Threads: starting (with exactly a thread's flags), naming, placing and ending them.
    with(SYS_clone, &[ArgRule::masked(0, u64::MAX, THREAD)]),
    any(SYS_clone3), // answered ENOSYS, see below
    any(SYS_rseq),
    any(SYS_set_robust_list),
    any(SYS_sigaltstack),
    any(SYS_sched_yield),
    any(SYS_sched_getaffinity),
    any(SYS_sched_setaffinity),
    any(SYS_membarrier),
    any(SYS_gettid),
    any(SYS_getpid),
    with(SYS_prctl, &[ArgRule::eq32(0, libc::PR_SET_NAME as u64)]),
    any(SYS_exit),
    any(SYS_exit_group),
    // Signals: handlers, masks, kicks of our own threads.
    any(SYS_rt_sigaction),
    any(SYS_rt_sigprocmask),
    any(SYS_rt_sigreturn),
    with(SYS_tgkill, &[ArgRule::eq32(0, OWN_PID)]),
    // Answered with an error, see below.
    any(SYS_open),
    any(SYS_openat),
];

/// Calls that fail without being made: libc tries them and does without. `clone3` hides its flags from a filter, and
/// libc then uses `clone`; malloc looks at /proc/sys/vm/overcommit_memory before it shrinks a heap.
pub const FAILING: &[(i64, i32)] = &[(SYS_clone3, libc::ENOSYS), (SYS_open, libc::EACCES), (SYS_openat, libc::EACCES)];
