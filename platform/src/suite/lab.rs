//! The bench a case works at: a platform with memory, address spaces with code in them, guests to run.

use std::io;
use std::sync::Arc;

use abi::{AddrRange, PAGE_SIZE};
use memory::{Frame, MemoryFile};

use super::asm::Asm;
use crate::{AddressSpace, ArchState, Cpu, Exit, MapOp, Platform, Prot, UserRegs};

/// Makes a fresh platform.
pub type Factory = fn() -> io::Result<Arc<dyn Platform>>;

/// Where [`Lab::program`] puts code.
pub const CODE: u64 = 0x40_0000;
/// The top of the one-page stack of [`Lab::program`].
pub const STACK_TOP: u64 = 0x7000_0000_1000;
/// An address that cases map data at.
pub const DATA: u64 = 0x10_0000_0000;

/// Read and write.
pub const RW: Prot = Prot::READ.union(Prot::WRITE);
/// Read and execute.
pub const RX: Prot = Prot::READ.union(Prot::EXEC);

/// Whether the processor is an emulated one (QEMU's TCG, as `scripts/qemu-kvm.sh` runs it), which lacks SIMD and
/// alignment exceptions and icebp.
#[must_use]
pub fn emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}

/// A platform and its memory.
pub struct Lab {
    /// The platform under test.
    pub platform: Arc<dyn Platform>,
    /// Guest memory.
    pub memory: Arc<MemoryFile>,
}

impl Lab {
    /// A platform from `factory` with 1 GiB of memory.
    #[must_use]
    pub fn new(factory: Factory) -> Self {
        let platform = factory().expect("the platform starts");
        let memory = MemoryFile::new(platform.memory_backing(), 1 << 30).expect("guest memory");
        platform.attach_memory(&memory).expect("the platform takes the memory");
        Lab { platform, memory }
    }

    /// An empty address space.
    #[must_use]
    pub fn space(&self) -> Arc<dyn AddressSpace> {
        self.platform.new_address_space().expect("an address space")
    }

    /// A CPU for the calling thread.
    #[must_use]
    pub fn cpu(&self) -> Box<dyn Cpu> {
        self.platform.new_cpu().expect("a CPU")
    }

    /// `n` fresh zero pages in a row.
    #[must_use]
    pub fn pages(&self, n: u64) -> Frame {
        self.memory.frame(self.memory.allocate(n * PAGE_SIZE, PAGE_SIZE).expect("frames"))
    }

    /// A page that starts with `bytes`.
    #[must_use]
    pub fn page_of(&self, bytes: &[u8]) -> Frame {
        let frame = self.pages((bytes.len() as u64).div_ceil(PAGE_SIZE).max(1));
        frame.file.write(frame.offset, bytes).expect("frames are writable");
        frame
    }

    /// A space with `code` at [`CODE`] and a stack below [`STACK_TOP`].
    #[must_use]
    pub fn program(&self, code: &Asm) -> Arc<dyn AddressSpace> {
        let space = self.space();
        map(&*space, CODE, &self.page_of(code.bytes()), 1, RX);
        map(&*space, STACK_TOP - PAGE_SIZE, &self.pages(1), 1, RW);
        space
    }

    /// A guest in a fresh [`Lab::program`], on a fresh CPU, about to run the first instruction.
    #[must_use]
    pub fn guest(&self, code: &Asm) -> Guest {
        Guest { space: self.program(code), cpu: self.cpu(), state: start_state() }
    }
}

/// Registers that start at [`CODE`] with the stack of [`Lab::program`].
#[must_use]
pub fn start_state() -> ArchState {
    let mut state = ArchState::new();
    state.regs = UserRegs { rip: CODE, rsp: STACK_TOP - 64, ..UserRegs::new() };
    state
}

/// Reads the word at the start of `frame`.
#[must_use]
pub fn word(frame: &Frame) -> u64 {
    let mut bytes = [0; 8];
    frame.file.read(frame.offset, &mut bytes).expect("frame is there");
    u64::from_le_bytes(bytes)
}

/// Writes the word at the start of `frame`.
pub fn set_word(frame: &Frame, value: u64) {
    frame.file.write(frame.offset, &value.to_le_bytes()).expect("frame is there");
}

/// The range of `pages` pages at `addr`.
#[must_use]
pub fn range(addr: u64, pages: u64) -> AddrRange {
    AddrRange::new(addr, addr + pages * PAGE_SIZE)
}

/// Maps `pages` pages from `frame` at `addr`.
pub fn map(space: &dyn AddressSpace, addr: u64, frame: &Frame, pages: u64, prot: Prot) {
    let op = MapOp::Map { range: range(addr, pages), frame: frame.clone(), prot, pkey: 0 };
    space.apply(&[op]).expect("map");
}

/// Removes the translations of `pages` pages at `addr`.
pub fn unmap(space: &dyn AddressSpace, addr: u64, pages: u64) {
    space.apply(&[MapOp::Unmap { range: range(addr, pages) }]).expect("unmap");
}

/// A guest thread on a CPU of its own.
pub struct Guest {
    /// Its memory.
    pub space: Arc<dyn AddressSpace>,
    /// Its CPU.
    pub cpu: Box<dyn Cpu>,
    /// Its registers.
    pub state: ArchState,
}

impl Guest {
    /// Runs until something other than an interruption happens.
    pub fn run(&mut self) -> Exit {
        run(&mut *self.cpu, &self.space, &mut self.state)
    }

    /// Runs to a system call and answers its number.
    pub fn syscall(&mut self) -> u64 {
        let exit = self.run();
        assert_eq!(exit, Exit::Syscall, "at {:x?}", self.state.regs);
        self.state.regs.rax
    }
}

/// Runs until something other than an interruption happens; spurious interruptions are allowed, endless ones not.
pub fn run(cpu: &mut dyn Cpu, space: &Arc<dyn AddressSpace>, state: &mut ArchState) -> Exit {
    for _ in 0..1000 {
        match cpu.run(space, state) {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
    panic!("a thousand interruptions in a row");
}
