//! Address spaces: what guest programs mapped (Vma: intent) and what stands behind it (Pma: frames).
//!
//! The platform's address space is a cache of this and may be emptied at any time.

pub mod advise;
mod ahead;
pub mod brk;
pub mod extents;
pub mod fault;
pub mod fork;
pub mod holes;
pub mod info;
pub mod layout;
pub mod map;
pub mod mappable;
pub mod object;
pub mod pma;
mod premap;
pub mod protect;
pub mod realise;
pub mod remap;
mod reverse_map;
pub mod saved;
pub mod unmap;
pub mod user_copy;
pub mod vma;

#[cfg(test)]
pub(crate) mod test_platform;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno, UserAddr};
use memory::{MemoryFile, RangeMap};
use platform::{AddressSpace, Platform};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::kernel::Kernel;
use crate::mm::holes::Holes;
use crate::mm::layout::Layout;
use crate::mm::pma::Pmas;
use crate::mm::vma::{Vma, VmaFlags};
use crate::sync::{Level, Mutex, RwLock};
use crate::vfs::FileDescription;

/// The signal that an access earns which the memory map does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSignal {
    /// SIGSEGV or SIGBUS.
    pub signal: i32,
    /// `si_code`: SEGV_MAPERR 1, SEGV_ACCERR 2, SEGV_PKUERR 4; BUS_ADRERR 2.
    pub code: i32,
}

impl FaultSignal {
    /// Nothing is mapped there.
    #[must_use]
    pub fn maperr() -> Self {
        FaultSignal { signal: libc::SIGSEGV, code: 1 }
    }

    /// The mapping does not allow it.
    #[must_use]
    pub fn accerr() -> Self {
        FaultSignal { signal: libc::SIGSEGV, code: 2 }
    }

    /// A protection key does not allow it.
    #[must_use]
    pub fn pkey() -> Self {
        FaultSignal { signal: libc::SIGSEGV, code: 4 }
    }

    /// The sandbox has no memory left: the task is killed.
    #[must_use]
    pub fn out_of_memory() -> Self {
        FaultSignal { signal: libc::SIGKILL, code: 0x80 }
    }

    /// Past the end of the file behind the mapping, or the host cannot produce the page.
    #[must_use]
    pub fn bus_adrerr() -> Self {
        FaultSignal { signal: libc::SIGBUS, code: 2 }
    }
}

/// What the guest mapped, and the numbers that go with it.
pub struct Vmas {
    /// By address.
    pub map: RangeMap<Vma>,
    /// Where new mappings go.
    pub layout: Layout,
    /// What the search for a place remembers.
    pub holes: Holes,
    /// The heap: its start, and its end as `brk(2)` was told (not page-aligned).
    pub brk: AddrRange,
    /// `mlockall(MCL_FUTURE)`: flags that new mappings get.
    pub default_flags: VmaFlags,
    /// Protection keys in use, as bits; key 0 always is.
    pub pkeys: u16,
    /// What the loader placed, for `/proc/PID`.
    pub program: ProgramInfo,
}

impl Default for Vmas {
    fn default() -> Self {
        Vmas {
            map: RangeMap::new(),
            layout: Layout::default(),
            holes: Holes::default(),
            brk: AddrRange::default(),
            default_flags: VmaFlags::empty(),
            pkeys: 1,
            program: ProgramInfo::default(),
        }
    }
}

/// Where the loader put a program's parts (`prctl(PR_SET_MM)`'s fields), and its file.
#[derive(Clone, Default)]
pub struct ProgramInfo {
    /// The executable, for `/proc/PID/exe`.
    pub exe: Option<Arc<FileDescription>>,
    /// Program text.
    pub code: AddrRange,
    /// Initialised data.
    pub data: AddrRange,
    /// First address of the stack as the program found it.
    pub start_stack: u64,
    /// The argument strings, for `/proc/PID/cmdline`.
    pub args: AddrRange,
    /// The environment strings, for `/proc/PID/environ`.
    pub env: AddrRange,
    /// The auxiliary vector, for `/proc/PID/auxv`.
    pub auxv: Vec<u64>,
}

/// Limits of a process that concern its memory, bytes (`u64::MAX` is none). `setrlimit` keeps them current.
#[derive(Clone, Copy, Debug)]
pub struct MmLimits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK; `u64::MAX` for who has CAP_IPC_LOCK.
    pub memlock: u64,
}

impl Default for MmLimits {
    fn default() -> Self {
        MmLimits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, memlock: u64::MAX }
    }
}

/// An address space.
pub struct Mm {
    id: u64,
    this: Weak<Mm>,
    space: Arc<dyn AddressSpace>,
    pub(crate) memory: Arc<MemoryFile>,
    /// Intent. Taken before `pmas`; what is removed is dropped after it is released (files have locks above it).
    pub(crate) vmas: RwLock<Vmas>,
    /// Frames. The platform's space changes only while this is held, so that it never shows what is not here.
    pub(crate) pmas: Mutex<Pmas>,
    limits: Mutex<MmLimits>,
    oom: AtomicBool,
    given_up: AtomicBool,
    _cost: OverheadCharge,
}

/// What an address space costs beyond its pages, bytes: the first page tables, and a stub process where there is one.
const SPACE_COST: u64 = 64 << 10;

struct OverheadCharge(Arc<MemoryFile>);

impl OverheadCharge {
    fn new(memory: &Arc<MemoryFile>) -> Result<Self, Errno> {
        memory.charge_overhead(SPACE_COST)?;
        Ok(OverheadCharge(memory.clone()))
    }
}

impl Drop for OverheadCharge {
    fn drop(&mut self) {
        self.0.uncharge_overhead(SPACE_COST);
    }
}

impl Mm {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM` where the platform has no more.
    pub fn new(kernel: &Arc<Kernel>) -> Result<Arc<Self>, Errno> {
        Self::on(&kernel.platform, &kernel.memory)
    }

    /// An empty address space on a platform and its memory.
    ///
    /// # Errors
    /// `ENOMEM` where the platform has no more.
    pub fn on(platform: &Arc<dyn Platform>, memory: &Arc<MemoryFile>) -> Result<Arc<Self>, Errno> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let cost = OverheadCharge::new(memory)?;
        let space = platform.new_address_space().map_err(|e| {
            log::warn!("no address space: {e}");
            Errno::ENOMEM
        })?;
        Ok(Arc::new_cyclic(|this| Mm {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            this: this.clone(),
            space,
            memory: memory.clone(),
            vmas: RwLock::new(Level::Vmas, Vmas::default()),
            pmas: Mutex::new(Level::Pmas, Pmas::default()),
            limits: Mutex::new(Level::Leaf, MmLimits::default()),
            oom: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            _cost: cost,
        }))
    }

    /// Its name within the process, never reused.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the platform can show large pages: under a VM it writes the page tables itself.
    pub(crate) fn has_large_pages(&self) -> bool {
        self.memory.backing() == memory::Backing::Anonymous
    }

    /// The platform's cache of this address space.
    #[must_use]
    pub fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    /// The limits now.
    #[must_use]
    pub fn limits(&self) -> MmLimits {
        *self.limits.lock()
    }

    /// New limits (`setrlimit`, `execve`).
    pub fn set_limits(&self, limits: MmLimits) {
        *self.limits.lock() = limits;
    }

    /// Whether a page could not be had for want of memory since this was asked last: the task earns a SIGKILL.
    #[must_use]
    pub fn take_oom(&self) -> bool {
        self.oom.swap(false, Ordering::Relaxed)
    }

    /// The out-of-memory killer waited long enough for this memory, and looks elsewhere from now on.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether [`give_up`](Self::give_up) was called.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Takes all translations of `range`, which shows a mappable's frames, away; the next access asks it again.
    /// When this returns, no guest sees those frames through this address space.
    pub fn invalidate_mapping(&self, range: AddrRange) {
        let mut pmas = self.pmas.lock();
        pmas.invalidations += 1;
        let foreign: Vec<AddrRange> =
            pmas.map.overlapping(range).filter(|(_, p)| !p.owned).map(|(r, _)| r.intersect(&range)).collect();
        for r in foreign {
            pmas.map.remove(r);
            self.space.invalidate(r);
        }
    }

    /// Takes the private copies of `mappable`'s pages from file offset `from` on away, within `range`: the file has
    /// been cut off there. What else may have been mapped in `range` meanwhile stays.
    pub(super) fn drop_copies(&self, mappable: *const (), range: AddrRange, from: u64) {
        let vmas = self.vmas.read();
        let mut pmas = self.pmas.lock();
        let mut gone = Vec::new();
        for (at, vma) in vmas.map.overlapping(range) {
            let Some(file) = vma.file.as_ref().filter(|f| Arc::as_ptr(&f.mappable).cast::<()>() == mappable) else {
                continue;
            };
            let cut = AddrRange::new(at.start.saturating_add(from.saturating_sub(file.offset)).min(at.end), at.end);
            let owned: Vec<AddrRange> =
                pmas.map.overlapping(cut).filter(|(_, p)| p.owned).map(|(r, _)| r.intersect(&cut)).collect();
            for r in owned {
                gone.extend(pmas.map.remove(r));
                self.space.invalidate(r);
            }
        }
        self.memory.dec_refs(&pma::held_by(&gone));
    }

    /// Reads one structure, once.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, addr: UserAddr) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes one structure.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_obj<T: IntoBytes + Immutable>(&self, addr: UserAddr, value: &T) -> Result<(), Errno> {
        self.write_bytes(addr, value.as_bytes())
    }

    /// Reads a NUL-terminated string of at most `max` bytes, the NUL not counted.
    ///
    /// # Errors
    /// `EFAULT`; `ENAMETOOLONG` where no NUL comes in time.
    pub fn read_cstr(&self, addr: UserAddr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut at = addr;
        loop {
            // Never past the page: the string may end right before unmapped memory.
            let room = (abi::PAGE_SIZE - (at.0 & abi::PAGE_MASK)) as usize;
            let mut chunk = vec![0u8; room.min(256)];
            self.read_bytes(at, &mut chunk)?;
            if let Some(end) = chunk.iter().position(|b| *b == 0) {
                out.extend_from_slice(&chunk[..end]);
                return if out.len() > max { Err(Errno::ENAMETOOLONG) } else { Ok(out) };
            }
            out.extend_from_slice(&chunk);
            if out.len() > max {
                return Err(Errno::ENAMETOOLONG);
            }
            at = at.checked_add(chunk.len() as u64).ok_or(Errno::EFAULT)?;
        }
    }
}
