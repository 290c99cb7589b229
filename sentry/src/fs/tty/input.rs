//! What was typed and not read yet: bytes, with the ends of lines.

use std::collections::VecDeque;

use abi::Errno;
use serde::{Deserialize, Serialize};

use crate::vfs::IoSink;

/// Bytes that may wait, one less than N_TTY_BUF_SIZE: the last place is for a newline.
pub const LIMIT: usize = 4095;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Typed {
    byte: u8,
    end: End,
}

/// Whether a byte ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It does not.
    No,
    /// It does, and belongs to it.
    Line,
    /// It does and is not shown (VEOF).
    File,
}

/// The input queue.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Input {
    bytes: VecDeque<Typed>,
    /// How many of them, from the front, lie in finished lines.
    finished: usize,
}

impl Input {
    /// Whether it can be what was typed: of a snapshot nothing is known.
    pub fn is_sound(&self) -> bool {
        self.finished <= self.bytes.len() && self.bytes.len() <= 2 * LIMIT
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a canonical read has something: a line or an end of file.
    pub fn has_line(&self) -> bool {
        self.finished > 0
    }

    /// Bytes of the line being edited.
    pub fn unfinished(&self) -> usize {
        self.bytes.len() - self.finished
    }

    /// What FIONREAD says in canonical mode: bytes of finished lines, without ends of file.
    pub fn line_bytes(&self) -> usize {
        self.bytes.iter().take(self.finished).filter(|t| t.end != End::File).count()
    }

    pub fn push(&mut self, byte: u8, end: End) {
        self.bytes.push_back(Typed { byte, end });
        if end != End::No {
            self.finished = self.bytes.len();
        }
    }

    /// Byte `index` of the line being edited, from its end.
    pub fn nth_back(&self, index: usize) -> Option<u8> {
        if index >= self.unfinished() {
            return None;
        }
        self.bytes.get(self.bytes.len() - 1 - index).map(|t| t.byte)
    }

    /// The line being edited.
    pub fn line(&self) -> Vec<u8> {
        self.bytes.iter().skip(self.finished).map(|t| t.byte).collect()
    }

    /// Drops the last `n` bytes of the line being edited.
    pub fn erase(&mut self, n: usize) {
        let keep = self.bytes.len() - n.min(self.unfinished());
        self.bytes.truncate(keep);
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.finished = 0;
    }

    /// After ICANON was switched off: ends of lines mean nothing any more. An end of file becomes the byte that typed
    /// it no more: it stays as a NUL, as in Linux's buffer.
    pub fn leave_lines(&mut self) {
        self.bytes.iter_mut().for_each(|t| t.end = End::No);
        self.finished = 0;
    }

    /// After ICANON was switched on: what waits can be read as one line.
    pub fn enter_lines(&mut self) {
        self.leave_lines();
        if let Some(last) = self.bytes.back_mut() {
            last.end = End::Line;
            self.finished = self.bytes.len();
        }
    }

    /// Reads the first line, or as much of it as fits. An end of file directly behind the last byte that fits goes
    /// with it, so that it is not seen as one of its own.
    pub fn read_line(&mut self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        let mut read = 0;
        while let Some(typed) = self.bytes.front().copied().filter(|_| self.finished > 0) {
            if typed.end != End::File {
                if dst.remaining() == 0 {
                    break;
                }
                match dst.put(&[typed.byte]) {
                    Ok(0) => break,
                    Ok(n) => read += n,
                    Err(e) => return if read > 0 { Ok(read) } else { Err(e) },
                }
            }
            self.bytes.pop_front();
            self.finished -= 1;
            if typed.end != End::No {
                break;
            }
        }
        Ok(read)
    }

    /// Reads whatever waits.
    pub fn read_raw(&mut self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        let n = dst.remaining().min(self.bytes.len());
        let chunk: Vec<u8> = self.bytes.iter().take(n).map(|t| t.byte).collect();
        let put = dst.put(&chunk)?;
        self.bytes.drain(..put);
        self.finished = self.finished.saturating_sub(put);
        Ok(put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &[u8]) -> Input {
        let mut input = Input::default();
        for b in text {
            let end = match *b {
                b'\n' => End::Line,
                0 => End::File,
                _ => End::No,
            };
            input.push(*b, end);
        }
        input
    }

    fn read(input: &mut Input, room: usize) -> Vec<u8> {
        let mut out = vec![0; room];
        let n = input.read_line(&mut IoSink::kernel(&mut out)).unwrap_or(0);
        out.truncate(n);
        out
    }

    #[test]
    fn lines_come_one_by_one_and_in_pieces() {
        let mut input = typed(b"ab\ncdef\ngh");
        assert_eq!(read(&mut input, 10), b"ab\n");
        assert_eq!(read(&mut input, 3), b"cde");
        assert_eq!(read(&mut input, 10), b"f\n");
        assert!(!input.has_line());
        assert_eq!(input.line(), b"gh");
    }

    #[test]
    fn an_end_of_file_is_seen_once() {
        let mut input = typed(b"abc\0\0x");
        assert_eq!(input.line_bytes(), 3);
        assert_eq!(read(&mut input, 3), b"abc");
        assert!(input.has_line());
        assert_eq!(read(&mut input, 3), b"");
        assert!(!input.has_line());
    }
}
