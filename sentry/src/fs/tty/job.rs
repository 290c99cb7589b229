//! Terminals and sessions: the terminal's side of `kernel::session`.

use std::sync::Arc;

use abi::Errno;

use crate::fs::tty::Tty;
use crate::kernel::Kernel;
use crate::kernel::session::{self, Terminal};
use crate::kernel::signal::{SigInfo, send_to_pgrp};
use crate::kernel::task::{CurrentTask, Task};

impl Terminal for Tty {
    fn disassociated(&self, exiting: bool) {
        if exiting {
            self.kill_slaves();
        }
    }

    fn device(&self) -> u64 {
        Tty::device(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// `tty` as sessions know it.
fn terminal(tty: &Arc<Tty>) -> Arc<dyn Terminal> {
    tty.clone()
}

/// Job control: whether the caller may read (SIGTTIN) or change (SIGTTOU) the terminal now.
///
/// # Errors
/// As [`session::check_access`].
pub fn check(cx: &CurrentTask<'_>, tty: &Arc<Tty>, signo: i32) -> Result<(), Errno> {
    session::check_access(cx, &terminal(tty), signo)
}

/// A key's signal, or SIGWINCH, for the foreground process group.
pub fn signal_foreground(kernel: &Kernel, tty: &Arc<Tty>, signo: i32) {
    if let Some((pids, pgid)) = kernel.sessions.foreground_of(&terminal(tty)) {
        send_to_pgrp(&pids, pgid, SigInfo::kernel(signo));
    }
}

/// Makes `tty` the controlling terminal of the caller's session.
///
/// # Errors
/// As [`session::acquire`].
pub fn acquire(task: &Task, tty: &Arc<Tty>, force: bool) -> Result<(), Errno> {
    session::acquire(task, &terminal(tty), force)
}

/// TIOCNOTTY.
///
/// # Errors
/// `ENOTTY`.
pub fn release(cx: &CurrentTask<'_>, tty: &Arc<Tty>) -> Result<(), Errno> {
    session::release(cx, &terminal(tty))
}

/// The caller's controlling terminal.
#[must_use]
pub fn controlling(task: &Task) -> Option<Arc<Tty>> {
    session::controlling(task)?.as_any().downcast_ref::<Tty>()?.me.upgrade()
}

/// Whether `tty` is the caller's controlling terminal.
#[must_use]
pub fn controls(task: &Task, tty: &Arc<Tty>) -> bool {
    session::controlling(task).is_some_and(|t| std::ptr::addr_eq(Arc::as_ptr(&t), Arc::as_ptr(tty)))
}

/// The foreground process group; 0 where there is none.
#[must_use]
pub fn foreground(kernel: &Kernel, tty: &Arc<Tty>) -> i32 {
    kernel.sessions.foreground_of(&terminal(tty)).map_or(0, |(_, pgid)| pgid)
}

/// TIOCSPGRP.
///
/// # Errors
/// As [`session::set_foreground`].
pub fn set_foreground(cx: &mut CurrentTask<'_>, tty: &Arc<Tty>, pgid: i32) -> Result<(), Errno> {
    session::set_foreground(cx, &terminal(tty), pgid)
}

/// The session it controls.
#[must_use]
pub fn session_of(kernel: &Kernel, tty: &Arc<Tty>) -> Option<i32> {
    kernel.sessions.of_terminal(&terminal(tty)).map(|(_, sid)| sid)
}

/// The terminal has hung up: SIGHUP and SIGCONT for the session.
pub fn hung_up(kernel: &Kernel, tty: &Arc<Tty>) {
    session::terminal_hung_up(kernel, &terminal(tty));
}
