//! Address spaces: what guest programs mapped (Vma: intent) and what stands behind it (Pma: frames).
//!
//! The platform's address space is a cache of this and may be emptied at any time.

pub mod extents;
pub mod mappable;
pub mod object;

use std::sync::Arc;

use abi::{Errno, UserAddr};
use platform::{Access, AddressSpace};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::kernel::Kernel;

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

    /// Past the end of the file behind the mapping, or the host cannot produce the page.
    #[must_use]
    pub fn bus_adrerr() -> Self {
        FaultSignal { signal: libc::SIGBUS, code: 2 }
    }
}

/// An address space.
pub struct Mm {
    space: Arc<dyn AddressSpace>,
}

impl Mm {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM` where the platform has no more.
    pub fn new(kernel: &Arc<Kernel>) -> Result<Arc<Self>, Errno> {
        let space = kernel.platform.new_address_space().map_err(|e| {
            log::warn!("no address space: {e}");
            Errno::ENOMEM
        })?;
        Ok(Arc::new(Mm { space }))
    }

    /// The platform's cache of this address space.
    #[must_use]
    pub fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    /// Takes all translations of `range`, which shows a mappable's frames, away; the next access asks it again.
    pub fn invalidate_mapping(&self, range: abi::AddrRange) {
        self.space.invalidate(range);
    }

    /// Serves a page fault: realises and maps the page (and its neighbours).
    ///
    /// # Errors
    /// The signal that the access earns.
    pub fn handle_fault(&self, _addr: u64, _access: Access) -> Result<(), FaultSignal> {
        Err(FaultSignal::maperr())
    }

    /// Copies `dst.len()` bytes in from the guest.
    ///
    /// # Errors
    /// `EFAULT` where any of them cannot be read; `dst` may be partly filled.
    pub fn read_bytes(&self, _addr: UserAddr, _dst: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    /// Copies `src` out to the guest.
    ///
    /// # Errors
    /// `EFAULT` where any byte cannot be written; a part may have been.
    pub fn write_bytes(&self, _addr: UserAddr, _src: &[u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
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
