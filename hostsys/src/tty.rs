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

/// Makes the terminal behind `fd` the controlling one of this session, whose leader we are.
///
/// # Errors
/// `EPERM` where we lead no session, or another one has it.
pub fn take_over(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers; 0 steals from nobody.
    check("ioctl(TIOCSCTTY)", i64::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(|_| ())
}

/// A fresh pseudo-terminal of this size (0 by 0 leaves it), its slave in raw mode: the line discipline is elsewhere.
/// Master first.
///
/// # Errors
/// What `openpty` or `tcsetattr` say.
pub fn raw_pair(size: WindowSize) -> Result<(OwnedFd, OwnedFd)> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = nix::pty::openpty(Some(&size), None).map_err(|e| Error::new("openpty", e))?;
    for fd in [&pair.master, &pair.slave] {
        let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(fd, flag).map_err(|e| Error::new("fcntl(F_SETFD)", e))?;
    }
    let mut modes = tcgetattr(&pair.slave).map_err(|e| Error::new("tcgetattr", e))?;
    cfmakeraw(&mut modes);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes).map_err(|e| Error::new("tcsetattr", e))?;
    Ok((pair.master, pair.slave))
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

    /// Gives the terminal its own modes back also where this process panics, whether or not a panic unwinds: before
    /// anything is printed.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn restore_on_panic(&self) -> Result<()> {
        let tty = crate::fds::dup_above(self.tty.as_fd(), 3)?;
        let saved: libc::termios = self.saved.clone().into();
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Not draining: nobody may be there to read.
            let _ = tcsetattr(tty.as_fd(), SetArg::TCSANOW, &saved.into());
            print(info);
        }));
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::termios::LocalFlags;

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let cooked = || tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO);
        assert!(cooked());
        let raw = RawMode::enter(pty.slave.as_fd()).unwrap();
        raw.restore_on_panic().unwrap();
        assert!(!cooked());
        let panicked = std::thread::spawn(|| panic!("as a test wants it")).join();
        assert!(panicked.is_err() && cooked());
        drop(raw);
        let _ = std::panic::take_hook();
    }
}
