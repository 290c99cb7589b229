//! Signals as a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// Signals of this process, blocked and readable one by one.
#[derive(Debug)]
pub struct SignalReader {
    fd: SignalFd,
    old: SigSet,
}

impl SignalReader {
    /// Blocks `signals` in this thread (start it before any other thread) and reads them from now on.
    ///
    /// # Errors
    /// What `sigprocmask` or `signalfd` say.
    pub fn new(signals: &[Signal]) -> Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let old =
            set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).map_err(|e| Error::new("sigprocmask", e))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).map_err(|e| Error::new("signalfd", e))?;
        Ok(SignalReader { fd, old })
    }

    /// The next pending signal, if there is one.
    ///
    /// # Errors
    /// What `read` says.
    pub fn next(&mut self) -> Result<Option<Signal>> {
        let info = self.fd.read_signal().map_err(|e| Error::new("read (signalfd)", e))?;
        Ok(info.and_then(|i| i32::try_from(i.ssi_signo).ok()).and_then(|n| Signal::try_from(n).ok()))
    }

    /// Puts the signal mask back as it was (in the child, before it becomes another program).
    pub fn restore_mask(&self) {
        let _ = self.old.thread_set_mask();
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
