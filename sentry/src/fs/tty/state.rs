//! What a terminal remembers: both directions, its settings, who has it open.

use abi::Errno;
use serde::{Deserialize, Serialize};

use crate::fs::tty::input::Input;
use crate::fs::tty::output::Output;
use crate::fs::tty::termios::{Termios, cc, flag};
use crate::kernel::wait::Events;
use crate::vfs::IoSink;

/// Bits of a packet mode status byte (`ioctl_tty(2)`, TIOCPKT).
pub mod packet {
    /// The input queue was flushed.
    pub const FLUSHREAD: u8 = 1;
    /// The output queue was flushed.
    pub const FLUSHWRITE: u8 = 2;
    /// Output was stopped.
    pub const STOP: u8 = 4;
    /// Output was started.
    pub const START: u8 = 8;
    /// ^S and ^Q do not stop and start any more.
    pub const NOSTOP: u8 = 16;
    /// ^S and ^Q stop and start now.
    pub const DOSTOP: u8 = 32;
    /// EXTPROC was switched.
    pub const IOCTL: u8 = 64;
}

/// What must happen once the lock is given up.
#[derive(Default)]
pub struct Effects {
    /// Readiness of the slave's side that may have changed.
    pub slave: Events,
    /// Of the master's side.
    pub master: Events,
    /// Signals for the foreground process group.
    pub signals: Vec<i32>,
}

/// `struct winsize`: rows, columns, and pixels of both.
pub type WinSize = [u16; 4];

/// A pty's state. The slave's side has the settings; the master's is raw.
#[derive(Clone, Serialize, Deserialize)]
pub struct State {
    pub termios: Termios,
    pub size: WinSize,
    pub input: Input,
    pub output: Output,
    /// The next typed byte is taken as it is (after VLNEXT).
    pub literal: bool,
    /// Within a run of characters that ECHOPRT shows as erased.
    pub erasing: bool,
    pub packet: bool,
    pub status: u8,
    pub master_open: bool,
    pub slaves: u32,
    /// Whether the slave was open once: its absence is a hang-up then.
    pub was_open: bool,
    /// TIOCSPTLCK.
    pub locked: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// Hang-ups so far: files opened before the last one are dead.
    pub hangups: u32,
}

impl State {
    pub fn new() -> Self {
        State {
            termios: Termios::default(),
            size: [0; 4],
            input: Input::default(),
            output: Output::default(),
            literal: false,
            erasing: false,
            packet: false,
            status: 0,
            master_open: true,
            slaves: 0,
            was_open: false,
            locked: true,
            exclusive: false,
            hangups: 0,
        }
    }

    /// Whether reads go line by line.
    pub fn canonical(&self) -> bool {
        self.termios.l(flag::ICANON) && !self.termios.l(flag::EXTPROC)
    }

    /// Whether a read finds something; `poll` waits for VMIN bytes where no timer runs (`input_available_p`).
    pub fn readable(&self, poll: bool) -> bool {
        if self.canonical() {
            return self.input.has_line();
        }
        let (min, time) = (usize::from(self.termios.cc[cc::VMIN]), self.termios.cc[cc::VTIME]);
        self.input.len() >= if poll && time == 0 { min.max(1) } else { 1 }
    }

    /// Gives a reader of the slave what there is.
    pub fn read(&mut self, dst: &mut IoSink<'_>, fx: &mut Effects) -> Result<usize, Errno> {
        let n = if self.canonical() { self.input.read_line(dst) } else { self.input.read_raw(dst) };
        fx.master |= Events::WRITABLE;
        n
    }

    /// What FIONREAD says at the slave.
    pub fn readable_bytes(&self) -> usize {
        if self.canonical() { self.input.line_bytes() } else { self.input.len() }
    }

    /// Gives the master what was written and echoed; in packet mode behind a byte that says what it is.
    pub fn read_master(&mut self, dst: &mut IoSink<'_>, fx: &mut Effects) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        if self.packet && self.status != 0 {
            let n = dst.put(&[self.status])?;
            self.status = 0;
            return Ok(n);
        }
        if self.output.len() == 0 {
            return Err(if self.was_open && self.slaves == 0 { Errno::EIO } else { Errno::EAGAIN });
        }
        let mut read = if self.packet { dst.put(&[0])? } else { 0 };
        while dst.remaining() > 0 && self.output.len() > 0 {
            match dst.put(self.output.front()) {
                Ok(0) => break,
                Ok(n) => {
                    self.output.consume(n);
                    read += n;
                }
                Err(e) if read == 0 => return Err(e),
                Err(_) => break,
            }
        }
        fx.slave |= Events::WRITABLE;
        Ok(read)
    }

    pub fn flush_input(&mut self, fx: &mut Effects) {
        self.input.clear();
        self.erasing = false;
        self.literal = false;
        self.report(packet::FLUSHREAD, 0, fx);
        fx.master |= Events::WRITABLE;
    }

    pub fn flush_output(&mut self, fx: &mut Effects) {
        self.output.flush();
        self.report(packet::FLUSHWRITE, 0, fx);
        fx.slave |= Events::WRITABLE;
    }

    /// Tells a master in packet mode.
    pub fn report(&mut self, set: u8, clear: u8, fx: &mut Effects) {
        if self.packet {
            self.status = self.status & !clear | set;
            fx.master |= Events::READABLE | Events::PRI;
        }
    }

    pub fn stop_output(&mut self, fx: &mut Effects) {
        if !self.output.stopped {
            self.output.stopped = true;
            self.report(packet::STOP, packet::START, fx);
        }
    }

    pub fn start_output(&mut self, fx: &mut Effects) {
        if self.output.stopped {
            self.output.start();
            self.report(packet::START, packet::STOP, fx);
            fx.slave |= Events::WRITABLE;
            fx.master |= Events::READABLE;
        }
    }

    /// New settings (`n_tty_set_termios`, `pty_set_termios`).
    pub fn set_termios(&mut self, new: &Termios, fx: &mut Effects) {
        let old = self.termios;
        self.termios = new.normalised(&old);
        let new = self.termios;
        if (old.lflag ^ new.lflag) & (flag::ICANON | flag::EXTPROC) != 0 {
            if new.l(flag::ICANON) {
                self.input.enter_lines()
            } else {
                self.input.leave_lines()
            }
            self.erasing = false;
            self.literal = false;
        }
        if old.i(flag::IXON) && !new.i(flag::IXON) && !self.output.stopped_by_call {
            self.start_output(fx);
        }
        if old.flow_by_s_and_q() != new.flow_by_s_and_q() {
            let set = if new.flow_by_s_and_q() { packet::DOSTOP } else { packet::NOSTOP };
            self.report(set, packet::DOSTOP | packet::NOSTOP, fx);
        }
        if (old.lflag ^ new.lflag) & flag::EXTPROC != 0 {
            self.report(packet::IOCTL, 0, fx);
        }
        fx.slave |= Events::READABLE | Events::WRITABLE;
    }

    /// Readiness of the slave.
    pub fn poll_slave(&self) -> Events {
        let mut events = Events::default();
        if self.readable(true) {
            events |= Events::READABLE;
        }
        if !self.master_open {
            events |= Events::HUP;
        }
        if self.output.room() > 0 && self.master_open {
            events |= Events::WRITABLE;
        }
        events
    }

    /// Readiness of the master.
    pub fn poll_master(&self) -> Events {
        let mut events = Events::default();
        if self.output.len() > 0 {
            events |= Events::READABLE;
        }
        if self.packet && self.status != 0 {
            events |= Events::READABLE | Events::PRI;
        }
        if self.was_open && self.slaves == 0 {
            events |= Events::HUP;
        }
        if self.takes_input() {
            events |= Events::WRITABLE;
        }
        events
    }
}
