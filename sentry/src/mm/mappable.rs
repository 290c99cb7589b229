//! The seam between files and memory.

use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno};
use memory::Frame;
use platform::Access;

use crate::checkpoint::{Refused, Saver};
use crate::mm::Mm;
use crate::mm::saved::MappableState;

/// A byte range of a file, page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// A piece of a file and the frames that hold it.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The file's bytes, page-aligned.
    pub source: FileRange,
    /// The first frame; the rest follows.
    pub frame: Frame,
    /// Whether guests may write the frames directly (a shared writable mapping); otherwise a store is another fault.
    pub writable: bool,
}

/// Why a piece of a file has no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslateError {
    /// Past the end of the file, or the host cannot produce it: SIGBUS.
    Bus,
    /// Out of memory.
    NoMemory,
}

/// A thing that can be mapped: a regular file, a memfd, a shared anonymous object.
///
/// It keeps the reverse map: every mapping is announced, so that truncation, hole punching and copy-on-write can
/// invalidate all who see the frames.
pub trait Mappable: Send + Sync {
    /// The frames of (at least the first page of, at most) `range`. `range.start` must be translated or the call fails;
    /// `optional` says how far around the caller would like it, should that be cheap. The frames stay valid until the
    /// mappable invalidates the mapping; `MemoryFile` frames are *not* reference-counted for the caller.
    ///
    /// # Errors
    /// See [`TranslateError`].
    fn translate(
        &self,
        range: FileRange,
        optional: FileRange,
        access: Access,
    ) -> Result<Vec<Translation>, TranslateError>;

    /// `mm` maps `at` to this from `offset` on; `writable` for shared mappings that may be written.
    ///
    /// # Errors
    /// `EPERM`/`EACCES` where sealed; `ENOMEM`.
    fn add_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) -> Result<(), Errno>;

    /// That mapping, or a part of one, is gone.
    fn remove_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool);

    /// The offset of the frame behind `offset` in its frame file, where large pages could show it: addresses that are
    /// congruent to it are the better ones.
    fn placement(&self, _offset: u64) -> Option<u64> {
        None
    }

    /// Identity for futex keys and `/proc/PID/maps`: device and inode number.
    fn key(&self) -> crate::vfs::InodeKey;

    /// Frees the frames of `range`, which read as zeros from then on (`madvise(MADV_REMOVE)`). No lock of an address
    /// space is held.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file has no holes.
    fn punch(&self, _range: FileRange) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// What stands for it in saved state.
    ///
    /// # Errors
    /// Where it cannot be saved.
    fn save(self: Arc<Self>, saver: &mut Saver) -> Result<MappableState, Refused>;

    /// What `msync(MS_SYNC)` does.
    ///
    /// # Errors
    /// `EIO`.
    fn sync(&self, _range: FileRange) -> Result<(), Errno> {
        Ok(())
    }
}
