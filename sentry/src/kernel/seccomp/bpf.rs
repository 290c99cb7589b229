//! Classic BPF as seccomp has it: checked once, then run (`kernel/seccomp.c`, `net/core/filter.c`).

use abi::Errno;

/// Most instructions of a program (`BPF_MAXINSNS`).
pub const MAX_LEN: usize = 4096;
/// Bytes of `struct seccomp_data`.
pub const DATA_LEN: u32 = 64;
const SCRATCH: usize = 16;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

impl Insn {
    /// From guest bytes.
    #[must_use]
    pub fn from_bytes(b: [u8; 8]) -> Self {
        Insn {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}

/// What `struct seccomp_data` says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// System call number.
    pub nr: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Address behind the `syscall` instruction.
    pub ip: u64,
    /// Arguments.
    pub args: [u64; 6],
}

impl Data {
    /// The aligned word at byte `offset`.
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64| {
            let bytes = value.to_le_bytes();
            let at = (offset & 4) as usize;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => half(self.ip),
            _ => half(self.args.get(((offset - 16) / 8) as usize).copied().unwrap_or(0)),
        }
    }
}

/// Operation codes.
mod op {
    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_W_LEN: u16 = 0x80;
    pub const LDX_W_LEN: u16 = 0x81;
    pub const LD_IMM: u16 = 0x00;
    pub const LDX_IMM: u16 = 0x01;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const NEG: u16 = 0x84;
    pub const JA: u16 = 0x05;
    /// Class of arithmetic and of jumps; the operation is in the high nibble, bit 3 says X instead of K.
    pub const ALU: u16 = 0x04;
    pub const JMP: u16 = 0x05;
    pub const X: u16 = 0x08;
    pub const DIV: u16 = 0x30;
    pub const LSH: u16 = 0x60;
    pub const RSH: u16 = 0x70;
}

/// A checked program: every jump lands inside, every load is in bounds, the last instruction returns.
#[derive(Debug)]
pub struct Program(Box<[Insn]>);

fn is_alu(code: u16) -> bool {
    // ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, XOR; not MOD.
    code & 7 == op::ALU && matches!(code & 0xf0, 0x00..=0x70 | 0xa0) && code & 0xff07 == op::ALU
}

fn is_cond(code: u16) -> bool {
    // JEQ, JGT, JGE, JSET.
    code & 7 == op::JMP && matches!(code & 0xf0, 0x10..=0x40) && code & 0xff07 == op::JMP
}

fn check_insn(insn: Insn, at: usize, len: usize) -> Result<(), Errno> {
    let good = match insn.code {
        op::LD_W_ABS => insn.k.is_multiple_of(4) && insn.k < DATA_LEN,
        op::LD_W_LEN | op::LDX_W_LEN | op::LD_IMM | op::LDX_IMM => true,
        op::LD_MEM | op::LDX_MEM | op::ST | op::STX => (insn.k as usize) < SCRATCH,
        op::RET_K | op::RET_A | op::TAX | op::TXA | op::NEG => true,
        op::JA => (insn.k as usize) < len - at - 1,
        code if is_alu(code) => match code & (0xf0 | op::X) {
            op::DIV => insn.k != 0,
            op::LSH | op::RSH => insn.k < 32,
            _ => true,
        },
        code if is_cond(code) => {
            let far = usize::from(insn.jt.max(insn.jf));
            at + 1 + far < len
        }
        _ => false,
    };
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

/// No scratch word is read that no path has written (`check_load_and_stores`).
fn check_scratch(insns: &[Insn]) -> Result<(), Errno> {
    let mut masks = vec![u16::MAX; insns.len()];
    let mut valid = 0u16;
    for (at, insn) in insns.iter().enumerate() {
        valid &= masks[at];
        let bit = 1u16.checked_shl(insn.k).unwrap_or(0);
        let mut reach = |target: usize, valid: u16| {
            if let Some(mask) = masks.get_mut(target) {
                *mask &= valid;
            }
        };
        match insn.code {
            op::ST | op::STX => valid |= bit,
            op::LD_MEM | op::LDX_MEM if valid & bit == 0 => return Err(Errno::EINVAL),
            op::JA => {
                reach(at + 1 + insn.k as usize, valid);
                valid = u16::MAX;
            }
            code if is_cond(code) => {
                reach(at + 1 + usize::from(insn.jt), valid);
                reach(at + 1 + usize::from(insn.jf), valid);
                valid = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

impl Program {
    /// Its instructions.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.0
    }

    /// Checks a program.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn new(insns: Vec<Insn>) -> Result<Self, Errno> {
        let len = insns.len();
        if len == 0 || len > MAX_LEN {
            return Err(Errno::EINVAL);
        }
        for (at, insn) in insns.iter().enumerate() {
            check_insn(*insn, at, len)?;
        }
        check_scratch(&insns)?;
        match insns.last().map(|i| i.code) {
            Some(op::RET_K | op::RET_A) => Ok(Program(insns.into())),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none, which [`Program::new`] refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs it to its answer.
    #[must_use]
    pub fn run(&self, data: &Data) -> u32 {
        let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; SCRATCH]);
        let mut at = 0usize;
        // Jumps go forward only, so this ends.
        while let Some(insn) = self.0.get(at) {
            at += 1;
            let k = insn.k;
            let slot = (k as usize) % SCRATCH;
            match insn.code {
                op::LD_W_ABS => a = data.word(k),
                op::LD_W_LEN => a = DATA_LEN,
                op::LDX_W_LEN => x = DATA_LEN,
                op::LD_IMM => a = k,
                op::LDX_IMM => x = k,
                op::LD_MEM => a = scratch[slot],
                op::LDX_MEM => x = scratch[slot],
                op::ST => scratch[slot] = a,
                op::STX => scratch[slot] = x,
                op::RET_K => return k,
                op::RET_A => return a,
                op::TAX => x = a,
                op::TXA => a = x,
                op::NEG => a = a.wrapping_neg(),
                op::JA => at += k as usize,
                code => {
                    let with = if code & op::X != 0 { x } else { k };
                    if code & 7 == op::JMP {
                        at += usize::from(if compare(code, a, with) { insn.jt } else { insn.jf });
                    } else {
                        match compute(code, a, with) {
                            Some(value) => a = value,
                            // Division by a zero in X ends the program with 0.
                            None => return 0,
                        }
                    }
                }
            }
        }
        0
    }
}

fn compare(code: u16, a: u32, with: u32) -> bool {
    match code & 0xf0 {
        0x10 => a == with,
        0x20 => a > with,
        0x30 => a >= with,
        _ => a & with != 0,
    }
}

fn compute(code: u16, a: u32, with: u32) -> Option<u32> {
    Some(match code & 0xf0 {
        0x00 => a.wrapping_add(with),
        0x10 => a.wrapping_sub(with),
        0x20 => a.wrapping_mul(with),
        0x30 => a.checked_div(with)?,
        0x40 => a | with,
        0x50 => a & with,
        0x60 => a.wrapping_shl(with),
        0x70 => a.wrapping_shr(with),
        _ => a ^ with,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    const DATA: Data = Data { nr: 39, arch: 0xc000_003e, ip: 0x1_0000_0002, args: [1, 2 << 32, 3, 4, 5, 6] };

    #[test]
    fn answers_by_number_and_argument() {
        let program = Program::new(vec![
            insn(op::LD_W_ABS, 0, 0, 0),
            insn(0x15, 0, 1, 39),
            insn(op::RET_K, 0, 0, 7),
            insn(op::RET_K, 0, 0, 8),
        ])
        .unwrap();
        assert_eq!(program.run(&DATA), 7);
        assert_eq!(program.run(&Data { nr: 1, ..DATA }), 8);
        assert_eq!((DATA.word(8), DATA.word(12), DATA.word(24), DATA.word(28)), (2, 1, 0, 2));
    }

    #[test]
    fn refuses_what_could_go_wrong() {
        let ret = insn(op::RET_K, 0, 0, 0);
        for bad in [
            vec![],
            vec![insn(op::LD_W_ABS, 0, 0, 64), ret],
            vec![insn(op::LD_W_ABS, 0, 0, 2), ret],
            vec![insn(op::JA, 0, 0, 1), ret],
            vec![insn(0x15, 1, 0, 0), ret],
            vec![insn(op::LD_MEM, 0, 0, 3), ret],
            vec![insn(op::ST, 0, 0, 16), ret],
            vec![insn(0x34, 0, 0, 0), ret],
            vec![insn(0x94, 0, 0, 3), ret],
            vec![insn(op::LD_IMM, 0, 0, 0)],
        ] {
            assert!(Program::new(bad.clone()).is_err(), "{bad:?}");
        }
        let divides = Program::new(vec![insn(op::LDX_IMM, 0, 0, 0), insn(0x3c, 0, 0, 0), insn(op::RET_K, 0, 0, 9)]);
        assert_eq!(divides.unwrap().run(&DATA), 0);
    }
}
