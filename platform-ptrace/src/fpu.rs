//! FPU state: kept in the stub while the same task runs there, moved through `PTRACE_{GET,SET}REGSET` otherwise.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::pid_t;
use platform::{ArchState, FpuState};

use crate::sys;

/// Components that need a permission which stubs do not have: AMX tiles.
const DYNAMIC: u64 = 0x6_0000;
/// Most bytes any host has, with a wide margin.
const MAX_AREA: usize = 1 << 16;

/// What FPU state looks like on this host.
#[derive(Clone, Copy, Debug)]
pub struct FpuFormat {
    /// Bytes that ptrace insists on.
    regset_len: usize,
    /// Bytes worth keeping: up to the end of the last component that guests can use.
    pub len: usize,
    /// Components that guests can use.
    pub xcr0: u64,
    /// MXCSR bits that may be set.
    mxcsr_mask: u32,
}

fn word32(area: &[u8], at: usize) -> u32 {
    area.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn word64(area: &[u8], at: usize) -> u64 {
    u64::from(word32(area, at)) | u64::from(word32(area, at + 4)) << 32
}

impl FpuFormat {
    /// Asks the host, by way of a stopped stub.
    ///
    /// # Errors
    /// What ptrace says; `Unsupported` without XSAVE.
    pub fn probe(pid: pid_t) -> io::Result<Self> {
        let mut area = vec![0; MAX_AREA];
        let regset_len = sys::get_xstate(pid, &mut area)?;
        // The software-reserved words of the legacy area tell the components (arch/x86/include/asm/user.h).
        let xcr0 = word64(&area, 464) & !DYNAMIC;
        if regset_len < 576 || xcr0 & 3 != 3 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the host's CPU has no XSAVE"));
        }
        let component = |n: u32| {
            let leaf = std::arch::x86_64::__cpuid_count(0xd, n);
            (leaf.eax + leaf.ebx) as usize
        };
        let len = (2..63).filter(|n| xcr0 >> n & 1 == 1).map(component).max().unwrap_or(576).max(576);
        let mask = word32(&area, 28);
        let mxcsr_mask = if mask == 0 { 0xffbf } else { mask };
        Ok(FpuFormat { regset_len, len: len.min(regset_len), xcr0, mxcsr_mask })
    }

    /// Fills `area` with `state` such that the host accepts it: what came from a guest's signal frame may be garbage,
    /// and the kernel above has already told the guest so or not; here it only must not fail.
    fn encode(&self, state: &FpuState, area: &mut Vec<u8>) {
        area.clear();
        match state {
            FpuState::Saved(bytes) => area.extend_from_slice(&bytes[..bytes.len().min(self.len)]),
            FpuState::Initial => area.extend_from_slice(&FpuState::Initial.to_xsave(576)),
        }
        area.resize(self.regset_len, 0);
        let mxcsr = word32(area, 24) & self.mxcsr_mask;
        area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        let mut present = word64(area, 512) & self.xcr0;
        if matches!(state, FpuState::Initial) {
            // The legacy parts are spelled out above; all else is in its initial state.
            present = 3;
        }
        area[512..520].copy_from_slice(&present.to_le_bytes());
        area[520..576].fill(0);
    }
}

/// The FPU state that a stub holds, and those it had to give up.
#[derive(Default)]
pub struct FpuSlot {
    /// Names the state in the stub; `None` where it belongs to nobody.
    loaded: Option<u64>,
    /// Whether that state is also in its task.
    saved: bool,
    /// States of tasks that were displaced before they were saved.
    displaced: HashMap<u64, Box<[u8]>>,
}

impl FpuSlot {
    /// Makes the stub hold `state`'s FPU state.
    ///
    /// # Errors
    /// What ptrace says.
    pub fn load(
        &mut self,
        format: &FpuFormat,
        pid: pid_t,
        state: &mut ArchState,
        area: &mut Vec<u8>,
    ) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.loaded.is_some() && self.loaded == state.fpu_token {
            self.saved = false;
            return Ok(());
        }
        self.displace(format, pid, area)?;
        self.take_displaced(state);
        format.encode(&state.fpu, area);
        sys::set_xstate(pid, area)?;
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        state.fpu_token = Some(token);
        (self.loaded, self.saved) = (Some(token), false);
        Ok(())
    }

    /// Keeps the state in the stub aside, unless its task has it.
    ///
    /// # Errors
    /// What ptrace says.
    pub fn displace(&mut self, format: &FpuFormat, pid: pid_t, area: &mut Vec<u8>) -> io::Result<()> {
        if let Some(token) = self.loaded.take().filter(|_| !self.saved) {
            self.displaced.insert(token, read(format, pid, area)?);
        }
        Ok(())
    }

    /// Brings the newest state of `state`'s FPU into it. The stub keeps its copy, and its name stays on both: a task
    /// that comes back before another ran here need not be loaded again.
    ///
    /// # Errors
    /// What ptrace says.
    pub fn save(
        &mut self,
        format: &FpuFormat,
        pid: pid_t,
        state: &mut ArchState,
        area: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Some(token) = state.fpu_token else { return Ok(()) };
        if !self.take_displaced(state) && self.loaded == Some(token) && !self.saved {
            state.fpu = FpuState::Saved(read(format, pid, area)?);
            self.saved = true;
        }
        Ok(())
    }

    /// Whether no task's state is only here, once the stub was displaced.
    pub fn is_empty(&self) -> bool {
        self.displaced.is_empty()
    }

    /// Gives `state` its displaced FPU state back, if it has one here.
    pub fn take_displaced(&mut self, state: &mut ArchState) -> bool {
        let Some(bytes) = state.fpu_token.and_then(|token| self.displaced.remove(&token)) else { return false };
        state.set_fpu(FpuState::Saved(bytes));
        true
    }
}

fn read(format: &FpuFormat, pid: pid_t, area: &mut Vec<u8>) -> io::Result<Box<[u8]>> {
    area.clear();
    area.resize(format.regset_len, 0);
    let len = sys::get_xstate(pid, area)?.min(format.len);
    // The software-reserved words are ptrace's note to us, not state.
    area[464..512].fill(0);
    Ok(area[..len].into())
}

/// Whether the x87 unit has an unmasked exception pending, which tells vector 16 from 19.
pub fn x87_error_pending(format: &FpuFormat, pid: pid_t) -> bool {
    let mut area = vec![0; format.regset_len];
    sys::get_xstate(pid, &mut area).is_ok() && area[2] & 0x80 != 0
}
