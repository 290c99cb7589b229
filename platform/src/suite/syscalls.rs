//! System calls and the registers around them.

use super::asm::{Asm, Reg};
use super::lab::{CODE, Lab};
use crate::Exit;
use crate::arch::UserRegs;

/// Number, arguments and results travel; rip, rcx and r11 are as the hardware leaves them.
pub fn round_trip(lab: &Lab) {
    let code = Asm::new().set(Reg::Rax, 39).set(Reg::Rdi, 7).syscall().syscall();
    let mut guest = lab.guest(&code);
    assert_eq!(guest.run(), Exit::Syscall);
    let regs = &guest.state.regs;
    assert_eq!((regs.rax, regs.orig_rax, regs.rdi), (39, 39, 7));
    assert_eq!(regs.rip, CODE + 22);
    assert_eq!((regs.rcx, regs.r11 & 0x202), (regs.rip, 0x202));
    guest.state.regs.rax = 1234;
    assert_eq!(guest.syscall(), 1234);
    assert_eq!(guest.state.regs.rip, CODE + 24);
    for i in 0..1000 {
        guest.state.regs.rip = CODE + 20;
        guest.state.regs.rax = i;
        assert_eq!(guest.syscall(), i);
    }
}

/// Every register that the kernel sets is seen by the guest and comes back, and errors like -ERESTARTSYS mean nothing.
pub fn registers_survive(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().syscall().syscall());
    let base = guest.state.regs;
    for rax in [0, (-512i64) as u64, (-516i64) as u64, u64::MAX] {
        guest.state.regs = UserRegs {
            r15: 0x1515_1515_1515_1515,
            r14: u64::MAX,
            r13: 13,
            r12: 12,
            rbp: 0xbbbb,
            rbx: 0x8000_0000_0000_0000,
            r10: 10,
            r9: 9,
            r8: 8,
            rdx: 0xdddd,
            rsi: 0x5151,
            rdi: 0xd1d1,
            rax,
            ..base
        };
        let before = guest.state.regs;
        for nth in 1..=2u64 {
            guest.syscall();
            let mut expected = before;
            expected.rip = CODE + 2 * nth;
            (expected.rcx, expected.r11, expected.orig_rax) = (expected.rip, before.rflags, rax);
            let mut got = guest.state.regs;
            got.r11 &= !0x1_0000;
            got.rflags = before.rflags;
            assert_eq!(got, expected);
        }
    }
}

/// The x32 bit is just a part of the number.
pub fn x32_number_passes(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rax, 0x4000_0027).syscall());
    assert_eq!(guest.syscall(), 0x4000_0027);
}

/// fs and gs bases reach the guest, and what the guest sets comes back.
pub fn segment_bases(lab: &Lab) {
    // mov rax, fs:[0]; mov rbx, gs:[0]; syscall
    let code = Asm::new()
        .raw(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0])
        .raw(&[0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0])
        .syscall();
    let mut guest = lab.guest(&code);
    let (a, b) = (lab.page_of(&[1]), lab.page_of(&[2]));
    super::lab::map(&*guest.space, 0x50_0000, &a, 1, super::lab::RW);
    super::lab::map(&*guest.space, 0x60_0000, &b, 1, super::lab::RW);
    guest.state.regs.fs_base = 0x50_0000;
    guest.state.regs.gs_base = 0x60_0000;
    assert_eq!(guest.syscall(), 1);
    let regs = &guest.state.regs;
    assert_eq!((regs.rbx, regs.fs_base, regs.gs_base), (2, 0x50_0000, 0x60_0000));
}

/// The arithmetic flags, direction and ID flag come and go.
pub fn flags_survive(lab: &Lab) {
    // std; stc; syscall
    let mut guest = lab.guest(&Asm::new().raw(&[0xfd, 0xf9]).syscall().raw(&[0x9c, 0x58]).syscall());
    guest.syscall();
    assert_eq!(guest.state.regs.rflags & 0x401, 0x401);
    guest.state.regs.rflags = 0x202 | 0x40;
    let pushed = guest.syscall();
    assert_eq!(pushed & 0x441, 0x40);
}
