//! What entering and leaving the guest costs, by a guest of two instructions.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::AddrRange;
use memory::MemoryFile;
use platform::{AddressSpace, ArchState, Cpu, Exit, MapOp, Platform, Prot};

/// `syscall`, and a jump back to it.
const CODE: [u8; 4] = [0x0f, 0x05, 0xeb, 0xfc];
const CODE_AT: u64 = 0x40_0000;
const PAGE: u64 = 4096;
const BATCHES: u32 = 5;
const TRIPS: u32 = 10;

/// Proves that `platform` runs guest code, and answers what one system call's round trip costs (best of a few batches).
///
/// # Errors
/// What the platform says, or how the guest stopped instead of making its call.
pub fn round_trip(platform: &Arc<dyn Platform>) -> io::Result<Duration> {
    let memory = MemoryFile::new(platform.memory_backing(), 1 << 20)?;
    platform.attach_memory(&memory)?;
    let frame = memory.allocate(PAGE, PAGE).map_err(|e| io::Error::other(format!("guest memory: {e:?}")))?;
    memory.file().write(frame, &CODE).map_err(io::Error::other)?;
    let space = platform.new_address_space()?;
    let range = AddrRange::new(CODE_AT, CODE_AT + PAGE);
    let map = MapOp::Map { range, frame: memory.frame(frame), prot: Prot::READ | Prot::EXEC, pkey: 0 };
    space.apply(&[map]).map_err(|e| io::Error::other(format!("mapping guest memory: {e:?}")))?;
    let mut cpu = platform.new_cpu()?;
    let mut state = ArchState::new();
    state.regs.rip = CODE_AT;
    trips(cpu.as_mut(), &space, &mut state)?;
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        trips(cpu.as_mut(), &space, &mut state)?;
        best = best.min(start.elapsed() / TRIPS);
    }
    cpu.forget(&space);
    Ok(best)
}

fn trips(cpu: &mut dyn Cpu, space: &Arc<dyn AddressSpace>, state: &mut ArchState) -> io::Result<()> {
    let (mut done, mut spurious) = (0, 0);
    while done < TRIPS {
        match cpu.run(space, state) {
            Exit::Syscall => done += 1,
            Exit::Interrupted if spurious < 1000 => spurious += 1,
            other => return Err(io::Error::other(format!("the trial guest stopped with {other:?}"))),
        }
    }
    Ok(())
}
