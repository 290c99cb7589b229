//! A terminal for the command under test: types at it, waits for what it shows, changes its size.
//!
//! The command runs as the leader of a session of its own whose controlling terminal is the pty's. Everything that it
//! shows is kept: a wait looks only at what came after the last match, and a failure prints the end of it.

// TIOCSCTTY between fork and exec.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::output::Output;
use crate::supervise;

/// How long a wait for the screen may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command at a terminal.
pub struct Session {
    master: File,
    child: Child,
    result: tempfile::TempDir,
    shown: Vec<u8>,
    /// What has been matched.
    seen: usize,
}

fn size_of(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Session {
    /// Starts `command` at a terminal of 24 rows and 80 columns, under a supervisor that ends it after `limit`.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(command: &Command, limit: Duration) -> Result<Self, String> {
        let told = |what: &'static str| move |e: Errno| format!("{what}: {e}");
        let OpenptyResult { master, slave } = openpty(Some(&size_of(24, 80)), None).map_err(told("openpty"))?;
        let result = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let mut outer = supervise::wrap(command, &result.path().join("result"), limit)?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| format!("the terminal: {e}"));
        outer.stdin(Stdio::from(copy(&slave)?)).stdout(Stdio::from(copy(&slave)?)).stderr(Stdio::from(slave));
        // SAFETY: two system calls, which are safe between fork and exec.
        unsafe {
            outer.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        // The master is closed at exec: std and openpty differ in that, so it is set here.
        let close = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(&master, close).map_err(told("FD_CLOEXEC"))?;
        let child = outer.spawn().map_err(|e| format!("starting the supervisor: {e}"))?;
        Ok(Session { master: File::from(master), child, result, shown: Vec::new(), seen: 0 })
    }

    /// Types `text` as it is.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn send(&mut self, text: &str) -> Result<(), String> {
        self.master.write_all(text.as_bytes()).map_err(|e| self.failure(&format!("typing {text:?}: {e}")))
    }

    /// Types `text` and Enter.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn line(&mut self, text: &str) -> Result<(), String> {
        self.send(&format!("{text}\r"))
    }

    /// Waits until `text` is shown after what was matched before; answers what came before it.
    ///
    /// # Errors
    /// It does not come, or the command ends.
    pub fn expect(&mut self, text: &str) -> Result<String, String> {
        self.expect_any(&[text]).map(|(_, before)| before)
    }

    /// Waits for the first of several texts; answers which, and what came before it.
    ///
    /// # Errors
    /// None comes, or the command ends.
    pub fn expect_any(&mut self, texts: &[&str]) -> Result<(usize, String), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let rest = &self.shown[self.seen..];
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(n, text)| Some((find(rest, text.as_bytes())?, text.len(), n)))
                .min();
            if let Some((at, len, n)) = found {
                let before = String::from_utf8_lossy(&rest[..at]).into_owned();
                self.seen += at + len;
                return Ok((n, before));
            }
            match self.read_some(until) {
                Ok(true) => {}
                Ok(false) => return Err(self.failure(&format!("ended while {texts:?} was waited for"))),
                Err(e) => return Err(self.failure(&format!("waiting for {texts:?}: {e}"))),
            }
        }
    }

    /// Gives the terminal another size, as a window that is resized does.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<(), String> {
        let size = size_of(rows, cols);
        // SAFETY: TIOCSWINSZ reads a winsize.
        let answer = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if answer == 0 { Ok(()) } else { Err(format!("TIOCSWINSZ: {}", Errno::last())) }
    }

    /// Waits for the command's end; the output is all that was shown.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(mut self) -> Result<Output, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.read_some(until) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => return Err(self.failure(&format!("waiting for the end: {e}"))),
            }
        }
        self.child.wait().map_err(|e| format!("the supervisor: {e}"))?;
        let shown = std::mem::take(&mut self.shown);
        supervise::finish(shown, Vec::new(), &self.result.path().join("result"))
    }

    /// Reads what there is; `false` when every holder of the terminal has ended.
    fn read_some(&mut self, until: Instant) -> Result<bool, String> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(format!("not within {} s", PATIENCE.as_secs())),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(format!("poll: {e}")),
        }
        let mut chunk = [0; 4096];
        match self.master.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.shown.extend_from_slice(&chunk[..n]);
                Ok(true)
            }
            // What a master says when the last slave has been closed.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e.to_string()),
        }
    }

    fn failure(&self, what: &str) -> String {
        let from = self.shown.len().saturating_sub(1500);
        let screen = String::from_utf8_lossy(&self.shown[from..]);
        let lines = screen.lines().fold(String::new(), |all, line| format!("{all}  | {}\n", line.escape_debug()));
        format!("{what}\n--- shown, the last of it\n{lines}")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Its death signal ends what it supervises.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|w| w == part)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_first_place_is_found() {
        assert_eq!(find(b"ababc", b"abc"), Some(2));
        assert_eq!(find(b"ab", b"abc"), None);
    }
}
