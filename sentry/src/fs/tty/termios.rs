//! Terminal settings (`termios(3)`, `include/uapi/asm-generic/termbits.h`).

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flag bits, named as in `termios(3)`; `libc`'s types differ between targets, so they stand here as `u32`.
#[allow(missing_docs, reason = "named as in termios(3)")]
pub mod flag {
    pub const ISTRIP: u32 = 0o40;
    pub const INLCR: u32 = 0o100;
    pub const IGNCR: u32 = 0o200;
    pub const ICRNL: u32 = 0o400;
    pub const IUCLC: u32 = 0o1000;
    pub const IXON: u32 = 0o2000;
    pub const IXANY: u32 = 0o4000;
    pub const IMAXBEL: u32 = 0o20000;
    pub const IUTF8: u32 = 0o40000;
    pub const PARMRK: u32 = 0o10;

    pub const OPOST: u32 = 0o1;
    pub const OLCUC: u32 = 0o2;
    pub const ONLCR: u32 = 0o4;
    pub const OCRNL: u32 = 0o10;
    pub const ONOCR: u32 = 0o20;
    pub const ONLRET: u32 = 0o40;
    pub const TABDLY: u32 = 0o14000;
    pub const XTABS: u32 = 0o14000;

    pub const B38400: u32 = 0o17;
    pub const CBAUD: u32 = 0o10017;
    pub const BOTHER: u32 = 0o10000;
    pub const CSIZE: u32 = 0o60;
    pub const CS8: u32 = 0o60;
    pub const CREAD: u32 = 0o200;
    pub const PARENB: u32 = 0o400;

    pub const ISIG: u32 = 0o1;
    pub const ICANON: u32 = 0o2;
    pub const ECHO: u32 = 0o10;
    pub const ECHOE: u32 = 0o20;
    pub const ECHOK: u32 = 0o40;
    pub const ECHONL: u32 = 0o100;
    pub const NOFLSH: u32 = 0o200;
    pub const TOSTOP: u32 = 0o400;
    pub const ECHOCTL: u32 = 0o1000;
    pub const ECHOPRT: u32 = 0o2000;
    pub const ECHOKE: u32 = 0o4000;
    pub const IEXTEN: u32 = 0o100000;
    pub const EXTPROC: u32 = 0o200000;
}

/// Indices into the control characters.
#[allow(missing_docs, reason = "named as in termios(3)")]
pub mod cc {
    pub const VINTR: usize = 0;
    pub const VQUIT: usize = 1;
    pub const VERASE: usize = 2;
    pub const VKILL: usize = 3;
    pub const VEOF: usize = 4;
    pub const VTIME: usize = 5;
    pub const VMIN: usize = 6;
    pub const VSTART: usize = 8;
    pub const VSTOP: usize = 9;
    pub const VSUSP: usize = 10;
    pub const VEOL: usize = 11;
    pub const VREPRINT: usize = 12;
    pub const VWERASE: usize = 14;
    pub const VLNEXT: usize = 15;
    pub const VEOL2: usize = 16;
}

/// A control character with this value is switched off (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = 0;

/// The kernel's `struct termios2`; `struct termios` is its first 36 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Serialize, Deserialize)]
#[repr(C)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline; always 0 (N_TTY).
    pub line: u8,
    /// Control characters.
    pub cc: [u8; 19],
    /// Input speed, baud.
    pub ispeed: u32,
    /// Output speed, baud.
    pub ospeed: u32,
}

/// Bytes of `struct termios`.
pub const TERMIOS_LEN: usize = 36;

impl Default for Termios {
    /// `tty_std_termios` with the control characters of `INIT_C_CC`.
    fn default() -> Self {
        use flag::*;
        let mut chars = [0u8; 19];
        chars[..17].copy_from_slice(b"\x03\x1c\x7f\x15\x04\x00\x01\x00\x11\x13\x1a\x00\x12\x0f\x17\x16\x00");
        Termios {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: B38400 | CS8 | CREAD,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc: chars,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

/// Speeds by their `B*` number: 0..=15, then 0o10001 and up.
const BAUDS: [u32; 31] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115_200, 230_400,
    460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000,
    4_000_000,
];

/// The speed that the CBAUD bits of `cflag` say; `None` for BOTHER, whose speed stands in its own field.
fn baud(cflag: u32) -> Option<u32> {
    let bits = cflag & flag::CBAUD;
    if bits == flag::BOTHER {
        return None;
    }
    let index = if bits & flag::BOTHER == 0 { bits } else { (bits & !flag::BOTHER) + 15 };
    Some(BAUDS.get(index as usize).copied().unwrap_or(0))
}

impl Termios {
    /// Whether an input mode is on.
    #[must_use]
    pub fn i(&self, bit: u32) -> bool {
        self.iflag & bit != 0
    }

    /// Whether an output mode is on.
    #[must_use]
    pub fn o(&self, bit: u32) -> bool {
        self.oflag & bit != 0
    }

    /// Whether a local mode is on.
    #[must_use]
    pub fn l(&self, bit: u32) -> bool {
        self.lflag & bit != 0
    }

    /// Whether `c` is the control character `index`, which is not switched off.
    #[must_use]
    pub fn is(&self, index: usize, c: u8) -> bool {
        c != DISABLED && self.cc[index] == c
    }

    /// What setting `new` leaves (`tty_set_termios`, `pty_set_termios`): a pty is 8 bits without parity, its line
    /// discipline and, unless BOTHER says one, its speeds follow from the rest.
    #[must_use]
    pub fn normalised(mut self, old: &Termios) -> Self {
        self.cflag = self.cflag & !(flag::CSIZE | flag::PARENB) | flag::CS8 | flag::CREAD;
        self.line = old.line;
        if let Some(speed) = baud(self.cflag) {
            self.ospeed = speed;
        }
        let input = (self.cflag >> 16) & flag::CBAUD;
        self.ispeed = match input {
            0 => self.ospeed,
            _ => baud(input).unwrap_or(self.ispeed),
        };
        self
    }

    /// Whether it stops and starts output by ^S and ^Q exactly, which packet mode reports.
    #[must_use]
    pub fn flow_by_s_and_q(&self) -> bool {
        self.i(flag::IXON) && self.cc[cc::VSTOP] == 0x13 && self.cc[cc::VSTART] == 0x11
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_speeds() {
        assert_eq!((size_of::<Termios>(), std::mem::offset_of!(Termios, ispeed)), (44, TERMIOS_LEN));
        assert_eq!((baud(0o15), baud(0o10002), baud(0o10000)), (Some(9600), Some(115_200), None));
        let old = Termios::default();
        let new = Termios { cflag: 0o15 | flag::PARENB, ..old }.normalised(&old);
        assert_eq!((new.ospeed, new.ispeed, new.cflag & flag::PARENB), (9600, 9600, 0));
    }
}
