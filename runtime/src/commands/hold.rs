//! Beside a process that was executed in a container: signals and window sizes in, its status out. The process lives as
//! long as its connection.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hostsys::signals::SignalReader;
use hostsys::{Fork, Namespaces, SeqPacket, process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::exec::Wanted;
use crate::control::client::{Connection, Heard, PATIENCE};
use crate::control::protocol::{Answer, Request, Target};
use crate::failure::{Failure, Result, Status};
use crate::kill_points::pass;

/// Signals that go on to the process: all that can be caught and are not about ourselves.
const PASSED: [Signal; 13] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// Executes and stays; answers the exit status, 128+n for signal n.
///
/// # Errors
/// It cannot be executed.
pub fn attached(connection: Connection, wanted: Wanted) -> Result<u8> {
    let signals = signals()?;
    let terminal = wanted.streams.raw_mode()?;
    let held = begin(connection, &wanted)?;
    pass("exec-running");
    // Copies of ours would keep pipes open that the process has closed.
    drop(wanted);
    let status = held.stay(signals, terminal.as_ref().map(AsFd::as_fd));
    drop(terminal);
    status
}

/// Executes, and leaves a process behind that stays beside it; answers that one's id. It is signalled and waited for in the
/// place of the process inside: containerd's shim does so.
///
/// # Errors
/// It cannot be executed.
pub fn detached(connection: Connection, wanted: Wanted, log: BorrowedFd<'_>) -> Result<i32> {
    let doing = |e| Failure::host("leaving a process behind", e);
    let (ours, theirs) = SeqPacket::pair().map_err(doing)?;
    // This process has one thread, and the new one goes on from here: no path, no argument is handed over.
    match process::fork_into(Namespaces::empty()).map_err(doing)? {
        Fork::Parent(child) => {
            drop(theirs);
            drop((connection, wanted));
            let word = ours.receive().map_err(doing)?.bytes;
            match word.split_first() {
                Some((0, [])) => Ok(child.pid()),
                Some((status, text)) => {
                    let text = crate::control::wire::printable(text);
                    Err(Failure::new(crate::control::wire::status(*status), text))
                }
                None => Err(Failure::runtime("the process that was to stay behind ended")),
            }
        }
        Fork::Child => {
            drop(ours);
            process::exit_now(holder(connection, wanted, theirs, log).into())
        }
    }
}

/// The process left behind. Its status is the process's.
fn holder(connection: Connection, wanted: Wanted, word: SeqPacket, log: BorrowedFd<'_>) -> u8 {
    let begun = prepare(&wanted).and_then(|signals| Ok((signals, begin(connection, &wanted)?)));
    let (signals, held) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            let status = failure.status as u8;
            let _ = word.send(&[&[status], failure.message.as_bytes()].concat(), &[]);
            return status;
        }
    };
    let terminal = wanted.streams.terminal().and_then(|fd| hostsys::fds::dup_above(fd.as_fd(), 3).ok());
    drop(wanted);
    leave_streams(log);
    let _ = word.send(&[0], &[]);
    drop(word);
    held.stay(signals, terminal.as_ref().map(OwnedFd::as_fd)).unwrap_or(Status::Runtime as u8)
}

fn prepare(wanted: &Wanted) -> Result<SignalReader> {
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"nanovisor-hold");
    if let Some(tty) = wanted.streams.terminal() {
        hostsys::tty::take_over(tty.as_fd()).map_err(|e| Failure::host("preparing the terminal", e))?;
    }
    signals()
}

/// The caller's streams are the process's now; the log is one of them, unless it is a file.
pub fn leave_streams(log: BorrowedFd<'_>) {
    if let Ok(null) = hostsys::fds::dev_null() {
        for number in [0, 1, 2, log.as_raw_fd()] {
            let _ = hostsys::fds::place(null.as_fd(), number);
        }
    }
}

/// The signals that go on.
///
/// # Errors
/// Out of descriptors.
pub fn signals() -> Result<SignalReader> {
    SignalReader::new(&PASSED).map_err(|e| Failure::host("preparing signals", e))
}

/// A process inside, and its connection.
pub struct Held {
    connection: Connection,
    /// It, or the first one of its container.
    target: Target,
}

/// Executes it.
///
/// # Errors
/// It cannot be executed.
pub fn begin(mut connection: Connection, wanted: &Wanted) -> Result<Held> {
    let program = wanted.process.args.first().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default();
    let request = Request::Exec { process: Box::new(wanted.process.clone()), stderr: wanted.streams.fds.len() == 2 };
    match connection.call(request, &wanted.fds(), PATIENCE) {
        Ok(Answer::Pid(pid)) => Ok(Held::new(connection, Target::Process(pid))),
        Ok(_) => Err(Failure::runtime("the sandbox does not make sense: another answer than asked for")),
        Err(failure) => Err(Failure::new(failure.status, format!("exec: {program:?}: {}", failure.message))),
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Held {
    /// `target` belongs to `connection`.
    #[must_use]
    pub fn new(connection: Connection, target: Target) -> Self {
        Held { connection, target }
    }

    /// Its id inside.
    #[must_use]
    pub fn pid(&self) -> i32 {
        if let Target::Process(pid) = self.target { pid } else { 0 }
    }

    /// Its exit status, if it has ended. Does not wait: there is nothing more where the descriptor has nothing.
    ///
    /// # Errors
    /// The sandbox says what means nothing.
    pub fn ended(&mut self) -> Result<Option<u8>> {
        loop {
            match self.connection.hear()? {
                Heard::Answer(0, Answer::Exited(pid, status)) if self.is(pid) => return Ok(Some(exit_status(status))),
                Heard::Answer(..) => {}
                // The whole container has ended, and everything in it was killed.
                Heard::Gone => return Ok(Some(128 + 9)),
                Heard::Nothing => return Ok(None),
            }
        }
    }

    /// Stays until its end, passing on what comes; answers the exit status, 128+n for signal n.
    ///
    /// # Errors
    /// The sandbox does not make sense.
    pub fn stay(mut self, mut signals: SignalReader, terminal: Option<BorrowedFd<'_>>) -> Result<u8> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            let mut set = [
                PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut set, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(Failure::runtime(format!("waiting for the process: poll: {e}"))),
            }
            while let Some(signal) = signals.next().map_err(|e| Failure::host("reading signals", e))? {
                self.pass(signal, terminal);
            }
        }
    }

    fn is(&self, pid: i32) -> bool {
        // A connection that has made a container hears of its first process alone.
        self.target == Target::Init || self.target == Target::Process(pid)
    }

    fn pass(&mut self, signal: Signal, terminal: Option<BorrowedFd<'_>>) {
        let request = match (signal, terminal.map(hostsys::tty::window_size)) {
            (Signal::SIGWINCH, Some(Ok(size))) => {
                Request::WindowSize { pid: self.pid(), rows: size.rows, cols: size.cols }
            }
            (other, _) => Request::Signal { target: self.target, signo: other as i32 },
        };
        if let Err(failure) = self.connection.send(request, &[]) {
            log::debug!("{failure}");
        }
    }
}

/// A status of `wait(2)` as a shell has it.
fn exit_status(status: i32) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shell_s() {
        assert_eq!((exit_status(0), exit_status(3 << 8), exit_status(9)), (0, 3, 137));
    }
}
