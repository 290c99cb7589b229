//! Whether an instruction stores to the address it faulted at.
//!
//! The host does not hand out the page fault's error code. For a page that is not there this looks at the
//! instruction itself, and claims a store only for forms it knows; all else counts as a load, and the retry tells. The
//! bytes are the guest's and may change under us: then it misleads nobody but itself.

use platform::UserRegs;

/// Whether `code`, the bytes at rip, is an instruction that stores to `addr`.
pub fn is_store(code: &[u8], regs: &UserRegs, addr: u64) -> bool {
    look(code, regs, addr).unwrap_or(false)
}

/// `None` where the bytes end early.
fn look(code: &[u8], regs: &UserRegs, addr: u64) -> Option<bool> {
    let mut at = 0;
    let mut repeat = 0;
    loop {
        match *code.get(at)? {
            p @ (0xf2 | 0xf3) => repeat = p,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 => {}
            _ => break,
        }
        at += 1;
    }
    if *code.get(at)? & 0xf0 == 0x40 {
        at += 1;
    }
    let rest = code.get(at + 1..)?;
    match *code.get(at)? {
        0x0f => two_byte(*rest.first()?, rest.get(1..)?, repeat == 0xf3),
        // VEX and EVEX, map 0f.
        0xc5 => vector(*rest.get(1)?, rest.get(2..)?, rest[0] & 3 == 2),
        0xc4 if rest.first()? & 0x1f == 1 => vector(*rest.get(2)?, rest.get(3..)?, rest[1] & 3 == 2),
        0x62 if rest.first()? & 7 == 1 => vector(*rest.get(3)?, rest.get(4..)?, rest[1] & 3 == 2),
        op => one_byte(op, rest, regs, addr),
    }
}

/// The operand of a ModRM byte is memory; and the byte's reg field.
fn memory(rest: &[u8]) -> Option<(bool, u8)> {
    let modrm = *rest.first()?;
    Some((modrm >> 6 != 3, modrm >> 3 & 7))
}

fn one_byte(op: u8, rest: &[u8], regs: &UserRegs, addr: u64) -> Option<bool> {
    let pushes = || Some(regs.rsp.wrapping_sub(addr).wrapping_sub(1) < 8);
    match op {
        // push, call
        0x50..=0x57 | 0x68 | 0x6a | 0xe8 => return pushes(),
        // stos, mov moffs
        0xaa | 0xab | 0xa2 | 0xa3 => return Some(true),
        // movs: the other operand may be the one that is missing
        0xa4 | 0xa5 => return Some(addr.wrapping_sub(regs.rdi) < 8 && addr.wrapping_sub(regs.rsi) >= 8),
        _ => {}
    }
    let (is_memory, reg) = memory(rest)?;
    let stores = match op {
        // add, or, adc, sbb, and, sub, xor r/m, reg (38 and 39 are cmp); xchg; mov
        0x00..=0x37 => op & 6 == 0,
        0x80 | 0x81 | 0x83 => reg != 7,
        0x86..=0x89 | 0xc0 | 0xc1 | 0xd0..=0xd3 => true,
        0xc6 | 0xc7 | 0x8f => reg == 0,
        0xf6 | 0xf7 => reg == 2 || reg == 3,
        0xfe | 0xff if reg < 2 => true,
        // call and push with a memory operand
        0xff if reg == 2 || reg == 6 => return pushes(),
        _ => false,
    };
    Some(is_memory && stores)
}

fn two_byte(op: u8, rest: &[u8], f3: bool) -> Option<bool> {
    let (is_memory, reg) = memory(rest)?;
    let stores = match op {
        // setcc, bts, shld, shrd, cmpxchg, btr, btc, xadd, movnti
        0x90..=0x9f | 0xab | 0xa4 | 0xa5 | 0xac | 0xad | 0xb0 | 0xb1 | 0xb3 | 0xbb | 0xc0 | 0xc1 | 0xc3 => true,
        0xba => reg >= 5,
        0xc7 => reg == 1,
        _ => return vector(op, rest, f3),
    };
    Some(is_memory && stores)
}

/// Moves from vector registers. `7e` is a store but with the prefix f3.
fn vector(op: u8, rest: &[u8], f3: bool) -> Option<bool> {
    let stores = matches!(op, 0x11 | 0x13 | 0x17 | 0x29 | 0x2b | 0x7f | 0xd6 | 0xe7) || (op == 0x7e && !f3);
    Some(memory(rest)?.0 && stores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_loads() {
        let regs = UserRegs { rsp: 0x2000, rdi: 0x5000, rsi: 0x6000, ..UserRegs::new() };
        let stores: [(&[u8], u64); 16] = [
            (&[0x48, 0x89, 0x07], 0x5000),
            (&[0xc7, 0x07, 1, 0, 0, 0], 0x5000),
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x5000),
            (&[0xf3, 0xaa], 0x5000),
            (&[0xf3, 0x48, 0xa5], 0x5000),
            (&[0x55], 0x1ff8),
            (&[0xe8, 0, 0, 0, 0], 0x1ff8),
            (&[0x0f, 0x11, 0x07], 0x5000),
            (&[0x66, 0x0f, 0x7f, 0x07], 0x5000),
            (&[0xc5, 0xfe, 0x7f, 0x07], 0x5000),
            (&[0xc4, 0xc1, 0x7e, 0x7f, 0x07], 0x5000),
            (&[0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x07], 0x5000),
            (&[0xff, 0x07], 0x5000),
            (&[0x83, 0x07, 1], 0x5000),
            (&[0x66, 0x0f, 0xd6, 0x07], 0x5000),
            (&[0x0f, 0x94, 0x07], 0x5000),
        ];
        for (code, addr) in stores {
            assert!(is_store(code, &regs, addr), "{code:x?}");
        }
        let loads: [(&[u8], u64); 14] = [
            (&[0x48, 0x8b, 0x07], 0x5000),
            (&[0x48, 0x39, 0x07], 0x5000),
            (&[0x83, 0x3f, 1], 0x5000),
            (&[0xf3, 0x48, 0xa5], 0x6000),
            (&[0xff, 0x17], 0x5000),
            (&[0xff, 0x27], 0x5000),
            (&[0x58], 0x2000),
            (&[0x0f, 0x10, 0x07], 0x5000),
            (&[0xf3, 0x0f, 0x7e, 0x07], 0x5000),
            (&[0xc5, 0xfe, 0x6f, 0x07], 0x5000),
            (&[0x0f, 0xb6, 0x07], 0x5000),
            (&[0x03, 0x07], 0x5000),
            (&[0x48], 0x5000),
            (&[], 0),
        ];
        for (code, addr) in loads {
            assert!(!is_store(code, &regs, addr), "{code:x?}");
        }
    }
}
