//! Address spaces as platforms see them: translations from guest pages to frames.

use abi::{AddrRange, Errno};
use memory::Frame;

use crate::AsAny;

bitflags::bitflags! {
    /// What guest code may do with a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Prot: u8 {
        /// Load.
        const READ = 1;
        /// Store.
        const WRITE = 2;
        /// Execute.
        const EXEC = 4;
    }
}

/// One change of an address space. Addresses and lengths are page-aligned, ranges not empty and below `USER_END`.
#[derive(Clone, Debug)]
pub enum MapOp {
    /// Makes `range` show the frames from `frame` on with `prot`, whatever was there before.
    Map {
        /// Guest addresses.
        range: AddrRange,
        /// First frame; the range shows consecutive offsets of the file.
        frame: Frame,
        /// Access allowed.
        prot: Prot,
        /// Protection key, 0..16.
        pkey: u8,
    },
    /// Removes all translations of `range`.
    Unmap {
        /// Guest addresses.
        range: AddrRange,
    },
}

/// A guest address space: a cache of translations. Dropping the last reference frees it (after its last Cpu left).
///
/// Both methods may be called from any thread, while CPUs run in the space. When they return, no CPU uses a
/// translation that the call replaced or removed, so its frames may be reused; an implementation may delay the work
/// until the space is next entered, as long as nothing can observe that.
pub trait AddressSpace: Send + Sync + AsAny {
    /// Applies the changes in order, as a batch.
    ///
    /// # Errors
    /// `ENOMEM` where the host has no more room. The space is then *empty* (every translation gone), which is always
    /// correct: the guest will fault pages back in.
    fn apply(&self, ops: &[MapOp]) -> Result<(), Errno>;

    /// Removes all translations of `range`.
    fn invalidate(&self, range: AddrRange);
}
