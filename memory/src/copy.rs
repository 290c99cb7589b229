//! Copies and atomics on host mappings that may fail.
//!
//! A load or store to a mapped file raises SIGBUS where the file has shrunk or its disk fails. The functions here
//! are a handful of instructions between two labels; the SIGBUS/SIGSEGV handler recognises an instruction pointer
//! between them and makes the function return an error instead. All other faults keep their default action.

use std::arch::global_asm;
use std::sync::Once;

/// A host page could not be reached; the guest's due is SIGBUS, or EFAULT inside a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory behind a mapping is gone (file truncated or unreadable)")]
pub struct Fault;

// The guarded code uses no stack and calls nothing, so `nv_guard_fixup` may return to its caller from any point.
global_asm!(
    ".pushsection .text.nv_guard,\"ax\",@progbits",
    ".globl nv_guard_begin, nv_guard_end, nv_guard_fixup",
    ".globl nv_copy, nv_zero, nv_load32, nv_cmpxchg32, nv_xchg32, nv_xadd32",
    "nv_guard_begin:",
    "nv_copy:", // (dst, src, len) -> 0 or 1
    "mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    "nv_zero:", // (dst, len)
    "mov rcx, rsi",
    "xor eax, eax",
    "rep stosb",
    "ret",
    "nv_load32:", // (ptr, *out)
    "mov ecx, [rdi]",
    "mov [rsi], ecx",
    "xor eax, eax",
    "ret",
    "nv_cmpxchg32:", // (ptr, old, new, *seen)
    "mov eax, esi",
    "lock cmpxchg [rdi], edx",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    "nv_xchg32:", // (ptr, new, *seen)
    "xchg [rdi], esi",
    "mov [rdx], esi",
    "xor eax, eax",
    "ret",
    "nv_xadd32:", // (ptr, add, *seen)
    "lock xadd [rdi], esi",
    "mov [rdx], esi",
    "xor eax, eax",
    "ret",
    "nv_guard_end:",
    "nv_guard_fixup:",
    "mov eax, 1",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn nv_copy(dst: *mut u8, src: *const u8, len: usize) -> u32;
    fn nv_zero(dst: *mut u8, len: usize) -> u32;
    fn nv_load32(ptr: *const u32, out: *mut u32) -> u32;
    fn nv_cmpxchg32(ptr: *mut u32, old: u32, new: u32, seen: *mut u32) -> u32;
    fn nv_xchg32(ptr: *mut u32, new: u32, seen: *mut u32) -> u32;
    fn nv_xadd32(ptr: *mut u32, add: u32, seen: *mut u32) -> u32;
    fn nv_guard_begin();
    fn nv_guard_end();
    fn nv_guard_fixup();
}

fn check(status: u32) -> Result<(), Fault> {
    if status == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies `len` bytes. Either side may be guest memory, which others may change meanwhile.
///
/// # Safety
/// Both ranges lie in host mappings that stay mapped during the call, with the access needed; they do not overlap.
pub unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller vouches for the mappings; a missing page ends in the fixup.
    check(unsafe { nv_copy(dst, src, len) })
}

/// Zeroes `len` bytes.
///
/// # Safety
/// As for [`copy`], for the one range.
pub unsafe fn zero(dst: *mut u8, len: usize) -> Result<(), Fault> {
    // SAFETY: as in `copy`.
    check(unsafe { nv_zero(dst, len) })
}

/// An atomic operation on a 32-bit word.
#[derive(Clone, Copy, Debug)]
pub enum Atomic32 {
    /// Read.
    Load,
    /// Store `new` if the value is `old`.
    CompareExchange {
        /// The value expected.
        old: u32,
        /// The value stored then.
        new: u32,
    },
    /// Store.
    Exchange(u32),
    /// Wrapping addition.
    Add(u32),
}

/// Does `op` on the word at `ptr`; answers the value seen before.
///
/// # Safety
/// `ptr` is 4-aligned and lies in a host mapping that stays mapped during the call.
pub unsafe fn atomic32(ptr: *mut u32, op: Atomic32) -> Result<u32, Fault> {
    let mut seen = 0u32;
    // SAFETY: the caller vouches for `ptr`; `seen` is ours.
    let status = unsafe {
        match op {
            Atomic32::Load => nv_load32(ptr, &raw mut seen),
            Atomic32::CompareExchange { old, new } => nv_cmpxchg32(ptr, old, new, &raw mut seen),
            Atomic32::Exchange(new) => nv_xchg32(ptr, new, &raw mut seen),
            Atomic32::Add(add) => nv_xadd32(ptr, add, &raw mut seen),
        }
    };
    check(status).map(|()| seen)
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo and ucontext to an SA_SIGINFO handler.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let rip = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
        if (nv_guard_begin as *const () as usize..nv_guard_end as *const () as usize).contains(&rip) {
            context.uc_mcontext.gregs[libc::REG_RIP as usize] = nv_guard_fixup as *const () as i64;
            return;
        }
        if signal == libc::SIGBUS && crate::image::absorb_bus_error((*info).si_addr() as usize) {
            return;
        }
        // Not ours: fall back to the default action when the instruction runs again.
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// `preadv2` of up to `len` bytes to `to`; with `cached`, `None` instead of a wait for the disk.
///
/// # Safety
/// `to` up to `len` must be memory that may be written by anybody at any time.
pub(crate) unsafe fn read_file(
    fd: std::os::fd::BorrowedFd<'_>,
    at: u64,
    to: *mut u8,
    len: usize,
    cached: bool,
) -> std::io::Result<Option<usize>> {
    use std::os::fd::AsRawFd;
    let at = libc::off_t::try_from(at).map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))?;
    let part = libc::iovec { iov_base: to.cast(), iov_len: len };
    let flags = if cached { libc::RWF_NOWAIT } else { 0 };
    // SAFETY: one part, the caller's.
    let n = unsafe { libc::preadv2(fd.as_raw_fd(), &raw const part, 1, at, flags) };
    match usize::try_from(n) {
        Ok(n) => Ok(Some(n)),
        Err(_) => {
            let e = std::io::Error::last_os_error();
            if cached && e.raw_os_error() == Some(libc::EAGAIN) { Ok(None) } else { Err(e) }
        }
    }
}

/// Reads up to `dst.len()` bytes of the host file `fd` at `at`, of what is in memory alone where `cached`: then `None`
/// is that nothing is.
///
/// # Errors
/// What the host says.
pub fn read_cached(
    fd: std::os::fd::BorrowedFd<'_>,
    at: u64,
    dst: &mut [u8],
    cached: bool,
) -> std::io::Result<Option<usize>> {
    // SAFETY: a slice of ours.
    unsafe { read_file(fd, at, dst.as_mut_ptr(), dst.len(), cached) }
}

/// Installs the process-wide handler that the functions here need. Idempotent.
pub fn install_fault_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_page_is_an_error() {
        install_fault_handler();
        let mut buf = [0u8; 8];
        // SAFETY: a fresh mapping of ours, inaccessible on purpose.
        unsafe {
            let page =
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            assert_eq!(copy(buf.as_mut_ptr(), page.cast(), 8), Err(Fault));
            assert_eq!(atomic32(page.cast(), Atomic32::Add(1)), Err(Fault));
            libc::munmap(page, 4096);
        }
    }

    #[test]
    fn atomics_answer_what_they_saw() {
        let mut word = 7u32;
        let ptr = &raw mut word;
        // SAFETY: `word` is ours.
        unsafe {
            assert_eq!(atomic32(ptr, Atomic32::CompareExchange { old: 1, new: 2 }), Ok(7));
            assert_eq!(atomic32(ptr, Atomic32::CompareExchange { old: 7, new: 9 }), Ok(7));
            assert_eq!(atomic32(ptr, Atomic32::Add(u32::MAX)), Ok(9));
            assert_eq!(atomic32(ptr, Atomic32::Exchange(3)), Ok(8));
            assert_eq!(atomic32(ptr, Atomic32::Load), Ok(3));
        }
    }
}
