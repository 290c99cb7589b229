//! FPU and vector state follows the task.

use platform::suite::asm::{Asm, Reg};
use platform::suite::lab::{DATA, Lab, RW, map, run, start_state};
use platform::{ArchState, Exit, FpuState};

/// Loads zmm/ymm/xmm 0, 7 and 15 from [rdi] if `wide` allows, then stores them at [rsi] after a system call.
fn vector_program(xcr0: u64) -> (Asm, usize) {
    let code = Asm::new();
    if xcr0 & 0xe0 == 0xe0 {
        // vmovdqu64 zmm7, [rdi]; vmovdqu64 zmm23, [rdi]; kmovw k3, eax; syscall; vmovdqu64 [rsi], zmm7;
        // vmovdqu64 [rsi+64], zmm23; kmovw ebx, k3; syscall
        let code = code
            .raw(&[0x62, 0xf1, 0xfe, 0x48, 0x6f, 0x3f])
            .raw(&[0x62, 0xe1, 0xfe, 0x48, 0x6f, 0x3f])
            .raw(&[0xc5, 0xf8, 0x92, 0xd8])
            .syscall()
            .raw(&[0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x3e])
            .raw(&[0x62, 0xe1, 0xfe, 0x48, 0x7f, 0x7e, 0x01])
            .raw(&[0xc5, 0xf8, 0x93, 0xdb])
            .syscall();
        (code, 128)
    } else if xcr0 & 4 != 0 {
        // vmovdqu ymm7, [rdi]; syscall; vmovdqu [rsi], ymm7; syscall
        let code = code.raw(&[0xc5, 0xfe, 0x6f, 0x3f]).syscall().raw(&[0xc5, 0xfe, 0x7f, 0x3e]).syscall();
        (code, 32)
    } else {
        // movups xmm7, [rdi]; syscall; movups [rsi], xmm7; syscall
        let code = code.raw(&[0x0f, 0x10, 0x3f]).syscall().raw(&[0x0f, 0x11, 0x3e]).syscall();
        (code, 16)
    }
}

fn task(i: u64) -> ArchState {
    let mut state = start_state();
    state.regs.rdi = DATA + i * 64;
    state.regs.rsi = DATA + 0x1000 + i * 128;
    state.regs.rax = 0x1110 + i;
    state
}

fn check(lab: &Lab, move_cpu: bool) {
    let (code, len) = vector_program(lab.platform.xcr0());
    let space = lab.program(&code);
    let data = lab.pages(2);
    map(&*space, DATA, &data, 2, RW);
    const TASKS: u64 = 4;
    for i in 0..TASKS {
        data.file.write(data.offset + i * 64, &[0x10 + i as u8; 64]).unwrap();
    }
    let mut cpu = lab.cpu();
    let mut tasks: Vec<_> = (0..TASKS).map(task).collect();
    for state in &mut tasks {
        assert_eq!(run(&mut *cpu, &space, state), Exit::Syscall);
    }
    if move_cpu {
        for state in &mut tasks {
            cpu.save_fpu(&space, state);
            assert!(state.fpu_token.is_none() && matches!(state.fpu, FpuState::Saved(_)));
        }
        cpu = lab.cpu();
    }
    for state in &mut tasks {
        assert_eq!(run(&mut *cpu, &space, state), Exit::Syscall, "{:x?}", state.regs);
    }
    for (i, state) in tasks.iter().enumerate() {
        let mut bytes = vec![0; len];
        data.file.read(data.offset + 0x1000 + i as u64 * 128, &mut bytes).unwrap();
        assert_eq!(bytes, vec![0x10 + i as u8; len], "task {i}");
        if len == 128 {
            assert_eq!(state.regs.rbx, 0x1110 + i as u64);
        }
    }
}

#[test]
fn state_stays_with_tasks_on_one_cpu() {
    check(&crate::lab(), false);
}

#[test]
fn state_moves_to_another_cpu() {
    check(&crate::lab(), true);
}

#[test]
fn a_fresh_task_sees_the_initial_state() {
    let lab = crate::lab();
    // fnstcw [rsi]; stmxcsr [rsi+8]; movups [rsi+16], xmm7; syscall
    let code = Asm::new().raw(&[0xd9, 0x3e, 0x0f, 0xae, 0x5e, 8, 0x0f, 0x11, 0x7e, 16]).syscall();
    let space = lab.program(&code);
    let data = lab.pages(1);
    map(&*space, DATA, &data, 1, RW);
    let mut cpu = lab.cpu();
    for dirty in [true, false] {
        let mut state = start_state();
        state.regs.rsi = DATA;
        if dirty {
            let mut image = FpuState::Initial.to_xsave(576);
            image[160 + 7 * 16..160 + 8 * 16].fill(0xee);
            image[24..28].copy_from_slice(&0x1fa0u32.to_le_bytes());
            image[512] = 3;
            state.set_fpu(FpuState::Saved(image.into()));
        }
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
        let mut seen = [0; 32];
        data.file.read(data.offset, &mut seen).unwrap();
        assert_eq!(&seen[..2], &[0x7f, 3]);
        assert_eq!(&seen[8..12], &if dirty { 0x1fa0u32 } else { 0x1f80 }.to_le_bytes());
        assert_eq!(&seen[16..], &[if dirty { 0xee } else { 0 }; 16]);
    }
}

#[test]
fn hostile_images_are_refused_or_cleaned() {
    let lab = crate::lab();
    let space = lab.program(&Asm::new().set(Reg::Rax, 5).syscall());
    let mut cpu = lab.cpu();
    for fill in [0xff, 0x80, 0x01] {
        for len in [576, lab.platform.xsave_size()] {
            let mut state = start_state();
            state.set_fpu(FpuState::Saved(vec![fill; len].into()));
            assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall, "{fill:#x} {len}");
        }
    }
}
