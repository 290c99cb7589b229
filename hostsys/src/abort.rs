//! `abort(3)` in a process that is init of its pid namespace.
//!
//! The kernel ignores a fatal signal that such a process sends itself while it has the default action, so libc's abort
//! falls through to an instruction that faults, and a failed assertion would look like a wild pointer.

use crate::error::{Result, check};

/// Exit status of a process that aborted.
pub const ABORTED_STATUS: i32 = 134; // 128 + SIGABRT, as a shell would say

/// Makes SIGABRT end the process with [`ABORTED_STATUS`].
///
/// # Errors
/// What `sigaction` says.
pub fn end_by_status() -> Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe.
    let rc = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut())
    };
    check("sigaction(SIGABRT)", i64::from(rc)).map(|_| ())
}

extern "C" fn on_abort(_signal: libc::c_int) {
    crate::process::exit_now(ABORTED_STATUS);
}
