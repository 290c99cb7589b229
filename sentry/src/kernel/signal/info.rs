//! Signal numbers, sets and `siginfo_t`.

/// `si_code` values (`asm-generic/siginfo.h`), the same number under several names for different signals.
#[allow(missing_docs, reason = "named as in sigaction(2)")]
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_TKILL: i32 = -6;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
}

/// Highest signal number.
pub const NSIG: i32 = 64;
/// First real-time signal, as the kernel counts.
pub const SIGRTMIN: i32 = 32;

/// A set of signals: bit `n - 1` for signal `n`.
pub type SigSet = u64;

/// The set of one signal; empty for a number that names none.
#[must_use]
pub const fn bit(signo: i32) -> SigSet {
    if signo >= 1 && signo <= NSIG { 1 << (signo - 1) } else { 0 }
}

/// What nothing can block, ignore or handle.
pub const UNBLOCKABLE: SigSet = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
/// Signals whose default is to stop.
pub const STOPS: SigSet = bit(libc::SIGSTOP) | bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);
/// Signals whose default is nothing.
pub const IGNORED: SigSet = bit(libc::SIGCONT) | bit(libc::SIGCHLD) | bit(libc::SIGWINCH) | bit(libc::SIGURG);
/// Signals that instructions raise; they are delivered before others.
pub const SYNCHRONOUS: SigSet = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSYS);

/// What the kernel keeps of a `siginfo_t` (`kernel_siginfo_t`: the first 48 of 128 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The union behind, in the kernel's layout.
    pub fields: [u8; 32],
}

impl SigInfo {
    /// A signal without further information.
    #[must_use]
    pub fn new(signo: i32, code: i32) -> Self {
        SigInfo { signo, code, ..SigInfo::default() }
    }

    /// From the kernel itself.
    #[must_use]
    pub fn kernel(signo: i32) -> Self {
        SigInfo::new(signo, code::SI_KERNEL)
    }

    /// From a process: `kill`, `tkill`, `sigqueue`.
    #[must_use]
    pub fn user(signo: i32, code: i32, pid: i32, uid: u32) -> Self {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &pid.to_le_bytes());
        info.put(4, &uid.to_le_bytes());
        info
    }

    /// A fault at `addr`.
    #[must_use]
    pub fn fault(signo: i32, code: i32, addr: u64) -> Self {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &addr.to_le_bytes());
        info
    }

    /// A POSIX timer's expiry. `value` is the guest's `sigval`.
    #[must_use]
    pub fn timer(signo: i32, id: i32, overrun: i32, value: u64) -> Self {
        let mut info = SigInfo::new(signo, code::SI_TIMER);
        info.put(0, &id.to_le_bytes());
        info.put(4, &overrun.to_le_bytes());
        info.put(8, &value.to_le_bytes());
        info
    }

    /// A child's change of state. Times in clock ticks.
    #[must_use]
    pub fn child(signo: i32, code: i32, pid: i32, uid: u32, status: i32, times: (i64, i64)) -> Self {
        let mut info = SigInfo::user(signo, code, pid, uid);
        info.put(8, &status.to_le_bytes());
        info.put(16, &times.0.to_le_bytes());
        info.put(24, &times.1.to_le_bytes());
        info
    }

    /// Readiness of a descriptor (`F_SETSIG`).
    #[must_use]
    pub fn poll(signo: i32, code: i32, band: i64, fd: i32) -> Self {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &band.to_le_bytes());
        info.put(8, &fd.to_le_bytes());
        info
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.fields[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&self, at: usize) -> i32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.fields[at..at + 4]);
        i32::from_le_bytes(bytes)
    }

    /// `si_pid`, or a timer's id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.word(0)
    }

    /// `si_uid`, or a timer's overrun.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.word(4).cast_unsigned()
    }

    /// `si_status` of a child.
    #[must_use]
    pub fn status(&self) -> i32 {
        self.word(8)
    }

    /// The eight bytes at `at` of the union: `si_value` at 8, `si_addr` at 0, child times at 16 and 24.
    #[must_use]
    pub fn long(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        if let Some(src) = self.fields.get(at..at + 8) {
            bytes.copy_from_slice(src);
        }
        u64::from_le_bytes(bytes)
    }

    /// Sets a timer's overrun count.
    pub fn set_overrun(&mut self, overrun: i32) {
        self.put(4, &overrun.to_le_bytes());
    }

    /// Sets the protection key of a SEGV_PKUERR fault.
    pub fn set_pkey(&mut self, pkey: u32) {
        self.put(16, &pkey.to_le_bytes());
    }

    /// The guest's `siginfo_t`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 128] {
        let mut out = [0; 128];
        out[0..4].copy_from_slice(&self.signo.to_le_bytes());
        out[4..8].copy_from_slice(&self.errno.to_le_bytes());
        out[8..12].copy_from_slice(&self.code.to_le_bytes());
        out[16..48].copy_from_slice(&self.fields);
        out
    }

    /// A guest's `siginfo_t` (`rt_sigqueueinfo`); what lies past 48 bytes is not kept.
    #[must_use]
    pub fn from_bytes(raw: &[u8; 128]) -> Self {
        let word = |at: usize| i32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut info = SigInfo { signo: word(0), errno: word(4), code: word(8), fields: [0; 32] };
        info.fields.copy_from_slice(&raw[16..48]);
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_matches_the_abi() {
        let info = SigInfo::child(libc::SIGCHLD, code::CLD_EXITED, 7, 9, 3, (1, 2));
        let raw = info.to_bytes();
        assert_eq!(raw[16..20], 7i32.to_le_bytes());
        assert_eq!(raw[24..28], 3i32.to_le_bytes());
        assert_eq!(raw[32..40], 1i64.to_le_bytes());
        assert_eq!(SigInfo::from_bytes(&raw), info);
    }

    #[test]
    fn bits_of_bad_numbers_are_empty() {
        assert_eq!((bit(0), bit(65), bit(-1), bit(64)), (0, 0, 0, 1 << 63));
    }
}
