//! Output: what programs write and what is echoed, processed, on its way to the terminal.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::fs::tty::termios::{Termios, flag};

/// Bytes that may wait before writers do.
pub const CAPACITY: usize = 16 << 10;
/// Echoes may go this far beyond; then they are lost, as in a full echo buffer of Linux.
const ECHO_ROOM: usize = 4096;
/// A flush leaves what the terminal's own buffer would hold by now: Linux flushes the pty's buffer, not the master's.
const BEYOND_FLUSH: usize = 4096;

/// The output side of a terminal.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Output {
    queue: VecDeque<u8>,
    /// Echoes made while output is stopped.
    held: VecDeque<u8>,
    column: usize,
    /// The column where the line being edited begins.
    pub canon_column: usize,
    /// Stopped by VSTOP or TCOOFF.
    pub stopped: bool,
    /// By TCOOFF: only TCOON starts it again.
    pub stopped_by_call: bool,
}

pub(super) fn is_control(c: u8) -> bool {
    c < 0x20 || c == 0x7f
}

/// Whether `c` goes on with a UTF-8 character, under IUTF8.
pub(super) fn is_continuation(c: u8, termios: &Termios) -> bool {
    termios.i(flag::IUTF8) && c & 0xc0 == 0x80
}

impl Output {
    /// Whether it can be what was written: of a snapshot nothing is known.
    pub fn is_sound(&self) -> bool {
        let most = 2 * (CAPACITY + ECHO_ROOM);
        let columns = self.column.max(self.canon_column);
        self.queue.len() <= most && self.held.len() <= most && columns <= usize::MAX / 2
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes a writer may add.
    pub fn room(&self) -> usize {
        if self.stopped { 0 } else { CAPACITY.saturating_sub(self.queue.len()) }
    }

    /// The first bytes, contiguous.
    pub fn front(&self) -> &[u8] {
        self.queue.as_slices().0
    }

    pub fn consume(&mut self, n: usize) {
        self.queue.drain(..n.min(self.queue.len()));
        if self.queue.is_empty() {
            self.queue.shrink_to(1024);
        }
    }

    pub fn clear(&mut self) {
        self.queue.clear();
        self.held.clear();
    }

    /// Drops what has not left the pty yet (TCOFLUSH, interrupt keys).
    pub fn flush(&mut self) {
        self.queue.truncate(BEYOND_FLUSH);
        self.held.clear();
    }

    pub fn start(&mut self) {
        self.stopped = false;
        self.queue.append(&mut self.held);
    }

    /// Sends a byte past all that waits unprocessed (XON and XOFF of TCXONC).
    pub fn send(&mut self, c: u8) {
        if self.queue.len() < CAPACITY + ECHO_ROOM {
            self.queue.push_back(c);
        }
    }

    /// Writes what a program gives, as far as there is room; answers how many of its bytes were taken.
    pub fn write(&mut self, bytes: &[u8], termios: &Termios) -> usize {
        let mut taken = 0;
        for c in bytes {
            // The longest expansion is a tab of eight blanks.
            if self.room() < if termios.o(flag::OPOST) { 8 } else { 1 } {
                break;
            }
            self.process(*c, termios, false);
            taken += 1;
        }
        taken
    }

    /// Echoes a byte as it is but for output processing.
    pub fn echo_raw(&mut self, c: u8, termios: &Termios) {
        if self.queue.len() + self.held.len() < CAPACITY + ECHO_ROOM {
            self.process(c, termios, true);
        }
    }

    /// Echoes a byte, control characters as `^X` where ECHOCTL says so.
    pub fn echo(&mut self, c: u8, termios: &Termios) {
        if termios.l(flag::ECHOCTL) && is_control(c) && c != b'\t' {
            self.echo_raw(b'^', termios);
            self.echo_raw(c ^ 0o100, termios);
        } else {
            self.echo_raw(c, termios);
        }
    }

    /// Moves back over a tab that followed `columns` columns, counted from the tab before or from the line's start.
    pub fn echo_erase_tab(&mut self, columns: usize, after_tab: bool, termios: &Termios) {
        let columns = if after_tab { columns } else { columns + self.canon_column };
        for _ in 0..8 - (columns & 7) {
            self.echo_raw(b'\x08', termios);
        }
    }

    /// Notes that the line being edited begins here.
    pub fn mark_line(&mut self) {
        self.canon_column = self.column;
    }

    fn put(&mut self, c: u8, echo: bool) {
        if echo && self.stopped { self.held.push_back(c) } else { self.queue.push_back(c) }
    }

    /// `do_output_char` of `n_tty.c`.
    fn process(&mut self, mut c: u8, termios: &Termios, echo: bool) {
        if !termios.o(flag::OPOST) {
            return self.put(c, echo);
        }
        match c {
            b'\n' => {
                if termios.o(flag::ONLRET | flag::ONLCR) {
                    self.column = 0;
                }
                if termios.o(flag::ONLCR) {
                    self.put(b'\r', echo);
                }
                self.canon_column = self.column;
            }
            b'\r' => {
                if termios.o(flag::ONOCR) && self.column == 0 {
                    return;
                }
                if termios.o(flag::OCRNL) {
                    c = b'\n';
                }
                if !termios.o(flag::OCRNL) || termios.o(flag::ONLRET) {
                    (self.column, self.canon_column) = (0, 0);
                }
            }
            b'\t' => {
                let blanks = 8 - (self.column & 7);
                self.column += blanks;
                if termios.oflag & flag::TABDLY == flag::XTABS {
                    return (0..blanks).for_each(|_| self.put(b' ', echo));
                }
            }
            b'\x08' => self.column = self.column.saturating_sub(1),
            _ if !is_control(c) => {
                if termios.o(flag::OLCUC) {
                    c = c.to_ascii_uppercase();
                }
                self.column += usize::from(!is_continuation(c, termios));
            }
            _ => {}
        }
        self.put(c, echo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8], oflag: u32) -> Vec<u8> {
        let mut output = Output::default();
        let termios = Termios { oflag, ..Termios::default() };
        assert_eq!(output.write(text, &termios), text.len());
        output.queue.into_iter().collect()
    }

    #[test]
    fn output_modes() {
        use flag::*;
        assert_eq!(shown(b"a\nb", OPOST | ONLCR), b"a\r\nb");
        assert_eq!(shown(b"a\nb", ONLCR), b"a\nb");
        assert_eq!(shown(b"\ra\r", OPOST | ONOCR), b"a\r");
        assert_eq!(shown(b"a\rb", OPOST | OCRNL), b"a\nb");
        assert_eq!(shown(b"ab\tc", OPOST | XTABS), b"ab      c");
        assert_eq!(shown(b"ab", OPOST | OLCUC), b"AB");
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut output = Output::default();
        let termios = Termios::default();
        let taken = output.write(&vec![b'x'; CAPACITY * 2], &termios);
        assert!(taken <= CAPACITY && taken > CAPACITY - 8);
        output.echo_raw(b'y', &termios);
        assert_eq!(output.len(), taken + 1);
    }
}
