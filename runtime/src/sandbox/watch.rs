//! The command's life beside its sandbox: signals and window sizes in, the exit status out.

use std::os::fd::AsFd;

use hostsys::signals::SignalReader;
use hostsys::tty::{RawMode, window_size};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::input_gate::{InputGate, in_foreground};
use super::launch::Sandbox;
use crate::control::wire::{self, Message};
use crate::failure::{Failure, Result, Status};

/// Signals that go to the program, but for SIGTSTP, which stops us both.
const WATCHED: [Signal; 10] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
];

/// How long a sandbox may take to pause before the command stops all the same.
const PAUSE_MS: u16 = 2000;

/// A program that runs for so long is waited for by a command that keeps little of itself in memory, milliseconds.
const SETTLED_MS: u16 = 1000;

/// Blocks and collects the signals that [`watch`] handles.
///
/// # Errors
/// Out of descriptors.
pub fn block_signals() -> Result<SignalReader> {
    SignalReader::new(&WATCHED).map_err(|e| Failure::host("preparing signals", e))
}

/// Stays until the sandbox has ended, and reaped; answers the program's exit status.
///
/// # Errors
/// The program could not be run, or the sandbox process died.
pub fn watch(
    sandbox: Sandbox,
    signals: SignalReader,
    terminal: Option<RawMode>,
    gate: Option<InputGate>,
) -> Result<u8> {
    let outcome = Watch { sandbox, signals, terminal, gate, outcome: None, frugal: false }.run();
    // The terminal is itself again here, before anybody prints.
    outcome
}

struct Watch {
    sandbox: Sandbox,
    signals: SignalReader,
    terminal: Option<RawMode>,
    gate: Option<InputGate>,
    outcome: Option<Message>,
    /// Memory was given back.
    frugal: bool,
}

impl Watch {
    fn run(mut self) -> Result<u8> {
        while self.wait_for_something()? {}
        let status = self.sandbox.child.wait().map_err(|e| Failure::host("waiting for the sandbox process", e))?;
        self.terminal = None;
        self.verdict(status)
    }

    /// Handles what comes next; answers false when the sandbox is through with us.
    fn wait_for_something(&mut self) -> Result<bool> {
        let mut set = vec![
            PollFd::new(self.sandbox.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        set.extend(self.gate.as_ref().map(|gate| PollFd::new(gate.as_fd(), PollFlags::POLLIN)));
        let at_most = if self.frugal { PollTimeout::NONE } else { PollTimeout::from(SETTLED_MS) };
        match poll(&mut set, at_most) {
            Ok(0) => {
                self.frugal = true;
                memory::program::give_back();
                return Ok(true);
            }
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            Err(e) => return Err(Failure::runtime(format!("waiting for the sandbox process: poll: {e}"))),
            Ok(_) => {}
        }
        let (control, signal) = (ready(&set[0]), ready(&set[1]));
        if signal {
            self.take_signals()?;
        }
        if control && !self.on_message()? {
            return Ok(false);
        }
        self.mind_the_gate()?;
        Ok(true)
    }

    /// Handles the signals that have come; answers whether SIGCONT was among them.
    fn take_signals(&mut self) -> Result<bool> {
        let mut continued = false;
        while let Some(signal) = self.signals.next().map_err(|e| Failure::host("reading signals", e))? {
            continued |= signal == Signal::SIGCONT;
            self.on_signal(signal);
        }
        Ok(continued)
    }

    /// The guest wants to read our terminal: as one of our job, which stops where it is in the background.
    fn mind_the_gate(&mut self) -> Result<()> {
        if self.gate.as_mut().is_some_and(|gate| !gate.hear()) {
            self.gate = None;
        }
        while self.gate.as_ref().is_some_and(InputGate::is_asked) {
            if in_foreground() {
                self.gate.iter_mut().for_each(InputGate::grant);
                break;
            }
            self.stop_by(|| {
                let _ = kill(Pid::from_raw(0), Signal::SIGTTIN);
            });
            if !self.take_signals()? {
                // It did not stop us: ignored, or there is no shell that could continue us (`job_control`: EIO).
                self.gate.iter_mut().for_each(InputGate::refuse);
            }
        }
        Ok(())
    }

    fn on_message(&mut self) -> Result<bool> {
        let message = self.sandbox.control.receive().map_err(|e| Failure::host("hearing the sandbox process", e))?;
        if message.is_eof() {
            return Ok(false);
        }
        match Message::decode(&message.bytes) {
            Some(end @ (Message::Exited(_) | Message::Signaled(_) | Message::Failed(..))) => {
                self.outcome.get_or_insert(end);
            }
            other => log::debug!("from the sandbox process: {other:?}"),
        }
        Ok(true)
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTSTP => self.stop(),
            Signal::SIGCONT => {
                // Whoever stopped us: the job may have changed places.
                self.gate.iter_mut().for_each(InputGate::withdraw);
                self.send(&Message::Signal(signal as i32));
            }
            Signal::SIGWINCH if self.terminal.is_some() => self.send_window_size(),
            other => self.send(&Message::Signal(other as i32)),
        }
    }

    /// Stops the guest, gives the terminal back, stops, and undoes all that when continued.
    fn stop(&mut self) {
        self.stop_by(hostsys::process::stop_self);
    }

    fn stop_by(&mut self, stop: impl FnOnce()) {
        self.send(&Message::Pause);
        let mut set = [PollFd::new(self.sandbox.control.as_fd(), PollFlags::POLLIN)];
        if poll(&mut set, PAUSE_MS).is_ok_and(|n| n > 0) {
            // Its answer, or its end: the latter is seen again by the main loop.
            let _ = self.on_message();
        }
        if let Some(terminal) = &self.terminal {
            terminal.suspend();
        }
        stop();
        self.gate.iter_mut().for_each(InputGate::withdraw);
        if let Some(terminal) = &self.terminal
            && let Err(e) = terminal.resume()
        {
            log::warn!("cannot prepare the terminal again: {e}");
        }
        self.send_window_size();
        self.send(&Message::Resume);
    }

    fn send_window_size(&self) {
        let Some(tty) = self.terminal.as_ref() else { return };
        if let Ok(size) = window_size(tty.as_fd()) {
            self.send(&Message::WindowSize { rows: size.rows, cols: size.cols });
        }
    }

    fn send(&self, message: &Message) {
        if let Err(e) = self.sandbox.control.send(&message.encode(), &[]) {
            log::debug!("the sandbox process does not listen any more: {e}");
        }
    }

    /// What the end of the sandbox process means. Its word counts only if it ended as it said.
    fn verdict(self, status: WaitStatus) -> Result<u8> {
        match (self.outcome, status) {
            (Some(Message::Failed(status, text)), _) => Err(Failure::new(wire::status(status), text)),
            (Some(Message::Exited(code)), WaitStatus::Exited(..)) => Ok(code),
            (Some(Message::Signaled(signal)), WaitStatus::Exited(..)) => Ok(128u8.saturating_add(signal)),
            (_, status) => Err(death(status)),
        }
    }
}

/// What a sandbox process died of that left no word.
pub fn death(status: WaitStatus) -> Failure {
    let text = match status {
        WaitStatus::Signaled(_, Signal::SIGSYS, _) | WaitStatus::Exited(_, hostsys::sigsys::REFUSED_STATUS) => {
            return filter_killed();
        }
        WaitStatus::Exited(_, hostsys::abort::ABORTED_STATUS) => killed_by(Signal::SIGABRT),
        WaitStatus::Signaled(_, signal, _) => killed_by(signal),
        other => format!("the sandbox process ended without a word ({other:?}); run again with --debug for its log"),
    };
    Failure::new(Status::SandboxDied, text)
}

fn ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|r| !r.is_empty())
}

fn filter_killed() -> Failure {
    Failure::new(
        Status::FilterKilled,
        "sandbox process killed by its own filter (SIGSYS): it made a system call outside its allow-list; \
         run again with --debug to have the call named, and report it",
    )
}

fn killed_by(signal: Signal) -> String {
    let hint = match signal {
        Signal::SIGKILL => {
            "somebody killed it, or the host ran out of memory (see dmesg); --memory lowers what the guest may use"
        }
        Signal::SIGABRT => "it gave up, and said why just before (out of memory, a failed check): please report it",
        _ => "a defect of nanovisor: run again with --debug and report it",
    };
    format!("the sandbox process was killed by {signal}: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_names_the_way_out() {
        assert!(killed_by(Signal::SIGKILL).contains("--memory"));
        assert!(filter_killed().message.contains("--debug"));
    }
}
