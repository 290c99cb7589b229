//! Naming the system call that a seccomp filter refused.

use crate::error::{Error, Result, check};

/// Exit status of a process that [`report_refused_calls`] ended.
pub const REFUSED_STATUS: i32 = 159; // 128 + SIGSYS, as a shell would say

/// Makes a call that the filter answers with SECCOMP_RET_TRAP print its number on descriptor 2 and end the process.
///
/// # Errors
/// What `sigaction` says.
pub fn report_refused_calls() -> Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe.
    let rc = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigsys as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    check("sigaction(SIGSYS)", i64::from(rc)).map(|_| ()).map_err(|e| Error { call: e.call, source: e.source })
}

extern "C" fn on_sigsys(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid ucontext to an SA_SIGINFO handler.
    let regs = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let mut text = Text::new();
    text.add(b"sandbox process: its filter refuses system call ").number(regs[libc::REG_RAX as usize] as u64);
    for arg in [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX] {
        text.add(b" 0x").hex(regs[arg as usize] as u64);
    }
    text.add(b"\n");
    // SAFETY: writes our own bytes, then ends the process: both async-signal-safe.
    unsafe {
        libc::write(2, text.bytes.as_ptr().cast(), text.len);
        libc::_exit(REFUSED_STATUS);
    }
}

/// Text made without allocating.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Text { bytes: [0; 160], len: 0 }
    }

    fn add(&mut self, text: &[u8]) -> &mut Self {
        for &byte in text {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        self
    }

    fn digits(&mut self, mut value: u64, base: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(value % base) as usize];
            value /= base;
            if value == 0 {
                return self.add(&digits[at..]);
            }
        }
    }

    fn number(&mut self, value: u64) -> &mut Self {
        self.digits(value, 10)
    }

    fn hex(&mut self, value: u64) -> &mut Self {
        self.digits(value, 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_made_in_place() {
        let mut text = Text::new();
        text.add(b"n=").number(0).add(b" x=").hex(0xdead);
        assert_eq!(&text.bytes[..text.len], b"n=0 x=dead");
    }
}
