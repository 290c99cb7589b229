//! Guests that attack the stub: whatever they do ends in an exit that hurts only themselves.

use platform::suite::asm::{Asm, Reg};
use platform::suite::lab::{CODE, Lab, run, start_state};
use platform::{Access, Exit, USER_END};

fn reach(lab: &Lab, code: &Asm) -> (Exit, platform::UserRegs) {
    let mut guest = lab.guest(code);
    let exit = guest.run();
    (exit, guest.state.regs)
}

#[test]
fn the_private_area_cannot_be_touched() {
    let lab = crate::lab();
    for page in 0..512 {
        let at = USER_END + page * 4096;
        let code = Asm::new().set(Reg::Rdi, at).store(Reg::Rdi, Reg::Rax).raw(&[0x0f, 0x0b]);
        let (exit, _) = reach_on(&lab, &code, page);
        assert_eq!(exit, Exit::Fault { addr: at, access: Access::WRITE, pkey: false }, "write to page {page}");
        let code = Asm::new().set(Reg::Rdi, at).load(Reg::Rax, Reg::Rdi).raw(&[0x0f, 0x0b]);
        let (exit, _) = reach_on(&lab, &code, page);
        if page == 2 {
            continue; // the entry page, which ring 3 must reach on the software KVM; it holds nothing but code
        }
        assert_eq!(exit, Exit::Fault { addr: at, access: Access::READ, pkey: false }, "read of page {page}");
    }
}

thread_local! {
    static CPU: std::cell::RefCell<Option<Box<dyn platform::Cpu>>> = const { std::cell::RefCell::new(None) };
}

fn reach_on(lab: &Lab, code: &Asm, first: u64) -> (Exit, platform::UserRegs) {
    CPU.with_borrow_mut(|cpu| {
        if first == 0 || cpu.is_none() {
            *cpu = Some(lab.cpu());
        }
        let space = lab.program(code);
        let mut state = start_state();
        let exit = run(&mut **cpu.as_mut().unwrap(), &space, &mut state);
        (exit, state.regs)
    })
}

#[test]
fn jumps_into_the_stub_are_only_exits() {
    let lab = crate::lab();
    let mut cpu = lab.cpu();
    for page in 0..4u64 {
        for offset in (0..0x200).chain(0x7f0..0x890) {
            let at = USER_END + page * 4096 + offset;
            let space = lab.program(&Asm::new().set(Reg::R15, at).jump(Reg::R15));
            let mut state = start_state();
            state.regs.rcx = CODE;
            state.regs.r11 = u64::MAX;
            let exit = run(&mut *cpu, &space, &mut state);
            assert!(!matches!(exit, Exit::Broken { .. }), "{exit:?} at {at:#x}");
            if page != 2 {
                assert_eq!(exit, Exit::Fault { addr: at, access: Access::EXEC, pkey: false });
            }
            // The next task is not disturbed.
            let space = lab.program(&Asm::new().set(Reg::Rax, 77).syscall());
            let mut state = start_state();
            assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
            assert_eq!(state.regs.rax, 77);
        }
    }
}

#[test]
fn a_delayed_debug_trap_does_not_reach_ring_0() {
    // mov ss with a single step pending, right before syscall: the trap is taken at the entry page on hardware.
    let code = Asm::new().raw(&[0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd0]).syscall().raw(&[0x90, 0x90]);
    let lab = crate::lab();
    let mut guest = lab.guest(&code);
    guest.state.regs.rflags |= platform::arch::RFLAGS_TF;
    for _ in 0..6 {
        match guest.run() {
            Exit::Syscall | Exit::Exception(_) | Exit::Fault { .. } => {}
            other => panic!("{other:?} {:x?}", guest.state.regs),
        }
    }
}

#[test]
fn flags_from_anywhere_are_harmless() {
    let lab = crate::lab();
    let mut guest = lab.guest(&Asm::new().syscall().syscall());
    guest.state.regs.rflags = u64::MAX & !platform::arch::RFLAGS_TF;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.state.regs.rflags & !platform::arch::USER_RFLAGS, 0x202);
    guest.state.regs.fs_base = u64::MAX;
    guest.state.regs.gs_base = 1 << 60;
    assert_eq!(guest.run(), Exit::Syscall);
}

#[test]
fn random_bytes_as_code() {
    let lab = crate::lab();
    let mut cpu = lab.cpu();
    let mut seed = 0x1234_5678_9abc_def1u64;
    for round in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..32 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        let space = lab.program(&Asm::new().raw(&bytes).raw(&[0x0f, 0x0b]));
        let mut state = start_state();
        (state.regs.rcx, state.regs.rdx, state.regs.rbp) = (0x10, 0xf4, seed);
        let kicker = cpu.kicker();
        for _ in 0..8 {
            let (stop, waiting) = std::sync::mpsc::channel::<()>();
            let exit = std::thread::scope(|scope| {
                let kicker = kicker.clone();
                scope.spawn(move || {
                    // An endless loop is ended by a kick.
                    if waiting.recv_timeout(std::time::Duration::from_millis(300)).is_err() {
                        kicker.kick();
                    }
                });
                let exit = cpu.run(&space, &mut state);
                let _ = stop.send(());
                exit
            });
            assert!(!matches!(exit, Exit::Broken { .. }), "round {round}: {exit:?} {:x?} {bytes:x?}", state.regs);
            if !matches!(exit, Exit::Syscall | Exit::Interrupted) {
                break;
            }
        }
    }
}
