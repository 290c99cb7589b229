//! A stub process: its life, and system calls injected into it.

use std::io;

use libc::pid_t;
use parking_lot::Mutex;
use platform::UserRegs;

use crate::kick::KICK;
use crate::layout::Layout;
use crate::sys::{self, Status};

/// A stub process, killed and reaped at the latest when the last reference goes. Any thread may do that; running and
/// inspecting it is its tracer's alone.
pub struct StubProcess {
    pid: pid_t,
    reaped: Mutex<bool>,
}

impl StubProcess {
    /// Takes responsibility for a child.
    pub fn new(pid: pid_t) -> Self {
        StubProcess { pid, reaped: Mutex::new(false) }
    }

    /// Its process id, valid while this lives and was not killed.
    pub fn pid(&self) -> pid_t {
        self.pid
    }

    /// Whether it was killed by us.
    pub fn is_ended(&self) -> bool {
        *self.reaped.lock()
    }

    /// Kills and reaps it, once.
    pub fn end(&self) {
        let mut reaped = self.reaped.lock();
        if std::mem::replace(&mut *reaped, true) {
            return;
        }
        let _ = sys::signal(self.pid, libc::SIGKILL);
        // A stop that was reported before the kill may come first.
        while matches!(sys::wait(self.pid), Ok(status) if status.stop_signal().is_some()) {}
    }

    /// Makes it stop soon.
    pub fn nudge(&self) {
        if !*self.reaped.lock() {
            let _ = sys::signal(self.pid, KICK);
        }
    }
}

impl Drop for StubProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for the stub `pid` to stop.
///
/// # Errors
/// `BrokenPipe` where it ended instead.
pub fn wait_stop(pid: pid_t) -> io::Result<Status> {
    let status = sys::wait(pid)?;
    if status.stop_signal().is_none() {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "a stub process was killed"));
    }
    Ok(status)
}

/// Waits for the ptrace event `event`, letting other stops pass.
pub fn wait_event(pid: pid_t, event: i32) -> io::Result<()> {
    loop {
        let status = wait_stop(pid)?;
        if status.event() == event {
            return Ok(());
        }
        let failed = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGSYS].map(Some);
        if status.event() == 0 && failed.contains(&status.stop_signal()) {
            return Err(io::Error::other("a stub reported a failure instead of an event"));
        }
        sys::resume(libc::PTRACE_CONT, pid)?;
    }
}

/// Registers that start at `rip` and belong to no system call.
pub fn regs_at(rip: u64) -> UserRegs {
    UserRegs { rip, ..UserRegs::new() }
}

/// Runs injected code from `regs` to its `int3`; answers the registers there. Signals meanwhile are swallowed: a kick
/// has left its flag.
pub fn inject(pid: pid_t, layout: Layout, regs: &UserRegs) -> io::Result<UserRegs> {
    sys::set_regs(pid, regs)?;
    loop {
        sys::resume(libc::PTRACE_CONT, pid)?;
        let status = wait_stop(pid)?;
        if status.event() != 0 {
            continue;
        }
        let mut now = UserRegs::new();
        match status.stop_signal() {
            Some(libc::SIGTRAP) => {
                sys::get_regs(pid, &mut now)?;
                if layout.is_code(now.rip) {
                    return Ok(now);
                }
                return Err(io::Error::other("a stub left its code page"));
            }
            Some(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGSYS) => {
                return Err(io::Error::other("an injected system call failed in the stub"));
            }
            _ => {}
        }
    }
}

/// Runs one system call in the stub.
///
/// # Errors
/// The call's own, or the failure of the stub.
pub fn inject_call(pid: pid_t, layout: Layout, nr: i64, args: [u64; 6]) -> io::Result<u64> {
    let [rdi, rsi, rdx, r10, r8, r9] = args;
    let regs = UserRegs { rax: nr as u64, rdi, rsi, rdx, r10, r8, r9, ..regs_at(layout.one()) };
    result(inject(pid, layout, &regs)?.rax)
}

/// A raw system call result.
pub fn result(rax: u64) -> io::Result<u64> {
    match rax as i64 {
        e @ -4095..=-1 => Err(io::Error::from_raw_os_error(-e as i32)),
        _ => Ok(rax),
    }
}
