//! Who may read the terminal: the job in the foreground (`sentry::fs::host_gate` has the other side).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hostsys::{SeqPacket, fds};

/// Gives the sandbox process leave to read our terminal, one read at a time.
pub struct InputGate {
    socket: SeqPacket,
    asked: bool,
    granted: bool,
}

impl InputGate {
    /// A gate, and the sandbox's side of it.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> Result<(InputGate, OwnedFd), hostsys::Error> {
        let (ours, theirs) = SeqPacket::pair()?;
        Ok((InputGate { socket: ours, asked: false, granted: false }, theirs.into_fd()))
    }

    /// Takes in what the sandbox process says; answers false once it will say nothing any more.
    pub fn hear(&mut self) -> bool {
        loop {
            match self.socket.try_receive() {
                Ok(None) => return true,
                Ok(Some(message)) if message.bytes == b"?" => self.asked = true,
                Ok(Some(message)) if message.bytes == b"." => self.granted = false,
                // Standard input was closed; or this is something that it should not say.
                _ => return false,
            }
        }
    }

    /// Whether somebody waits for leave.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    fn say(&self, word: &[u8; 1]) {
        // Without room it has not heard the last ones either.
        let _ = self.socket.try_send(word, &[]);
    }

    /// One may read.
    pub fn grant(&mut self) {
        (self.asked, self.granted) = (false, true);
        self.say(b"+");
    }

    /// One may not after all, if it has not read yet: it is as if it asked now.
    pub fn withdraw(&mut self) {
        self.hear();
        if std::mem::take(&mut self.granted) {
            self.asked = true;
            self.say(b"-");
        }
    }

    /// One may never.
    pub fn refuse(&mut self) {
        self.asked = false;
        self.say(b"!");
    }
}

impl AsFd for InputGate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd().as_fd()
    }
}

/// Whether our job may read the terminal behind standard input. Who has no part in its sessions may (`tty_check_change`).
pub fn in_foreground() -> bool {
    let Ok(tty) = fds::standard_stream(0) else { return true };
    nix::unistd::tcgetpgrp(&tty).map_or(true, |group| group == nix::unistd::getpgrp())
}
