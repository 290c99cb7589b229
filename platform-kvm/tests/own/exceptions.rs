//! Every way of raising an exception from ring 3, and what it is reported as.

use platform::arch::RFLAGS_TF;
use platform::suite::asm::{Asm, Reg};
use platform::suite::lab::{CODE, Guest};
use platform::{Exception, Exit};

fn raise(code: Asm) -> (u8, u32, u64) {
    let mut guest = crate::lab().guest(&code);
    outcome(&mut guest)
}

fn outcome(guest: &mut Guest) -> (u8, u32, u64) {
    match guest.run() {
        Exit::Exception(Exception { vector, error_code, .. }) => {
            assert_eq!(guest.state.regs.rflags & 0x1_0000, 0, "RF shows");
            (vector, error_code, guest.state.regs.rip - CODE)
        }
        other => panic!("{other:?} at {:x?}", guest.state.regs),
    }
}

#[test]
fn faults_point_at_the_instruction() {
    let cases: &[(&str, &[u8], u8, u32)] = &[
        ("divide", &[0x31, 0xc9, 0xf7, 0xf1], 0, 0),
        ("ud2", &[0x90, 0x90, 0x0f, 0x0b], 6, 0),
        ("hlt", &[0x90, 0x90, 0xf4], 13, 0),
        ("sti", &[0x90, 0x90, 0xfb], 13, 0),
        ("rdmsr", &[0x90, 0x90, 0x0f, 0x32], 13, 0),
        ("mov cr0", &[0x90, 0x90, 0x0f, 0x20, 0xc0], 13, 0),
        ("mov cr3", &[0x90, 0x90, 0x0f, 0x22, 0xd8], 13, 0),
        ("lgdt", &[0x90, 0x90, 0x0f, 0x01, 0x10], 13, 0),
        ("invlpg", &[0x90, 0x90, 0x0f, 0x01, 0x38], 13, 0),
        ("swapgs", &[0x90, 0x90, 0x0f, 0x01, 0xf8], 13, 0),
        ("sysretq", &[0x90, 0x90, 0x48, 0x0f, 0x07], 13, 0),
        ("wbinvd", &[0x90, 0x90, 0x0f, 0x09], 13, 0),
        ("int 0x80", &[0x90, 0x90, 0xcd, 0x80], 13, u32::MAX),
        ("int 13", &[0x90, 0x90, 0xcd, 13], 13, u32::MAX),
        ("int 1", &[0x90, 0x90, 0xcd, 1], 13, u32::MAX),
        ("sysenter", &[0x90, 0x90, 0x0f, 0x34], 13, u32::MAX),
        ("in al, dx", &[0x31, 0xd2, 0xec], 13, 0),
        ("out 0xf4, al", &[0x90, 0x90, 0xe6, 0xf4], 13, 0),
        ("in al, 0xf4", &[0x90, 0x90, 0xe4, 0xf4], 13, 0),
        ("out 0x80, al", &[0x90, 0x90, 0xe6, 0x80], 13, 0),
    ];
    for (name, code, vector, error_code) in cases {
        let (v, e, rip) = raise(Asm::new().raw(code));
        assert_eq!((v, rip), (*vector, 2), "{name}");
        assert!(*error_code == u32::MAX || e == *error_code, "{name}: error code {e:#x}");
    }
}

#[test]
fn traps_point_behind_the_instruction() {
    assert_eq!(raise(Asm::new().raw(&[0xcc])), (3, 0, 1));
    assert_eq!(raise(Asm::new().raw(&[0xcd, 3])), (3, 0, 2));
    assert_eq!(raise(Asm::new().raw(&[0xf1])), (1, 0, 1));
}

#[test]
fn the_trap_flag_steps() {
    let mut guest = crate::lab().guest(&Asm::new().raw(&[0x90, 0x90]).syscall().raw(&[0x90, 0x90]));
    guest.state.regs.rflags |= RFLAGS_TF;
    assert_eq!(outcome(&mut guest), (1, 0, 1));
    assert_eq!(outcome(&mut guest), (1, 0, 2));
    assert_eq!(guest.run(), Exit::Syscall);
    assert_ne!(guest.state.regs.rflags & RFLAGS_TF, 0);
    assert_eq!(guest.state.regs.rip - CODE, 4);
    let after = outcome(&mut guest);
    assert!(after == (1, 0, 5) || after == (1, 0, 4), "{after:?}");
}

#[test]
fn a_jump_to_a_bad_address_is_protection() {
    let code = Asm::new().set(Reg::Rcx, 1 << 62).jump(Reg::Rcx);
    let (vector, _, rip) = raise(code);
    assert_eq!(vector, 13);
    let _ = rip;
    let mut guest = crate::lab().guest(&Asm::new().syscall());
    guest.state.regs.rip = 1 << 50;
    assert!(matches!(guest.run(), Exit::Exception(Exception { vector: 13, .. })));
    assert_eq!(guest.state.regs.rip, 1 << 50);
}

#[test]
fn other_segments_are_refused() {
    // push 0x23; push CODE; retfq: Linux's compatibility code segment.
    let code = Asm::new().raw(&[0x6a, 0x23, 0x68, 0, 0, 0x40, 0, 0x48, 0xcb]);
    let mut guest = crate::lab().guest(&code);
    assert!(matches!(guest.run(), Exit::Exception(Exception { vector: 13, .. })), "{:x?}", guest.state.regs);
    // mov ax, 0x10; mov ds, ax: a ring-0 segment.
    let mut guest = crate::lab().guest(&Asm::new().raw(&[0x66, 0xb8, 0x10, 0, 0x8e, 0xd8]));
    assert!(matches!(guest.run(), Exit::Exception(Exception { vector: 13, .. })), "{:x?}", guest.state.regs);
}

#[test]
fn alignment_checks_work() {
    // or byte ptr in flags: pushfq; or dword [rsp], 0x40000; popfq; mov rax, [rsp-15]
    let code = Asm::new().raw(&[0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x48, 0x8b, 0x44, 0x24, 0xf1]);
    let mut guest = crate::lab().guest(&code);
    assert!(matches!(guest.run(), Exit::Exception(Exception { vector: 17, .. })), "{:x?}", guest.state.regs);
}

#[test]
fn rdpid_and_rdtscp_work() {
    let mut guest = crate::lab().guest(&Asm::new().raw(&[0xf3, 0x0f, 0xc7, 0xf8, 0x0f, 0x01, 0xf9]).syscall());
    match guest.run() {
        Exit::Syscall => {}
        Exit::Exception(Exception { vector: 6, .. }) => assert!(!std::is_x86_feature_detected!("rdrand")),
        other => panic!("{other:?} {:x?}", guest.state.regs),
    }
}

#[test]
fn the_time_stamp_counter_is_the_hosts() {
    // rdtsc; shl rdx, 32; or rax, rdx; syscall
    let code = Asm::new().raw(&[0x0f, 0x31, 0x48, 0xc1, 0xe2, 32, 0x48, 0x09, 0xd0]).syscall();
    let mut guest = crate::lab().guest(&code);
    // SAFETY: rdtsc is unprivileged.
    let before = unsafe { std::arch::x86_64::_rdtsc() };
    let inside = guest.syscall();
    // SAFETY: as above.
    let after = unsafe { std::arch::x86_64::_rdtsc() };
    assert!(before < inside && inside < after, "{before} {inside} {after}");
}

#[test]
fn a_system_call_needs_no_stack() {
    let mut guest = crate::lab().guest(&Asm::new().syscall().syscall());
    for rsp in [0, 8, 1 << 62, u64::MAX, 0xffff_8000_0000_0000] {
        guest.state.regs.rip = CODE;
        guest.state.regs.rsp = rsp;
        assert_eq!(guest.run(), Exit::Syscall);
        assert_eq!(guest.state.regs.rsp, rsp);
        assert_eq!(guest.run(), Exit::Syscall);
    }
}
