//! Prints what an exit costs on this host: a system call, a fault, an invalidation.

use std::sync::Arc;
use std::time::Instant;

use abi::AddrRange;
use memory::{Frame, MemoryFile};
use platform::{AddressSpace, ArchState, Cpu, Exit, MapOp, Platform, Prot};
use platform_kvm::KvmPlatform;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x8000_0000;
const PAGE: u64 = 4096;
/// Reads [rdi], then system call; jump back.
const READER: [u8; 7] = [0x48, 0x8b, 0x07, 0x0f, 0x05, 0xeb, 0xf9];
/// Writes a byte in each of rcx pages from rdi on, then system call.
const TOUCHER: [u8; 14] = [0x88, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xf3, 0x0f];

fn map(space: &Arc<dyn AddressSpace>, at: u64, len: u64, frame: Frame, prot: Prot) {
    let range = AddrRange::new(at, at + len);
    space.apply(&[MapOp::Map { range, frame, prot, pkey: 0 }]).expect("map");
}

fn report(what: &str, count: u32, start: Instant) {
    println!("{what:40} {:>9.0} ns", start.elapsed().as_nanos() as f64 / f64::from(count));
}

fn syscalls(cpu: &mut Box<dyn Cpu>, space: &Arc<dyn AddressSpace>, state: &mut ArchState, n: u32) {
    for _ in 0..n {
        assert_eq!(cpu.run(space, state), Exit::Syscall);
    }
}

fn main() {
    let start = Instant::now();
    let platform = KvmPlatform::open().expect("open /dev/kvm");
    report("platform with probe", 1, start);
    println!("{}", platform.describe());
    let memory = MemoryFile::new(platform.memory_backing(), 1 << 30).expect("memory");
    platform.attach_memory(&memory).expect("attach");
    let start = Instant::now();
    let space = platform.new_address_space().expect("space");
    report("new address space", 1, start);
    let mut cpu = platform.new_cpu().expect("cpu");
    let frame = |len: u64, bytes: &[u8]| {
        let at = memory.allocate(len, len.min(2 << 20)).expect("frames");
        memory.file().write(at, bytes).expect("write");
        memory.frame(at)
    };
    let rx = Prot::READ | Prot::EXEC;
    let rw = Prot::READ | Prot::WRITE;
    map(&space, CODE, PAGE, frame(PAGE, &READER), rx);
    let page = frame(PAGE, &[1]);
    let start = Instant::now();
    map(&space, DATA, PAGE, page.clone(), rw);
    report("map the first page of a window", 1, start);

    let mut state = ArchState::new();
    state.regs.rip = CODE;
    state.regs.rdi = DATA;
    syscalls(&mut cpu, &space, &mut state, 10);
    let start = Instant::now();
    syscalls(&mut cpu, &space, &mut state, 2000);
    report("system call", 2000, start);

    let (mut fault, mut remap, mut gone) = (0u128, 0u128, 0u128);
    for _ in 0..500 {
        let t = Instant::now();
        space.invalidate(AddrRange::new(DATA, DATA + PAGE));
        gone += t.elapsed().as_nanos();
        let t = Instant::now();
        assert!(matches!(cpu.run(&space, &mut state), Exit::Fault { .. }));
        fault += t.elapsed().as_nanos();
        let t = Instant::now();
        map(&space, DATA, PAGE, page.clone(), rw);
        remap += t.elapsed().as_nanos();
        syscalls(&mut cpu, &space, &mut state, 1);
    }
    println!("{:40} {:>9} ns", "invalidate one page", gone / 500);
    println!("{:40} {:>9} ns", "fault exit", fault / 500);
    println!("{:40} {:>9} ns", "map one page", remap / 500);

    touch(&space, &mut cpu, &frame, rw);
    switches(&platform, &space, &mut cpu, &mut state, &frame);
}

fn touch(space: &Arc<dyn AddressSpace>, cpu: &mut Box<dyn Cpu>, frame: &dyn Fn(u64, &[u8]) -> Frame, rw: Prot) {
    const AT: u64 = 0x1_0000_0000;
    let mut code = TOUCHER.to_vec();
    code.push(0x05);
    map(space, CODE + PAGE, PAGE, frame(PAGE, &code), Prot::READ | Prot::EXEC);
    for (name, populate, len) in [
        ("touch a fresh page", false, 1 << 20),
        ("touch a populated page", true, 1 << 20),
        ("in 2 MiB maps", true, 8 << 20),
    ] {
        let block = frame(len, &[]);
        let start = Instant::now();
        if populate {
            let at = block.file.host_addr(block.offset) as *mut libc::c_void;
            #[allow(unsafe_code)]
            // SAFETY: populates frames of ours.
            unsafe {
                libc::madvise(at, len as usize, libc::MADV_HUGEPAGE * i32::from(len > 2 << 20));
                libc::madvise(at, len as usize, libc::MADV_POPULATE_WRITE)
            };
            report(&format!("populate for: {name}, a page"), (len / PAGE) as u32, start);
        }
        let start = Instant::now();
        map(space, AT, len, block, rw);
        report(&format!("map for: {name}, a page"), (len / PAGE) as u32, start);
        for round in 0..2 {
            let mut state = ArchState::new();
            state.regs.rip = CODE + PAGE;
            state.regs.rdi = AT;
            state.regs.rcx = len / PAGE;
            let start = Instant::now();
            syscalls(cpu, space, &mut state, 1);
            report(&format!("{name}, time {round}"), (len / PAGE) as u32, start);
        }
        let start = Instant::now();
        space.invalidate(AddrRange::new(AT, AT + len));
        report(&format!("invalidate {} KiB", len >> 10), 1, start);
    }
}

fn switches(
    platform: &KvmPlatform,
    space: &Arc<dyn AddressSpace>,
    cpu: &mut Box<dyn Cpu>,
    state: &mut ArchState,
    frame: &dyn Fn(u64, &[u8]) -> Frame,
) {
    let other = platform.new_address_space().expect("space");
    map(&other, CODE, PAGE, frame(PAGE, &READER), Prot::READ | Prot::EXEC);
    map(&other, DATA, PAGE, frame(PAGE, &[2]), Prot::READ);
    let mut second = ArchState::new();
    (second.regs.rip, second.regs.rdi) = (CODE, DATA);
    syscalls(cpu, &other, &mut second, 1);
    let start = Instant::now();
    for _ in 0..500 {
        syscalls(cpu, space, state, 1);
        syscalls(cpu, &other, &mut second, 1);
    }
    report("system call, switching tasks and spaces", 1000, start);
    second.set_fpu(platform::FpuState::Initial);
    let start = Instant::now();
    for _ in 0..500 {
        state.regs.fs_base ^= 0x1000;
        syscalls(cpu, space, state, 1);
    }
    report("system call with another fs base", 500, start);
}
