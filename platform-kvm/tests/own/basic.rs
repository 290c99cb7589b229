//! The platform's own cases: what the shared suite does not know about.

use std::sync::Arc;

use abi::AddrRange;
use memory::{Frame, MemoryFile};
use platform::{Access, AddressSpace, ArchState, Cpu, Exit, MapOp, Platform, Prot};
use platform_kvm::KvmPlatform;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x80_0000;
const PAGE: u64 = 4096;

struct Rig {
    platform: KvmPlatform,
    memory: Arc<MemoryFile>,
    space: Arc<dyn AddressSpace>,
    cpu: Box<dyn Cpu>,
}

fn map(space: &Arc<dyn AddressSpace>, at: u64, len: u64, frame: Frame, prot: Prot) {
    space.apply(&[MapOp::Map { range: AddrRange::new(at, at + len), frame, prot, pkey: 0 }]).unwrap();
}

impl Rig {
    /// None where this host has no KVM.
    fn new(code: &[u8]) -> Option<Rig> {
        if !std::path::Path::new("/dev/kvm").exists() {
            eprintln!("skipped: no /dev/kvm");
            return None;
        }
        let platform = KvmPlatform::open().unwrap();
        eprintln!("{}", platform.describe());
        let memory = MemoryFile::new(platform.memory_backing(), 1 << 30).unwrap();
        platform.attach_memory(&memory).unwrap();
        let space = platform.new_address_space().unwrap();
        let cpu = platform.new_cpu().unwrap();
        let rig = Rig { platform, memory, space, cpu };
        let frame = rig.frame(PAGE, code);
        map(&rig.space, CODE, PAGE, frame, Prot::READ | Prot::EXEC);
        Some(rig)
    }

    fn frame(&self, len: u64, content: &[u8]) -> Frame {
        let offset = self.memory.allocate(len, len.next_power_of_two()).unwrap();
        self.memory.file().write(offset, content).unwrap();
        self.memory.frame(offset)
    }

    fn state(&self) -> ArchState {
        let mut state = ArchState::new();
        state.regs.rip = CODE;
        state
    }

    fn run(&mut self, state: &mut ArchState) -> Exit {
        self.cpu.run(&self.space, state)
    }
}

#[test]
fn system_calls_and_faults() {
    // again: syscall; mov rax, [rdi]; mov [rdi], rax; jmp again
    let Some(mut rig) = Rig::new(&[0x0f, 0x05, 0x48, 0x8b, 0x07, 0x48, 0x89, 0x07, 0xeb, 0xf6]) else { return };
    let mut state = rig.state();
    state.regs.rdi = DATA;
    state.regs.rax = 39;
    assert_eq!(rig.run(&mut state), Exit::Syscall);
    assert_eq!((state.regs.rip, state.regs.rax, state.regs.orig_rax), (CODE + 2, 39, 39));
    assert_eq!(state.regs.rcx, CODE + 2);
    assert_eq!(rig.run(&mut state), Exit::Fault { addr: DATA, access: Access::READ, pkey: false });
    assert_eq!(state.regs.rip, CODE + 2);
    let frame = rig.frame(PAGE, &7u64.to_le_bytes());
    map(&rig.space, DATA, PAGE, frame.clone(), Prot::READ);
    assert_eq!(rig.run(&mut state), Exit::Fault { addr: DATA, access: Access::WRITE, pkey: false });
    assert_eq!(state.regs.rax, 7);
    map(&rig.space, DATA, PAGE, frame, Prot::READ | Prot::WRITE);
    assert_eq!(rig.run(&mut state), Exit::Syscall);
    for _ in 0..100 {
        assert_eq!(rig.run(&mut state), Exit::Syscall);
    }
    drop(rig.platform);
}

/// Reads [rdi], then system call; jump back.
const READER: [u8; 7] = [0x48, 0x8b, 0x07, 0x0f, 0x05, 0xeb, 0xf9];

#[test]
fn changes_of_present_pages_are_seen() {
    let Some(mut rig) = Rig::new(&READER) else { return };
    let mut state = rig.state();
    state.regs.rdi = DATA;
    let (a, b) = (rig.frame(PAGE, &1u64.to_le_bytes()), rig.frame(PAGE, &2u64.to_le_bytes()));
    for round in 0..50 {
        map(&rig.space, DATA, PAGE, a.clone(), Prot::READ | Prot::WRITE);
        assert_eq!(rig.run(&mut state), Exit::Syscall);
        assert_eq!(state.regs.rax, 1, "round {round}");
        map(&rig.space, DATA, PAGE, b.clone(), Prot::READ);
        assert_eq!(rig.run(&mut state), Exit::Syscall);
        assert_eq!(state.regs.rax, 2, "round {round}");
        rig.space.invalidate(AddrRange::new(DATA, DATA + PAGE));
        assert_eq!(rig.run(&mut state), Exit::Fault { addr: DATA, access: Access::READ, pkey: false });
    }
    let mut byte = [0; 8];
    a.file.read(a.offset, &mut byte).unwrap();
    assert_eq!(u64::from_le_bytes(byte), 1, "a zap must not lose content");
}
