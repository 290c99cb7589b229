//! Prints what a trip costs: a system call answered at once, a fault with one page mapped, a stub made and ended.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use abi::{AddrRange, PAGE_SIZE};
use memory::MemoryFile;
use platform::{AddressSpace, ArchState, Cpu, Exit, MapOp, Platform, Prot, UserRegs};
use platform_ptrace::PtracePlatform;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x10_0000_0000;
const ROUNDS: u64 = 20_000;

fn map(space: &dyn AddressSpace, memory: &MemoryFile, addr: u64, offset: u64, pages: u64, prot: Prot) {
    let range = AddrRange::new(addr, addr + pages * PAGE_SIZE);
    let op = MapOp::Map { range, frame: memory.frame(offset), prot, pkey: 0 };
    space.apply(&[op]).expect("map");
}

fn run(cpu: &mut dyn Cpu, space: &Arc<dyn AddressSpace>, state: &mut ArchState) -> Exit {
    loop {
        match cpu.run(space, state) {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
}

fn per(what: &str, rounds: u64, start: Instant) {
    println!("{what:<40} {:>8} ns", start.elapsed().as_nanos() as u64 / rounds);
}

fn main() -> Result<(), Box<dyn Error>> {
    let platform = PtracePlatform::new()?;
    let memory = MemoryFile::new(platform.memory_backing(), 1 << 30)?;
    platform.attach_memory(&memory)?;
    let space = platform.new_address_space()?;
    let mut cpu = platform.new_cpu()?;

    // syscall; jmp -4    and at +16: mov [rdi], rdi; add rdi, 4096; jmp back
    let mut code = vec![0x0f, 0x05, 0xeb, 0xfc];
    code.resize(16, 0x90);
    code.extend([0x48, 0x89, 0x3f, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0xeb, 0xf4]);
    let text = memory.allocate(PAGE_SIZE, PAGE_SIZE).expect("frames");
    memory.file().write(text, &code).expect("frames are there");
    map(&*space, &memory, CODE, text, 1, Prot::READ | Prot::EXEC);

    let mut state = ArchState::new();
    state.regs = UserRegs { rip: CODE, ..UserRegs::new() };
    for _ in 0..ROUNDS / 10 {
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
        state.regs.rax = 1;
    }
    per("system call", ROUNDS, start);

    for chunk in [1, 16] {
        let pages = 8192;
        let data = memory.allocate(pages * PAGE_SIZE, PAGE_SIZE).expect("frames");
        state.regs = UserRegs { rip: CODE + 16, rdi: DATA, ..UserRegs::new() };
        let (start, mut at) = (Instant::now(), 0);
        while at < pages {
            assert!(matches!(run(&mut *cpu, &space, &mut state), Exit::Fault { .. }));
            map(&*space, &memory, DATA + at * PAGE_SIZE, data + at * PAGE_SIZE, chunk, Prot::READ | Prot::WRITE);
            at += chunk;
        }
        run(&mut *cpu, &space, &mut state);
        per(&format!("fresh page, {chunk} mapped a fault"), pages, start);
        space.invalidate(AddrRange::new(DATA, DATA + pages * PAGE_SIZE));
    }

    for forget in [false, true] {
        let (start, rounds) = (Instant::now(), 500);
        for _ in 0..rounds {
            let child = platform.new_address_space()?;
            map(&*child, &memory, CODE, text, 1, Prot::READ | Prot::EXEC);
            let mut state = ArchState::new();
            state.regs = UserRegs { rip: CODE, ..UserRegs::new() };
            assert_eq!(run(&mut *cpu, &child, &mut state), Exit::Syscall);
            if forget {
                cpu.forget(&child);
            }
        }
        per(if forget { "space, one call, forgotten" } else { "space, one call, dropped" }, rounds, start);
    }
    Ok(())
}
