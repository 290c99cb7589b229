//! The N_TTY line discipline: from bytes typed to what programs read (`drivers/tty/n_tty.c`).

use crate::fs::tty::input::{End, LIMIT};
use crate::fs::tty::output::{is_continuation, is_control};
use crate::fs::tty::state::{Effects, State, packet};
use crate::fs::tty::termios::{cc, flag};
use crate::kernel::wait::Events;

/// What an erasing key takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kill {
    Char,
    Word,
    Line,
}

/// `isalnum` of the kernel's ctype table, which is Latin-1's.
fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || (c >= 0xc0 && c != 0xd7 && c != 0xf7)
}

impl State {
    /// Whether one more typed byte is taken. A full queue takes bytes only where no line is finished, so that a
    /// newline can get in.
    pub fn takes_input(&self) -> bool {
        self.input.len() < LIMIT || (self.termios.l(flag::ICANON) && !self.input.has_line())
    }

    /// Bytes that are taken for sure.
    pub fn input_room(&self) -> usize {
        // PARMRK may double each.
        LIMIT.saturating_sub(self.input.len()) / if self.termios.i(flag::PARMRK) { 2 } else { 1 }
    }

    /// Bytes arrive from the terminal; answers how many were taken.
    pub fn receive(&mut self, bytes: &[u8], fx: &mut Effects) -> usize {
        let mut taken = 0;
        for c in bytes {
            if !self.takes_input() {
                break;
            }
            if self.input.len() > LIMIT {
                self.input.erase(1);
            }
            self.receive_one(*c, fx);
            taken += 1;
        }
        // Whoever is in the middle of a read takes what it has not got yet, be it less than VMIN.
        if self.readable(false) {
            fx.slave |= Events::READABLE;
        }
        if self.output.len() > 0 {
            fx.master |= Events::READABLE;
        }
        taken
    }

    fn receive_one(&mut self, mut c: u8, fx: &mut Effects) {
        if self.termios.i(flag::ISTRIP) {
            c &= 0x7f;
        }
        if self.termios.i(flag::IUCLC) && self.termios.l(flag::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if self.termios.l(flag::EXTPROC) {
            return self.input.push(c, End::No);
        }
        if std::mem::take(&mut self.literal) {
            return self.plain(c, fx);
        }
        if self.flow_key(c, fx) || self.signal_key(c, fx) {
            return;
        }
        self.restart_by_any(fx);
        if c == b'\r' {
            if self.termios.i(flag::IGNCR) {
                return;
            }
            if self.termios.i(flag::ICRNL) {
                c = b'\n';
            }
        } else if c == b'\n' && self.termios.i(flag::INLCR) {
            c = b'\r';
        }
        if self.termios.l(flag::ICANON) && self.canonical_key(c) {
            return;
        }
        if c == b'\n' && self.termios.l(flag::ECHO) {
            self.finish_erasing();
            self.output.echo_raw(c, &self.termios);
            return self.push_data(c);
        }
        self.plain(c, fx);
    }

    /// A byte that means nothing special.
    fn plain(&mut self, c: u8, fx: &mut Effects) {
        self.restart_by_any(fx);
        self.echo_data(c);
        self.push_data(c);
    }

    fn push_data(&mut self, c: u8) {
        if c == 0xff && self.termios.i(flag::PARMRK) {
            self.input.push(c, End::No);
        }
        self.input.push(c, End::No);
    }

    fn echo_data(&mut self, c: u8) {
        if self.termios.l(flag::ECHO) {
            self.finish_erasing();
            if self.input.unfinished() == 0 || !self.termios.l(flag::ICANON) {
                self.output.mark_line();
            }
            self.output.echo(c, &self.termios);
        }
    }

    fn restart_by_any(&mut self, fx: &mut Effects) {
        let any = self.termios.i(flag::IXON) && self.termios.i(flag::IXANY);
        if any && self.output.stopped && !self.output.stopped_by_call {
            self.start_output(fx);
        }
    }

    /// VSTART and VSTOP.
    fn flow_key(&mut self, c: u8, fx: &mut Effects) -> bool {
        if !self.termios.i(flag::IXON) {
            return false;
        }
        if self.termios.is(cc::VSTART, c) {
            if !self.output.stopped_by_call {
                self.start_output(fx);
            }
            return true;
        }
        let stop = self.termios.is(cc::VSTOP, c);
        if stop {
            self.stop_output(fx);
        }
        stop
    }

    /// VINTR, VQUIT and VSUSP.
    fn signal_key(&mut self, c: u8, fx: &mut Effects) -> bool {
        if !self.termios.l(flag::ISIG) {
            return false;
        }
        let keys = [(cc::VINTR, libc::SIGINT), (cc::VQUIT, libc::SIGQUIT), (cc::VSUSP, libc::SIGTSTP)];
        let Some((_, signo)) = keys.into_iter().find(|(key, _)| self.termios.is(*key, c)) else { return false };
        fx.signals.push(signo);
        if !self.termios.l(flag::NOFLSH) {
            self.output.flush();
            self.flush_input(fx);
            self.report(packet::FLUSHWRITE, 0, fx);
        }
        if self.termios.i(flag::IXON) && !self.output.stopped_by_call {
            self.start_output(fx);
        }
        if self.termios.l(flag::ECHO) {
            self.output.echo(c, &self.termios);
        }
        true
    }

    /// Keys of canonical mode; answers whether `c` was one.
    fn canonical_key(&mut self, c: u8) -> bool {
        let extended = self.termios.l(flag::IEXTEN);
        let echo = self.termios.l(flag::ECHO);
        if self.termios.is(cc::VERASE, c) {
            self.erase(Kill::Char);
        } else if self.termios.is(cc::VKILL, c) {
            self.erase(Kill::Line);
        } else if extended && self.termios.is(cc::VWERASE, c) {
            self.erase(Kill::Word);
        } else if extended && self.termios.is(cc::VLNEXT, c) {
            self.literal = true;
            if echo {
                self.finish_erasing();
                if self.termios.l(flag::ECHOCTL) {
                    self.output.echo_raw(b'^', &self.termios);
                    self.output.echo_raw(b'\x08', &self.termios);
                }
            }
        } else if extended && echo && self.termios.is(cc::VREPRINT, c) {
            self.finish_erasing();
            self.output.echo(c, &self.termios);
            self.output.echo_raw(b'\n', &self.termios);
            for byte in self.input.line() {
                self.output.echo(byte, &self.termios);
            }
        } else if c == b'\n' {
            if self.termios.l(flag::ECHO | flag::ECHONL) {
                self.output.echo_raw(b'\n', &self.termios);
            }
            self.input.push(c, End::Line);
        } else if self.termios.is(cc::VEOF, c) {
            self.input.push(0, End::File);
        } else if self.termios.is(cc::VEOL, c) || (extended && self.termios.is(cc::VEOL2, c)) {
            self.echo_data(c);
            self.input.push(c, End::Line);
        } else {
            return false;
        }
        true
    }

    /// Ends a run of ECHOPRT's erased characters.
    fn finish_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.output.echo_raw(b'/', &self.termios);
        }
    }

    fn erase(&mut self, kill: Kill) {
        let termios = self.termios;
        let echo = termios.l(flag::ECHO);
        if self.input.unfinished() == 0 {
            return;
        }
        if kill == Kill::Line && !(echo && termios.l(flag::ECHOK) && termios.l(flag::ECHOKE) && termios.l(flag::ECHOE))
        {
            self.input.erase(self.input.unfinished());
            if echo {
                self.finish_erasing();
                self.output.echo(termios.cc[cc::VKILL], &termios);
                if termios.l(flag::ECHOK) {
                    self.output.echo_raw(b'\n', &termios);
                }
            }
            return;
        }
        let mut in_word = false;
        while let Some(character) = self.last_character() {
            let c = character[0];
            if kill == Kill::Word {
                if is_word(c) {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            self.input.erase(character.len());
            if echo {
                self.echo_erased(&character, kill);
            }
            if kill == Kill::Char {
                break;
            }
        }
        if self.input.unfinished() == 0 && echo {
            self.finish_erasing();
        }
    }

    /// The bytes of the last character of the line being edited; `None` where there is no whole one.
    fn last_character(&self) -> Option<Vec<u8>> {
        let mut n = 0;
        loop {
            let c = self.input.nth_back(n)?;
            n += 1;
            if !is_continuation(c, &self.termios) {
                return Some((0..n).rev().filter_map(|i| self.input.nth_back(i)).collect());
            }
        }
    }

    fn echo_erased(&mut self, character: &[u8], kill: Kill) {
        let termios = self.termios;
        let c = character[0];
        if termios.l(flag::ECHOPRT) {
            if !self.erasing {
                self.output.echo_raw(b'\\', &termios);
                self.erasing = true;
            }
            self.output.echo(c, &termios);
            character[1..].iter().for_each(|b| self.output.echo_raw(*b, &termios));
        } else if kill == Kill::Char && !termios.l(flag::ECHOE) {
            self.output.echo(termios.cc[cc::VERASE], &termios);
        } else if c == b'\t' {
            let (columns, after_tab) = self.columns_before_tab();
            self.output.echo_erase_tab(columns, after_tab, &termios);
        } else {
            let cells = match (is_control(c), termios.l(flag::ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            for _ in 0..cells {
                b"\x08 \x08".iter().for_each(|b| self.output.echo_raw(*b, &termios));
            }
        }
    }

    /// Columns of the line being edited back to a tab or to its start.
    fn columns_before_tab(&self) -> (usize, bool) {
        let mut columns = 0;
        let mut index = 0;
        while let Some(c) = self.input.nth_back(index) {
            if c == b'\t' {
                return (columns, true);
            }
            columns += match (is_control(c), self.termios.l(flag::ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => usize::from(!is_continuation(c, &self.termios)),
            };
            index += 1;
        }
        (columns, false)
    }
}
