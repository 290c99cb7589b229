//! Terminals: size and modes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Error, Result, check};

/// Rows and columns of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// The size of the terminal behind `fd`.
///
/// # Errors
/// `ENOTTY` where it is none.
pub fn window_size(fd: BorrowedFd<'_>) -> Result<WindowSize> {
    // SAFETY: an all-zero winsize is valid, and TIOCGWINSZ fills it.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check("ioctl(TIOCGWINSZ)", i64::from(libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size)))?;
        size
    };
    Ok(WindowSize { rows: size.ws_row, cols: size.ws_col })
}

/// A terminal in raw mode; goes back to what it was when dropped, or by [`RawMode::suspend`].
pub struct RawMode {
    tty: OwnedFd,
    saved: Termios,
}

impl RawMode {
    /// Puts the terminal behind `fd` into raw mode: every key goes through as a byte.
    ///
    /// # Errors
    /// `ENOTTY` where it is none; what `tcsetattr` says.
    pub fn enter(fd: BorrowedFd<'_>) -> Result<RawMode> {
        let saved = tcgetattr(fd).map_err(|e| Error::new("tcgetattr", e))?;
        let tty = crate::fds::dup_above(fd, 3)?;
        let raw = RawMode { tty, saved };
        raw.resume()?;
        Ok(raw)
    }

    /// Gives the terminal its own modes back for a while.
    pub fn suspend(&self) {
        // TCSADRAIN: what the guest wrote last is still shown with its own line ends.
        let _ = tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, &self.saved);
    }

    /// Raw mode again.
    ///
    /// # Errors
    /// What `tcsetattr` says.
    pub fn resume(&self) -> Result<()> {
        let mut modes = self.saved.clone();
        cfmakeraw(&mut modes);
        tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, &modes).map_err(|e| Error::new("tcsetattr", e))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.suspend();
    }
}

impl AsFd for RawMode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}
