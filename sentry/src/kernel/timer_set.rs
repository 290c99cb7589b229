//! A process's interval timers and POSIX timers.

/// All timers of a process.
#[derive(Default)]
pub struct TimerSet {}

impl TimerSet {
    /// Drops all: the process has ended.
    pub fn clear(&self) {}

    /// Drops the POSIX timers; interval timers survive `execve`.
    pub fn clear_posix(&self) {}
}
