//! FPU state belongs to tasks.

use std::sync::Arc;

use super::asm::Asm;
use super::lab::{DATA, Lab, RW, map, run, start_state};
use crate::{AddressSpace, ArchState, Exit, FpuState};

/// vmovdqu ymm0, [rsi]; then, again and again: syscall; vmovdqu [rsi + 32], ymm0. rsi is set by the case.
fn keeper() -> Asm {
    let code = Asm::new().raw(&[0xc5, 0xfe, 0x6f, 0x06]);
    let top = code.here();
    code.syscall().raw(&[0xc5, 0xfe, 0x7f, 0x46, 0x20]).back_to(top)
}

struct Task {
    state: ArchState,
    frame: memory::Frame,
    pattern: [u8; 32],
}

/// A task whose ymm0 holds a pattern of its own, in `space`.
fn task(lab: &Lab, space: &Arc<dyn AddressSpace>, n: u8) -> Task {
    let pattern: [u8; 32] = std::array::from_fn(|i| n.wrapping_mul(37).wrapping_add(i as u8));
    let frame = lab.page_of(&pattern);
    let addr = DATA + u64::from(n) * 4096;
    map(&**space, addr, &frame, 1, RW);
    let mut state = start_state();
    state.regs.rsi = addr;
    Task { state, frame, pattern }
}

impl Task {
    fn check(&self) {
        let mut got = [0; 32];
        self.frame.file.read(self.frame.offset + 32, &mut got).expect("frame is there");
        assert_eq!(got, self.pattern);
    }
}

fn has_avx(lab: &Lab) -> bool {
    lab.platform.xcr0() & 4 != 0
}

/// Kept across system calls, with and without a save in between.
pub fn kept_across_calls(lab: &Lab) {
    if !has_avx(lab) {
        return;
    }
    let space = lab.program(&keeper());
    let mut cpu = lab.cpu();
    let mut a = task(lab, &space, 1);
    for round in 0..50 {
        assert_eq!(run(&mut *cpu, &space, &mut a.state), Exit::Syscall);
        if round > 0 {
            a.check();
        }
        if round % 3 == 0 {
            cpu.save_fpu(&space, &mut a.state);
        }
    }
}

/// Tasks that alternate on one CPU, in one space and in two, saved when they park or not.
pub fn alternating_tasks(lab: &Lab) {
    if !has_avx(lab) {
        return;
    }
    for save in [true, false] {
        let spaces = [lab.program(&keeper()), lab.program(&keeper())];
        let mut cpu = lab.cpu();
        let mut tasks: Vec<Task> = (0..6).map(|n| task(lab, &spaces[usize::from(n % 2)], n)).collect();
        for round in 0..20 {
            for (i, t) in tasks.iter_mut().enumerate() {
                assert_eq!(run(&mut *cpu, &spaces[i % 2], &mut t.state), Exit::Syscall);
                if round > 0 {
                    t.check();
                }
                if save {
                    cpu.save_fpu(&spaces[i % 2], &mut t.state);
                }
            }
        }
    }
}

/// A task that is saved here and goes on there, in turns.
pub fn moved_between_cpus(lab: &Lab) {
    if !has_avx(lab) {
        return;
    }
    let space = lab.program(&keeper());
    let mut tasks = [task(lab, &space, 1), task(lab, &space, 2)];
    for round in 0..10 {
        std::thread::scope(|s| {
            for t in &mut tasks {
                s.spawn(|| {
                    let mut cpu = lab.cpu();
                    for _ in 0..3 {
                        assert_eq!(run(&mut *cpu, &space, &mut t.state), Exit::Syscall);
                    }
                    t.check();
                    cpu.save_fpu(&space, &mut t.state);
                    assert!(matches!(t.state.fpu, FpuState::Saved(_)));
                });
            }
        });
        if round % 2 == 0 {
            tasks.swap(0, 1);
        }
    }
}

/// A task in the initial state sees nothing of its predecessor: xmm0 is zero, MXCSR 0x1f80, the control word 0x37f.
pub fn initial_state(lab: &Lab) {
    // movq rax, xmm0; push 0; stmxcsr [rsp]; pop rbx; push 0; fnstcw [rsp]; pop rdx; syscall
    let look = [0x66, 0x48, 0x0f, 0x7e, 0xc0, 0x6a, 0, 0x0f, 0xae, 0x1c, 0x24, 0x5b, 0x6a, 0, 0xd9, 0x3c, 0x24, 0x5a];
    // pcmpeqd xmm0, xmm0; push 0x1fc0; ldmxcsr [rsp]; pop rbx
    let spoil = [0x66, 0x0f, 0x76, 0xc0, 0x68, 0xc0, 0x1f, 0, 0, 0x0f, 0xae, 0x14, 0x24, 0x5b];
    let code = Asm::new().raw(&look).syscall().raw(&spoil).syscall();
    let mut guest = lab.guest(&code);
    for _ in 0..3 {
        guest.state = start_state();
        assert_eq!(guest.syscall(), 0);
        assert_eq!((guest.state.regs.rbx, guest.state.regs.rdx), (0x1f80, 0x37f));
        guest.syscall();
        guest.cpu.save_fpu(&guest.space, &mut guest.state);
    }
}

/// What the kernel sets (a signal frame's state) is what the guest sees; garbage is not the platform's end.
pub fn set_by_kernel(lab: &Lab) {
    // movq rax, xmm0; syscall, twice
    let look = [0x66, 0x48, 0x0f, 0x7e, 0xc0];
    let mut guest = lab.guest(&Asm::new().raw(&look).syscall().raw(&look).syscall());
    guest.syscall();
    guest.cpu.save_fpu(&guest.space, &mut guest.state);
    let mut area = guest.state.fpu.to_xsave(lab.platform.xsave_size());
    area[160..168].copy_from_slice(&0x1234_5678u64.to_le_bytes());
    area[512] |= 3;
    guest.state.set_fpu(FpuState::Saved(area.into_boxed_slice()));
    assert_eq!(guest.syscall(), 0x1234_5678);
    for garbage in [vec![0xff; 4096], vec![0xa5; 600], Vec::new()] {
        guest.state = start_state();
        guest.state.set_fpu(FpuState::Saved(garbage.into_boxed_slice()));
        assert_eq!(guest.run(), Exit::Syscall);
    }
}
