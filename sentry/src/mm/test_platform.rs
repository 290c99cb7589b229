//! A platform without a CPU, for tests: it remembers translations, so that a test can play the guest.

use std::io;
use std::sync::Arc;

use abi::{AddrRange, Errno, UserAddr, page_down};
use memory::{Backing, Frame, MemoryFile, RangeMap, RangeValue};
use parking_lot::Mutex;
use platform::{Access, AddressSpace, Cpu, MapOp, Platform, Prot, SyscallRule};

use crate::mm::{FaultSignal, Mm};

#[derive(Clone)]
struct Shown(Frame, Prot);

impl RangeValue for Shown {
    fn advance(&self, by: u64) -> Self {
        Shown(self.0.advance(by), self.1)
    }
    fn continues(&self, _: u64, _: &Self) -> bool {
        false
    }
}

/// Translations, as a page table would have them.
#[derive(Default)]
pub struct TestSpace(Mutex<RangeMap<Shown>>);

impl AddressSpace for TestSpace {
    fn apply(&self, ops: &[MapOp]) -> Result<(), Errno> {
        for op in ops {
            match op {
                MapOp::Map { range, frame, prot, .. } => {
                    assert!(!range.is_empty() && range.start % 4096 == 0 && range.end % 4096 == 0);
                    self.0.lock().insert(*range, Shown(frame.clone(), *prot));
                }
                MapOp::Unmap { range } => self.invalidate(*range),
            }
        }
        Ok(())
    }

    fn invalidate(&self, range: AddrRange) {
        self.0.lock().remove(range);
    }
}

/// The platform.
pub struct TestPlatform(pub Backing);

impl Platform for TestPlatform {
    fn name(&self) -> &'static str {
        "test"
    }
    fn memory_backing(&self) -> Backing {
        self.0
    }
    fn attach_memory(&self, _: &Arc<MemoryFile>) -> io::Result<()> {
        Ok(())
    }
    fn new_address_space(&self) -> io::Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(TestSpace::default()))
    }
    fn new_cpu(&self) -> io::Result<Box<dyn Cpu>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn max_cpus(&self) -> usize {
        1
    }
    fn seccomp_rules(&self) -> Vec<SyscallRule> {
        Vec::new()
    }
    fn xsave_size(&self) -> usize {
        576
    }
    fn xcr0(&self) -> u64 {
        3
    }
}

fn shown(mm: &Mm, addr: u64, write: bool) -> Option<Frame> {
    let space = mm.space();
    let space = (*space).as_any().downcast_ref::<TestSpace>()?;
    let map = space.0.lock();
    let (r, s) = map.get(addr)?;
    let need = if write { Prot::WRITE } else { Prot::READ };
    s.1.contains(need).then(|| s.0.advance(addr - r.start))
}

fn access(mm: &Mm, addr: u64, write: bool) -> Result<Frame, FaultSignal> {
    for _ in 0..4 {
        if let Some(frame) = shown(mm, addr, write) {
            return Ok(frame);
        }
        mm.handle_fault(addr, if write { Access::WRITE } else { Access::READ })?;
    }
    panic!("a fault at {addr:#x} was served and nothing was mapped");
}

/// Loads a byte as the guest would.
pub fn load(mm: &Mm, addr: u64) -> Result<u8, FaultSignal> {
    let frame = access(mm, addr, false)?;
    let mut byte = [0];
    frame.file.read(frame.offset, &mut byte).map_err(|_| FaultSignal::bus_adrerr())?;
    Ok(byte[0])
}

/// Stores a byte as the guest would.
pub fn store(mm: &Mm, addr: u64, value: u8) -> Result<(), FaultSignal> {
    let frame = access(mm, addr, true)?;
    frame.file.write(frame.offset, &[value]).map_err(|_| FaultSignal::bus_adrerr())
}

/// An address space of its own, with `limit` bytes of memory.
pub fn new_mm(backing: Backing, limit: u64) -> (Arc<dyn Platform>, Arc<MemoryFile>, Arc<Mm>) {
    let platform: Arc<dyn Platform> = Arc::new(TestPlatform(backing));
    let memory = MemoryFile::new(backing, limit).expect("memory file");
    let mm = Mm::on(&platform, &memory).expect("address space");
    (platform, memory, mm)
}

/// Checks that nothing is shown to the guest which the kernel does not know.
pub fn check_cache(mm: &Mm) {
    let space = mm.space();
    let Some(space) = (*space).as_any().downcast_ref::<TestSpace>() else { return };
    let (vmas, pmas) = (mm.vmas.read(), mm.pmas.lock());
    for (r, s) in space.0.lock().iter() {
        let mut at = r.start;
        while at < r.end {
            let (pr, pma) = pmas.map.get(at).expect("shown without a frame");
            let (vr, vma) = vmas.map.get(page_down(at)).expect("shown without a mapping");
            assert!(pma.frame.advance(at - pr.start) == s.0.advance(at - r.start), "another frame is shown at {at:#x}");
            assert!(vma.cpu_prot().contains(s.1), "more is allowed than was asked for");
            assert!(!s.1.contains(Prot::WRITE) || pma.takes_stores(), "a shared page can be written");
            at = pr.end.min(vr.end);
        }
    }
}

/// A user address.
pub fn at(addr: u64) -> UserAddr {
    UserAddr(addr)
}
