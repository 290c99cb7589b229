//! What an attacker in the sandbox process would try: raw system calls, for the test that proves the walls.
//!
//! A crate of its own, so that the build with it compiles nothing else anew.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// An attempt by name.
pub type Attempt = (&'static str, fn() -> io::Result<()>);

/// Everything that is attempted. Each succeeds where the walls in its way are down.
pub const ATTEMPTS: &[Attempt] = &[
    ("open-file", open_file),
    ("open-proc", open_proc),
    ("open-handle", open_handle),
    ("socket", socket),
    ("host-network", host_network),
    ("exec", exec),
    ("fork", fork),
    ("signal", signal),
    ("signal-thread", signal_thread),
    ("ptrace", ptrace),
    ("ptrace-attach", ptrace_attach),
    ("pidfd", pidfd),
    ("mount", mount),
    ("unshare", unshare),
    ("setuid", setuid),
    ("mmap-exec", mmap_exec),
    ("mprotect-exec", mprotect_exec),
    ("rewrite-code", rewrite_code),
    ("read-implies-exec", read_implies_exec),
    ("kvm-ioctl", kvm_ioctl),
    ("ioctl", ioctl),
    ("prctl", prctl),
    ("bpf", bpf),
    ("io-uring", io_uring),
    ("userfaultfd", userfaultfd),
    ("kexec", kexec),
    ("read-memory", read_memory),
];

const PASSWD: &CStr = c"/etc/passwd";

fn call(nr: libc::c_long, args: [u64; 6]) -> io::Result<i64> {
    // SAFETY: the callers below pass pointers that are valid for their call, or calls that fail.
    let rc = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn try_call(nr: libc::c_long, args: [u64; 6]) -> io::Result<()> {
    call(nr, args).map(|_| ())
}

/// The process that attempts are aimed at.
static VICTIM: AtomicU64 = AtomicU64::new(0);

/// Names the host's process that attempts are aimed at, by its number outside. An attacker could guess it.
pub fn aim_at(pid: u32) {
    VICTIM.store(u64::from(pid), Ordering::Relaxed);
}

fn victim() -> u64 {
    VICTIM.load(Ordering::Relaxed)
}

fn open_file() -> io::Result<()> {
    try_call(libc::SYS_openat, [libc::AT_FDCWD as u64, PASSWD.as_ptr() as u64, libc::O_RDONLY as u64, 0, 0, 0])
}

fn open_proc() -> io::Result<()> {
    let status = c"/proc/self/status".as_ptr() as u64;
    try_call(libc::SYS_openat, [libc::AT_FDCWD as u64, status, libc::O_RDONLY as u64, 0, 0, 0])
}

/// Leaves an empty root: a file handle names a file by its inode number, without a path (the attack on early Docker).
fn open_handle() -> io::Result<()> {
    // An answer of ESTALE says that only the guess of the inode was wrong.
    let handle: [u32; 4] = [8, 1, 2, 0];
    let args = [libc::AT_FDCWD as u64, handle.as_ptr() as u64, libc::O_RDONLY as u64, 0, 0, 0];
    match try_call(libc::SYS_open_by_handle_at, args) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESTALE | libc::EOPNOTSUPP)) => Ok(()),
        other => other,
    }
}

fn socket() -> io::Result<()> {
    try_call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0, 0, 0, 0])
}

fn host_network() -> io::Result<()> {
    let fd = call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0, 0, 0, 0])?;
    // 127.0.0.1 port 9: unreachable in a namespace whose loopback was never brought up.
    let address: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    try_call(libc::SYS_connect, [fd.unsigned_abs(), address.as_ptr() as u64, 16, 0, 0, 0])
}

fn exec() -> io::Result<()> {
    let script = c"echo attempt exec: succeeded >&2";
    let argv = [c"sh".as_ptr(), c"-c".as_ptr(), script.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // The log must survive the exec for the proof to be seen.
    try_call(libc::SYS_fcntl, [2, libc::F_SETFD as u64, 0, 0, 0, 0])?;
    try_call(libc::SYS_execve, [c"/bin/sh".as_ptr() as u64, argv.as_ptr() as u64, envp.as_ptr() as u64, 0, 0, 0])
}

fn fork() -> io::Result<()> {
    match call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0])? {
        0 => hostsys::process::exit_now(0),
        _ => Ok(()),
    }
}

fn signal() -> io::Result<()> {
    try_call(libc::SYS_kill, [victim(), 0, 0, 0, 0, 0])
}

/// With the signal that the ptrace platform kicks its stubs with; to the command line, it means nothing terrible.
fn signal_thread() -> io::Result<()> {
    try_call(libc::SYS_tgkill, [victim(), victim(), libc::SIGUSR1 as u64, 0, 0, 0])
}

fn ptrace() -> io::Result<()> {
    const SEIZE: u64 = 0x4206;
    // The process's end lets go of it again.
    try_call(libc::SYS_ptrace, [SEIZE, victim(), 0, 0, 0, 0])
}

/// By a request that no platform makes.
fn ptrace_attach() -> io::Result<()> {
    const ATTACH: u64 = 16;
    const DETACH: u64 = 17;
    try_call(libc::SYS_ptrace, [ATTACH, victim(), 0, 0, 0, 0])?;
    // The stop that attaching causes must be over before the command line can hear us.
    let wall = libc::__WALL as u64;
    try_call(libc::SYS_wait4, [victim(), 0, wall, 0, 0, 0])?;
    try_call(libc::SYS_ptrace, [DETACH, victim(), 0, 0, 0, 0])
}

fn pidfd() -> io::Result<()> {
    try_call(libc::SYS_pidfd_open, [victim(), 0, 0, 0, 0, 0])
}

fn mount() -> io::Result<()> {
    let tmpfs = c"tmpfs".as_ptr() as u64;
    try_call(libc::SYS_mount, [tmpfs, c"/".as_ptr() as u64, tmpfs, 0, 0, 0])
}

fn unshare() -> io::Result<()> {
    match try_call(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]) {
        // Only that we have threads stood in the way, and an attacker can end those.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

fn setuid() -> io::Result<()> {
    try_call(libc::SYS_setresuid, [1, 1, 1, 0, 0, 0])
}

fn map(prot: i32) -> io::Result<i64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    call(libc::SYS_mmap, [0, 4096, prot as u64, flags as u64, u64::MAX, 0])
}

fn mmap_exec() -> io::Result<()> {
    map(libc::PROT_READ | libc::PROT_EXEC).map(|_| ())
}

fn mprotect_exec() -> io::Result<()> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE)?;
    try_call(libc::SYS_mprotect, [page.unsigned_abs(), 4096, (libc::PROT_READ | libc::PROT_EXEC) as u64, 0, 0, 0])
}

/// Makes its own code writable, without ever having asked for both at once.
fn rewrite_code() -> io::Result<()> {
    let page = (rewrite_code as *const () as u64) & !4095;
    let prot = |bits: i32| try_call(libc::SYS_mprotect, [page, 4096, bits as u64, 0, 0, 0]);
    prot(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
    prot(libc::PROT_READ | libc::PROT_EXEC)
}

/// A personality under which every readable mapping may be executed.
fn read_implies_exec() -> io::Result<()> {
    const READ_IMPLIES_EXEC: u64 = 0x0040_0000;
    try_call(libc::SYS_personality, [READ_IMPLIES_EXEC, 0, 0, 0, 0, 0])
}

/// A request that the platform does not make, on whatever descriptor is a virtual CPU.
fn kvm_ioctl() -> io::Result<()> {
    const GET_TSC_KHZ: u64 = 0xaea3;
    let mut last = Ok(());
    for fd in 3..64 {
        last = try_call(libc::SYS_ioctl, [fd, GET_TSC_KHZ, 0, 0, 0, 0]);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn ioctl() -> io::Result<()> {
    try_call(libc::SYS_ioctl, [2, libc::FIOCLEX, 0, 0, 0, 0])
}

fn prctl() -> io::Result<()> {
    try_call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0])
}

fn bpf() -> io::Result<()> {
    // BPF_MAP_CREATE of an array with one element of four bytes.
    let attributes: [u32; 4] = [2, 4, 4, 1];
    try_call(libc::SYS_bpf, [0, attributes.as_ptr() as u64, 16, 0, 0, 0])
}

fn io_uring() -> io::Result<()> {
    let parameters = [0u64; 15];
    try_call(libc::SYS_io_uring_setup, [4, parameters.as_ptr() as u64, 0, 0, 0, 0])
}

fn userfaultfd() -> io::Result<()> {
    const USER_MODE_ONLY: u64 = 1;
    try_call(libc::SYS_userfaultfd, [USER_MODE_ONLY, 0, 0, 0, 0, 0])
}

fn kexec() -> io::Result<()> {
    // Flags that do not exist: the kernel checks the right to do it first, so EINVAL means that nothing stood in the way.
    match try_call(libc::SYS_kexec_load, [0, 0, 0, 0xffff, 0, 0]) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

fn read_memory() -> io::Result<()> {
    let mut byte = [0u8; 1];
    let local = [byte.as_mut_ptr() as u64, 1];
    // Any address will do: EFAULT comes after the right to look.
    let remote = [4096u64, 1];
    let args = [victim(), local.as_ptr() as u64, 1, remote.as_ptr() as u64, 1, 0];
    match try_call(libc::SYS_process_vm_readv, args) {
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    }
}
