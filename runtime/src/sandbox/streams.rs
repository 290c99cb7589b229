//! The program's standard streams: three descriptors, or the terminal.

use std::os::fd::{AsFd, OwnedFd};

use hostsys::tty::{RawMode, WindowSize, window_size};
use hostsys::{Error, fds};

use super::config::{ConsoleSize, Role};
use super::input_gate::InputGate;
use crate::cli::DoArgs;
use crate::failure::{Failure, Result};

/// What the program reads and writes.
pub struct Streams {
    /// Descriptors for the sandbox, each with its role.
    pub fds: Vec<(Role, OwnedFd)>,
    /// Size of the console, where the program gets a terminal of its own.
    pub console: Option<ConsoleSize>,
    /// Our side of the gate before a terminal that is passed through.
    pub gate: Option<InputGate>,
}

impl Streams {
    /// The command's own streams, as `args` want them.
    ///
    /// # Errors
    /// Out of descriptors; `--tty` without a terminal.
    pub fn prepare(args: &DoArgs) -> Result<Self> {
        let both = is_tty(0) && is_tty(1);
        // A snapshot has plain streams: terminals are not saved.
        let plain = args.no_tty || args.restore.is_some();
        let result = if args.tty || (both && !plain) { Self::console(args) } else { Self::plain() };
        let result = if args.restore.is_some() { result } else { result.and_then(Self::gated) };
        result.map_err(|e| Failure::host("preparing the standard streams", e))
    }

    /// What a process of a container gets: the caller's streams as they are; or with `terminal` the caller's, which must be one.
    ///
    /// # Errors
    /// Out of descriptors; no terminal.
    pub fn of_caller(terminal: bool) -> Result<Self> {
        let doing = |e| Failure::host("preparing the standard streams", e);
        if !terminal {
            return Self::plain().map_err(doing);
        }
        let tty = fds::standard_stream(0).map_err(doing)?;
        let size = window_size(tty.as_fd()).map_err(|_| Failure::runtime("the input device is not a TTY"))?;
        let console = fds::without_blocking(tty.as_fd()).map_err(doing)?;
        Ok(Streams { fds: vec![(Role::Console, console)], console: Some(size.into()), gate: None })
    }

    /// A terminal that was made for the process.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn of_terminal(slave: OwnedFd, size: ConsoleSize) -> Result<Self> {
        let console = fds::without_blocking(slave.as_fd()).map_err(|e| Failure::host("preparing the terminal", e))?;
        Ok(Streams { fds: vec![(Role::Console, console)], console: Some(size), gate: None })
    }

    /// Three descriptors that were opened for the process.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn of_descriptors(ends: [OwnedFd; 3]) -> Result<Self> {
        let roles = [Role::Stdin, Role::Stdout, Role::Stderr].into_iter().zip(ends);
        let fds =
            roles.map(|(role, fd)| Ok((role, fds::without_blocking(fd.as_fd())?))).collect::<hostsys::Result<_>>();
        let fds = fds.map_err(|e| Failure::host("preparing the standard streams", e))?;
        Ok(Streams { fds, console: None, gate: None })
    }

    /// The terminal, where there is one.
    #[must_use]
    pub fn terminal(&self) -> Option<&OwnedFd> {
        self.fds.iter().find(|(role, _)| *role == Role::Console).map(|(_, fd)| fd)
    }

    /// Three streams that never block the sandbox's workers.
    fn plain() -> std::result::Result<Self, Error> {
        let stream = |(role, number)| Ok((role, fds::without_blocking(fds::standard_stream(number)?.as_fd())?));
        let all = [(Role::Stdin, 0), (Role::Stdout, 1), (Role::Stderr, 2)];
        let fds = all.into_iter().map(stream).collect::<std::result::Result<_, Error>>()?;
        Ok(Streams { fds, console: None, gate: None })
    }

    /// Puts a gate before a terminal that is passed through, for a command that stays beside its sandbox.
    fn gated(mut self) -> std::result::Result<Self, Error> {
        if self.console.is_none() && is_tty(0) {
            let (ours, theirs) = InputGate::pair()?;
            self.fds.push((Role::InputGate, theirs));
            self.gate = Some(ours);
        }
        Ok(self)
    }

    /// The terminal behind the guest's; standard error apart, where it leads elsewhere.
    fn console(args: &DoArgs) -> std::result::Result<Self, Error> {
        let number = (0..3).find(|&n| is_tty(n));
        let Some(number) = number else {
            // `--tty` without any terminal: the guest's terminal is fed by the plain streams.
            let mut streams = Self::plain()?;
            streams.console = args.tty.then_some(ConsoleSize { rows: 24, cols: 80 });
            return Ok(streams);
        };
        let tty = fds::standard_stream(number)?;
        let size = window_size(tty.as_fd()).unwrap_or(WindowSize { rows: 24, cols: 80 });
        let mut all = vec![(Role::Console, fds::without_blocking(tty.as_fd())?)];
        if !is_tty(2) {
            all.push((Role::Stderr, fds::without_blocking(fds::standard_stream(2)?.as_fd())?));
        }
        Ok(Streams { fds: all, console: Some(ConsoleSize { rows: size.rows, cols: size.cols }), gate: None })
    }

    /// Puts the host's terminal into raw mode, where the program has one of its own.
    ///
    /// # Errors
    /// What the terminal says.
    pub fn raw_mode(&self) -> Result<Option<RawMode>> {
        let enter = |fd: &OwnedFd| {
            let raw = RawMode::enter(fd.as_fd())?;
            raw.restore_on_panic()?;
            Ok(raw)
        };
        self.terminal().map(enter).transpose().map_err(|e| Failure::host("preparing the terminal", e))
    }
}

impl From<WindowSize> for ConsoleSize {
    fn from(size: WindowSize) -> Self {
        ConsoleSize { rows: size.rows, cols: size.cols }
    }
}

fn is_tty(number: i32) -> bool {
    fds::standard_stream(number).is_ok_and(|fd| nix::unistd::isatty(&fd) == Ok(true))
}
