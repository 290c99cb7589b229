//! Instructions that the processor (or the software KVM) refuses in another way than the contract says.

use platform::UserRegs;

use crate::layout::EXIT_PORT;
use crate::space::KvmSpace;

/// What is behind an invalid-opcode exception.
pub enum Quirk {
    /// An ordinary one.
    None,
    /// `int n` or `sysenter`: a gate that guests do not have, vector 13 with this error code.
    Gate(u32),
    /// An instruction that was carried out here; go on behind it.
    Emulated,
}

/// Looks at the instruction at `regs.rip`.
pub fn quirk(space: &KvmSpace, regs: &mut UserRegs) -> Quirk {
    let mut code = [0u8; 5];
    let len = space.read_code(regs.rip, &mut code);
    match code[..len] {
        // The error code names the gate, in the interrupt table.
        [0xcd, vector, ..] => Quirk::Gate(u32::from(vector) << 3 | 2),
        [0x0f, 0x34, ..] => Quirk::Gate(0),
        [0xf3, 0x0f, 0xc7, modrm, ..] if modrm >= 0xf8 => rdpid(regs, modrm & 7, 4),
        [0xf3, rex @ 0x40..=0x4f, 0x0f, 0xc7, modrm] if modrm >= 0xf8 => rdpid(regs, modrm & 7 | (rex & 1) << 3, 5),
        _ => Quirk::None,
    }
}

/// Where the access to the exit port began that ended at `rip`. Prefixes are not counted: they cannot be told from
/// the end of the instruction before.
pub fn port_access_before(space: &KvmSpace, rip: u64) -> u64 {
    let mut code = [0u8; 2];
    let start = rip.wrapping_sub(2);
    match (space.read_code(start, &mut code), code) {
        (2, [0xe4..=0xe7, EXIT_PORT]) => start,
        (2, [_, 0x6c..=0x6f | 0xec..=0xef]) => start.wrapping_add(1),
        _ => rip,
    }
}

/// `rdpid`: what `rdtscp` puts in ecx, without the time.
fn rdpid(regs: &mut UserRegs, register: u8, len: u64) -> Quirk {
    let mut aux = 0;
    // SAFETY: rdtscp is unprivileged and writes only `aux`; every processor with KVM and long mode has it.
    unsafe { std::arch::x86_64::__rdtscp(&raw mut aux) };
    let place = match register {
        0 => &mut regs.rax,
        1 => &mut regs.rcx,
        2 => &mut regs.rdx,
        3 => &mut regs.rbx,
        4 => &mut regs.rsp,
        5 => &mut regs.rbp,
        6 => &mut regs.rsi,
        7 => &mut regs.rdi,
        8 => &mut regs.r8,
        9 => &mut regs.r9,
        10 => &mut regs.r10,
        11 => &mut regs.r11,
        12 => &mut regs.r12,
        13 => &mut regs.r13,
        14 => &mut regs.r14,
        _ => &mut regs.r15,
    };
    *place = u64::from(aux);
    regs.rip = regs.rip.wrapping_add(len);
    Quirk::Emulated
}
