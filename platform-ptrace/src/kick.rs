//! Interrupting a CPU.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, pid_t};
use parking_lot::Mutex;
use platform::Kicker;

use crate::sys;

/// The signal that stops a stub. Every signal of a traced process is first a stop, and this one is never delivered.
pub const KICK: c_int = libc::SIGUSR1;

/// One CPU's kick state.
///
/// `flag` is set before the signal is sent and tested after the stub's last injected call, before it is resumed: a
/// kick is seen by the test, or its signal is pending when the stub is resumed, which stops it before any guest
/// instruction. `running` is held while signalling, so that the pid cannot have been reaped.
#[derive(Default)]
pub struct KickState {
    flag: AtomicBool,
    running: Mutex<Option<pid_t>>,
}

impl KickState {
    /// A stub is about to run.
    pub fn begin(&self, pid: pid_t) {
        *self.running.lock() = Some(pid);
    }

    /// It does not run any more.
    pub fn end(&self) {
        *self.running.lock() = None;
    }

    /// Whether there was a kick; it is used up.
    pub fn take(&self) -> bool {
        self.flag.load(Ordering::SeqCst) && self.flag.swap(false, Ordering::SeqCst)
    }
}

impl Kicker for KickState {
    fn kick(&self) {
        if self.flag.swap(true, Ordering::SeqCst) {
            // An earlier kick is not used up yet, and has sent or is about to send its signal.
            return;
        }
        if let Some(pid) = *self.running.lock() {
            let _ = sys::signal(pid, KICK);
        }
    }
}
