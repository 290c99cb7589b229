//! The host calls this crate makes, with safe faces.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long, c_void, pid_t};
use platform::UserRegs;

/// `PTRACE_SYSEMU`: run to the next system call, which is not executed.
pub const SYSEMU: u32 = 31;
/// Options of every traced stub.
pub const OPTIONS: c_int = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;

fn check(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn ptrace(request: u32, pid: pid_t, addr: *mut c_void, data: *mut c_void) -> io::Result<c_long> {
    // SAFETY: the callers below pass buffers that fit their request.
    check(unsafe { libc::ptrace(request, pid, addr, data) })
}

/// `PTRACE_SEIZE` with [`OPTIONS`].
pub fn seize(pid: pid_t) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, pid, std::ptr::null_mut(), OPTIONS as usize as *mut c_void).map(drop)
}

/// `PTRACE_INTERRUPT`.
pub fn interrupt(pid: pid_t) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, pid, std::ptr::null_mut(), std::ptr::null_mut()).map(drop)
}

/// `PTRACE_CONT`, [`SYSEMU`] or `PTRACE_DETACH`, delivering no signal.
pub fn resume(request: u32, pid: pid_t) -> io::Result<()> {
    ptrace(request, pid, std::ptr::null_mut(), std::ptr::null_mut()).map(drop)
}

/// `PTRACE_GETREGS`.
pub fn get_regs(pid: pid_t, regs: &mut UserRegs) -> io::Result<()> {
    const { assert!(size_of::<UserRegs>() == size_of::<libc::user_regs_struct>()) };
    ptrace(libc::PTRACE_GETREGS, pid, std::ptr::null_mut(), (&raw mut *regs).cast()).map(drop)
}

/// `PTRACE_SETREGS`.
pub fn set_regs(pid: pid_t, regs: &UserRegs) -> io::Result<()> {
    ptrace(libc::PTRACE_SETREGS, pid, std::ptr::null_mut(), (&raw const *regs).cast_mut().cast()).map(drop)
}

/// `PTRACE_POKEUSER` of rax.
pub fn set_rax(pid: pid_t, value: u64) -> io::Result<()> {
    const { assert!(std::mem::offset_of!(libc::user, regs) == 0) };
    let offset = std::mem::offset_of!(libc::user_regs_struct, rax);
    ptrace(libc::PTRACE_POKEUSER, pid, offset as *mut c_void, value as *mut c_void).map(drop)
}

/// `PTRACE_GETREGSET` of `NT_X86_XSTATE`; answers how many bytes there are.
pub fn get_xstate(pid: pid_t, area: &mut [u8]) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    ptrace(libc::PTRACE_GETREGSET, pid, NT_X86_XSTATE, (&raw mut iov).cast())?;
    Ok(iov.iov_len)
}

/// `PTRACE_SETREGSET` of `NT_X86_XSTATE`; the area has the size that [`get_xstate`] told.
pub fn set_xstate(pid: pid_t, area: &[u8]) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: area.as_ptr().cast_mut().cast(), iov_len: area.len() };
    ptrace(libc::PTRACE_SETREGSET, pid, NT_X86_XSTATE, (&raw mut iov).cast()).map(drop)
}

const NT_X86_XSTATE: *mut c_void = 0x202 as *mut c_void;

/// The parts of a `siginfo_t` that matter here.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    /// `si_code`.
    pub code: c_int,
    /// `si_addr`, for faults; for SIGSYS, where the call was made.
    pub addr: u64,
}

/// `PTRACE_GETSIGINFO`.
pub fn siginfo(pid: pid_t) -> io::Result<SigInfo> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    ptrace(libc::PTRACE_GETSIGINFO, pid, std::ptr::null_mut(), info.as_mut_ptr().cast())?;
    // SAFETY: the kernel filled it; all bit patterns are valid, and si_addr is the first word of the union.
    let info = unsafe { info.assume_init() };
    // SAFETY: as above.
    Ok(SigInfo { code: info.si_code, addr: unsafe { info.si_addr() } as u64 })
}

/// `PTRACE_GETEVENTMSG`.
pub fn event_message(pid: pid_t) -> io::Result<u64> {
    let mut message = 0u64;
    ptrace(libc::PTRACE_GETEVENTMSG, pid, std::ptr::null_mut(), (&raw mut message).cast())?;
    Ok(message)
}

/// `PTRACE_GET_SYSCALL_INFO`: whether the stop is one of the 64-bit ABI.
pub fn is_native_syscall(pid: pid_t) -> io::Result<bool> {
    let mut info = [0u8; 88];
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, info.len() as *mut c_void, info.as_mut_ptr().cast())?;
    Ok(info[4..8] == 0xc000_003eu32.to_ne_bytes())
}

/// A thread's registration of restartable sequences, `struct ptrace_rseq_configuration`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RseqConfig {
    /// Address of its area, 0 for none.
    pub area: u64,
    /// Bytes of it.
    pub len: u32,
    /// The signature registered.
    pub signature: u32,
    flags: u32,
    pad: u32,
}

/// `PTRACE_GET_RSEQ_CONFIGURATION`; none where the host does not know the request (before 5.13).
pub fn rseq_config(pid: pid_t) -> RseqConfig {
    const REQUEST: u32 = 0x420f;
    let mut config = RseqConfig::default();
    let size = size_of::<RseqConfig>() as *mut c_void;
    match ptrace(REQUEST, pid, size, (&raw mut config).cast()) {
        Ok(_) => config,
        Err(_) => RseqConfig::default(),
    }
}

/// A wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub c_int);

impl Status {
    /// The signal of a stop (with 0x80 for system calls); `None` for an end.
    pub fn stop_signal(self) -> Option<c_int> {
        libc::WIFSTOPPED(self.0).then(|| libc::WSTOPSIG(self.0))
    }
    /// The ptrace event of a stop, 0 for none.
    pub fn event(self) -> c_int {
        self.0 >> 16
    }
}

/// Waits for a stop or the end of a stub.
pub fn wait(pid: pid_t) -> io::Result<Status> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours.
        let result = unsafe { libc::wait4(pid, &raw mut status, libc::__WALL, std::ptr::null_mut()) };
        match check(c_long::from(result)) {
            Ok(_) => return Ok(Status(status)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// `tgkill` of a single-threaded process.
pub fn signal(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) }).map(drop)
}

/// Pins a thread (0: the calling one) to one core.
pub fn pin(pid: pid_t, core: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is empty; CPU_SET checks its bounds.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        check(c_long::from(libc::sched_setaffinity(pid, size_of_val(&set), &raw const set))).map(drop)
    }
}

/// The cores that the calling thread may run on.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: as in `pin`.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&c| libc::CPU_ISSET(c, &set)).collect()
    }
}

/// Takes `len` bytes at `addr` if nothing is mapped there.
pub fn reserve_at(addr: u64, len: u64) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: replaces nothing.
    let got = unsafe { libc::mmap(addr as *mut c_void, len as usize, libc::PROT_NONE, flags, -1, 0) };
    if got != libc::MAP_FAILED && got as u64 != addr {
        // Kernels before 4.17 take the address as a hint.
        unmap(got as u64, len);
    }
    got as u64 == addr
}

/// Maps anonymous memory inside a range that [`reserve_at`] gave.
pub fn map_fixed(addr: u64, len: u64, prot: c_int, flags: c_int) -> io::Result<()> {
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the callers own the range.
    let got = unsafe { libc::mmap(addr as *mut c_void, len as usize, prot, flags, -1, 0) };
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Maps a file shared, readable and writable, anywhere.
pub fn map_file(fd: BorrowedFd<'_>, len: u64) -> io::Result<u64> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an address of the kernel's choice.
    let got = unsafe { libc::mmap(std::ptr::null_mut(), len as usize, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(got as u64) }
}

/// `mprotect` of our own mapping.
pub fn protect(addr: u64, len: u64, prot: c_int) -> io::Result<()> {
    // SAFETY: the callers own the range.
    check(c_long::from(unsafe { libc::mprotect(addr as *mut c_void, len as usize, prot) })).map(drop)
}

/// `munmap` of our own mapping.
pub fn unmap(addr: u64, len: u64) {
    // SAFETY: the callers own the range and do not use it again.
    unsafe { libc::munmap(addr as *mut c_void, len as usize) };
}
