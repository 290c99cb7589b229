//! CPU exceptions: the vector, and rip where Linux would report it.

use super::asm::{Asm, Reg};
use super::lab::{CODE, Lab};
use crate::Exit;
use crate::arch::RFLAGS_TF;

/// Runs `code` to its exception; answers vector and rip's offset.
fn exception(lab: &Lab, code: &Asm) -> (u8, u64) {
    let mut guest = lab.guest(code);
    match guest.run() {
        Exit::Exception(e) => (e.vector, guest.state.regs.rip.wrapping_sub(CODE)),
        exit => panic!("{exit:?} instead of an exception at {:x?}", guest.state.regs),
    }
}

/// int3 is a trap: rip lies behind it.
pub fn breakpoint(lab: &Lab) {
    assert_eq!(exception(lab, &Asm::new().raw(&[0x90, 0xcc])), (3, 2));
}

/// icebp is a debug trap.
pub fn icebp(lab: &Lab) {
    assert_eq!(exception(lab, &Asm::new().raw(&[0x90, 0xf1])), (1, 2));
}

pub fn invalid_opcode(lab: &Lab) {
    assert_eq!(exception(lab, &Asm::new().raw(&[0x90, 0x0f, 0x0b])), (6, 1));
}

pub fn divide(lab: &Lab) {
    // xor ecx, ecx; div ecx
    assert_eq!(exception(lab, &Asm::new().raw(&[0x31, 0xc9, 0xf7, 0xf1])), (0, 2));
}

/// Privileged instructions and ports.
pub fn privileged(lab: &Lab) {
    let instructions: [(&str, &[u8]); 9] = [
        ("hlt", &[0xf4]),
        ("sti", &[0xfb]),
        ("rdmsr", &[0x0f, 0x32]),
        ("mov cr0", &[0x0f, 0x20, 0xc0]),
        ("mov to cr3", &[0x0f, 0x22, 0xd8]),
        ("invlpg", &[0x0f, 0x01, 0x3e]),
        (
            "iretq without a frame it may load",
            &[0x6a, 0x00, 0x6a, 0x00, 0x6a, 0x00, 0x6a, 0x00, 0x6a, 0x00, 0x48, 0xcf],
        ),
        ("in al, dx", &[0xec]),
        ("out dx, al", &[0xee]),
    ];
    for (name, bytes) in instructions {
        let (vector, rip) = exception(lab, &Asm::new().raw(&[0x90]).raw(bytes));
        assert_eq!((name, vector), (name, 13));
        assert!(rip >= 1 && rip <= bytes.len() as u64, "{name}: rip at +{rip}");
    }
}

/// An address that is not canonical.
pub fn non_canonical(lab: &Lab) {
    let bad = 0x8000_0000_0000;
    assert_eq!(exception(lab, &Asm::new().set(Reg::Rsi, bad).load(Reg::Rax, Reg::Rsi)), (13, 10));
    assert_eq!(exception(lab, &Asm::new().set(Reg::Rax, bad).jump(Reg::Rax)).0, 13);
}

/// The trap flag is the guest's own: one exception behind each instruction.
pub fn single_step(lab: &Lab) {
    let code = Asm::new().raw(&[0x90, 0x90, 0x90]).syscall();
    let mut guest = lab.guest(&code);
    guest.state.regs.rflags |= RFLAGS_TF;
    for at in 1..=3 {
        match guest.run() {
            Exit::Exception(e) => assert_eq!((e.vector, guest.state.regs.rip), (1, CODE + at)),
            exit => panic!("{exit:?} instead of a step"),
        }
        assert_ne!(guest.state.regs.rflags & RFLAGS_TF, 0);
    }
    guest.state.regs.rflags &= !RFLAGS_TF;
    guest.syscall();
}

/// pushf; or [rsp], TF; popf; nop: the step is reported behind the nop.
pub fn trap_flag_set_by_guest(lab: &Lab) {
    let code = Asm::new().raw(&[0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d, 0x90, 0x90]);
    assert_eq!(exception(lab, &code), (1, 10));
}

/// Unmasked SIMD and x87 exceptions.
pub fn floating_point(lab: &Lab) {
    // push 0; ldmxcsr [rsp]; xorps xmm0, xmm0; divps xmm0, xmm0
    let simd = Asm::new().raw(&[0x6a, 0, 0x0f, 0xae, 0x14, 0x24, 0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0]);
    assert_eq!(exception(lab, &simd), (19, 9));
    // push 0; fldcw [rsp]; fld1; fldz; fdivp; fwait
    let x87 = Asm::new().raw(&[0x6a, 0, 0xd9, 0x2c, 0x24, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b]);
    assert_eq!(exception(lab, &x87), (16, 11));
}

/// rdtsc, cpuid and xgetbv are the guest's to use.
pub fn harmless_instructions(lab: &Lab) {
    // xor eax, eax; xor ecx, ecx; cpuid; rdtsc; xor ecx, ecx; xgetbv; syscall
    let code = Asm::new().raw(&[0x31, 0xc0, 0x31, 0xc9, 0x0f, 0xa2, 0x0f, 0x31, 0x31, 0xc9, 0x0f, 0x01, 0xd0]);
    let mut guest = lab.guest(&code.syscall());
    assert_eq!(guest.syscall() & 3, 3, "x87 and SSE state");
    assert!(lab.platform.xsave_size() >= 576);
    assert_eq!(lab.platform.xcr0() & 3, 3);
}
