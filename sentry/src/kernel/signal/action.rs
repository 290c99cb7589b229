//! What processes do about signals.

use crate::kernel::signal::info::{IGNORED, NSIG, STOPS, SigSet, UNBLOCKABLE, bit};
use crate::sync::{Level, Mutex};

/// `sa_flags` (`asm/signal.h`).
#[allow(missing_docs, reason = "named as in sigaction(2)")]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const SIGINFO: u64 = 4;
    pub const UNSUPPORTED: u64 = 0x400;
    pub const EXPOSE_TAGBITS: u64 = 0x800;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
    /// The flags x86-64 knows; others are cleared, so that programs can ask (sigaction(2), dynamic probing).
    pub const KNOWN: u64 =
        NOCLDSTOP | NOCLDWAIT | SIGINFO | EXPOSE_TAGBITS | RESTORER | ONSTACK | RESTART | NODEFER | RESETHAND;
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// `struct sigaction` as the system call has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SigAction {
    /// Handler address, or [`SIG_DFL`] or [`SIG_IGN`].
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where a handler returns to.
    pub restorer: u64,
    /// Blocked while it runs.
    pub mask: SigSet,
}

/// What a signal does where no handler is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Ends the process.
    Terminate,
}

/// The default action of `signo` (signal(7)); SIGCONT's continuing happens when it is sent.
#[must_use]
pub fn default_action(signo: i32) -> Disposition {
    if bit(signo) & IGNORED != 0 {
        Disposition::Ignore
    } else if bit(signo) & STOPS != 0 {
        Disposition::Stop
    } else {
        Disposition::Terminate
    }
}

/// The handlers of a process (`CLONE_SIGHAND` shares them).
pub struct Actions(Mutex<[SigAction; NSIG as usize]>);

impl Default for Actions {
    fn default() -> Self {
        Actions(Mutex::new(Level::Signals, [SigAction::default(); NSIG as usize]))
    }
}

fn index(signo: i32) -> usize {
    usize::try_from(signo - 1).unwrap_or(0).min(NSIG as usize - 1)
}

impl Actions {
    /// A copy that changes apart.
    #[must_use]
    pub fn fork(&self) -> Self {
        Actions(Mutex::new(Level::Signals, *self.0.lock()))
    }

    /// The action for `signo` (1..=64).
    #[must_use]
    pub fn get(&self, signo: i32) -> SigAction {
        self.0.lock()[index(signo)]
    }

    /// Sets the action for `signo`, answering what it was.
    pub fn set(&self, signo: i32, mut action: SigAction) -> SigAction {
        action.mask &= !UNBLOCKABLE;
        action.flags &= sa::KNOWN;
        std::mem::replace(&mut self.0.lock()[index(signo)], action)
    }

    /// Back to the default (SA_RESETHAND).
    pub fn reset(&self, signo: i32) {
        self.0.lock()[index(signo)].handler = SIG_DFL;
    }

    /// What `execve` does: handlers go, ignored signals stay ignored (flags and masks are cleared).
    pub fn reset_for_exec(&self) {
        for action in self.0.lock().iter_mut() {
            let keep = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = SigAction { handler: keep, ..SigAction::default() };
        }
    }

    /// What CLONE_CLEAR_SIGHAND does: handlers go, ignored signals stay ignored.
    pub fn clear_handlers(&self) {
        self.reset_for_exec();
    }

    /// Whether an unblocked `signo` would do nothing.
    #[must_use]
    pub fn ignores(&self, signo: i32) -> bool {
        let action = self.get(signo);
        action.handler == SIG_IGN || action.handler == SIG_DFL && default_action(signo) == Disposition::Ignore
    }

    /// Sets with handlers and ignored signals, for `/proc/PID/status`: (SigIgn, SigCgt).
    #[must_use]
    pub fn sets(&self) -> (SigSet, SigSet) {
        let actions = self.0.lock();
        (1..=NSIG).zip(actions.iter()).fold((0, 0), |(ignored, caught), (signo, action)| match action.handler {
            SIG_IGN => (ignored | bit(signo), caught),
            SIG_DFL => (ignored, caught),
            _ => (ignored, caught | bit(signo)),
        })
    }
}
