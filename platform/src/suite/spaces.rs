//! Many spaces, many operations.

use std::sync::Arc;

use abi::PAGE_SIZE;

use super::asm::{Asm, Reg};
use super::lab::{DATA, Lab, RW, map, range, run, start_state, word};
use crate::{AddressSpace, Exit, MapOp, Prot};

/// Spaces made, run and dropped, some held together, some forgotten by the CPU first.
pub fn made_and_dropped(lab: &Lab) {
    let code = Asm::new().set(Reg::Rdi, DATA).store(Reg::Rdi, Reg::Rbx).load(Reg::Rax, Reg::Rdi).syscall();
    let text = lab.page_of(code.bytes());
    let mut cpu = lab.cpu();
    let mut held: Vec<Arc<dyn AddressSpace>> = Vec::new();
    for n in 0..200u64 {
        let space = lab.space();
        map(&*space, super::lab::CODE, &text, 1, super::lab::RX);
        map(&*space, DATA, &lab.pages(1), 1, RW);
        let mut state = start_state();
        state.regs.rbx = n;
        assert_eq!((run(&mut *cpu, &space, &mut state), state.regs.rax), (Exit::Syscall, n));
        if n % 3 == 0 {
            cpu.forget(&space);
        }
        if n % 2 == 0 {
            held.push(space);
        }
    }
    for space in &held {
        let mut state = start_state();
        state.regs.rbx = 7;
        assert_eq!((run(&mut *cpu, space, &mut state), state.regs.rax), (Exit::Syscall, 7));
    }
}

/// A space dropped by a thread that never ran in it.
pub fn dropped_elsewhere(lab: &Lab) {
    let code = Asm::new().syscall();
    let mut cpu = lab.cpu();
    for _ in 0..20 {
        let space = lab.program(&code);
        let mut state = start_state();
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
        std::thread::scope(|s| drop(s.spawn(move || drop(space))));
    }
    let space = lab.program(&code);
    assert_eq!(run(&mut *cpu, &space, &mut start_state()), Exit::Syscall);
}

/// rdi = first address, rcx = pages, rbx = stride: adds up the first words in rax. `syscall` at the end.
fn summer() -> Asm {
    let code = Asm::new().raw(&[0x31, 0xc0]);
    let top = code.here();
    // add rax, [rdi]; add rdi, rbx; dec rcx; jnz top
    let code = code.raw(&[0x48, 0x03, 0x07, 0x48, 0x01, 0xdf, 0x48, 0xff, 0xc9]);
    let distance = (code.here() + 2 - top) as u8;
    code.raw(&[0x75, distance.wrapping_neg()]).syscall()
}

fn sum(lab: &Lab, cpu: &mut dyn crate::Cpu, space: &Arc<dyn AddressSpace>, pages: u64, stride: u64) -> u64 {
    let mut state = start_state();
    (state.regs.rdi, state.regs.rcx, state.regs.rbx) = (DATA, pages, stride);
    assert_eq!(run(cpu, space, &mut state), Exit::Syscall, "at {:x?} on {}", state.regs, lab.platform.name());
    state.regs.rax
}

/// 10,000 operations in one batch; later ones win.
pub fn ten_thousand_ops(lab: &Lab) {
    let space = lab.program(&summer());
    let mut cpu = lab.cpu();
    let (one, two) = (lab.page_of(&[1]), lab.page_of(&[2]));
    let op = |n: u64, frame: &memory::Frame| MapOp::Map {
        range: range(DATA + n * PAGE_SIZE, 1),
        frame: frame.clone(),
        prot: Prot::READ,
        pkey: 0,
    };
    let mut ops: Vec<MapOp> = (0..5000).map(|n| op(n, &one)).collect();
    ops.extend((0..2500).map(|n| MapOp::Unmap { range: range(DATA + n * 2 * PAGE_SIZE, 1) }));
    ops.extend((0..2500).map(|n| op(n * 2, &two)));
    space.apply(&ops).expect("apply");
    assert_eq!(sum(lab, &mut *cpu, &space, 5000, PAGE_SIZE), 2500 + 5000);
}

/// More separate mappings than a Linux process may have (vm.max_map_count).
pub fn more_mappings_than_the_host_allows(lab: &Lab) {
    let space = lab.program(&summer());
    let mut cpu = lab.cpu();
    let pages = 70_000;
    let frames = [lab.page_of(&[1]), lab.page_of(&[2])];
    let op = |n: u64| MapOp::Map {
        range: range(DATA + n * PAGE_SIZE, 1),
        frame: frames[(n % 2) as usize].clone(),
        prot: Prot::READ,
        pkey: 0,
    };
    let ops: Vec<MapOp> = (0..pages).map(op).collect();
    if space.apply(&ops).is_err() {
        // Then it is empty, and pages come back as they are asked for.
        let mut state = start_state();
        assert!(matches!(run(&mut *cpu, &space, &mut state), Exit::Fault { .. }));
        return;
    }
    assert_eq!(sum(lab, &mut *cpu, &space, pages, PAGE_SIZE), pages / 2 * 3);
    space.invalidate(range(DATA, pages));
    let mut state = start_state();
    (state.regs.rdi, state.regs.rcx) = (DATA + 5 * PAGE_SIZE, 1);
    assert!(matches!(run(&mut *cpu, &space, &mut state), Exit::Fault { .. }));
    assert_eq!(word(&frames[0]), 1);
}
