//! Realised memory: the frames that stand behind a range of addresses.

use abi::AddrRange;
use memory::{FileKind, Frame, RangeMap, RangeValue};
use platform::{MapOp, Prot};

use crate::mm::extents::Extents;
use crate::mm::vma::Vma;

/// Frames behind a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pma {
    /// The first frame; the rest follows.
    pub frame: Frame,
    /// The pages are this address space's own; otherwise they are a mappable's, which invalidates them. Frames of the
    /// memory file are held by reference then, those of a snapshot just stay.
    pub owned: bool,
    /// A store needs a copy of its own first.
    pub cow: bool,
    /// A store may go straight to the frame (shared mappings whose translation allows it; private frames of ours).
    pub writable: bool,
}

impl Pma {
    /// Fresh frames of our own.
    #[must_use]
    pub fn private(frame: Frame) -> Self {
        Pma { frame, owned: true, cow: false, writable: true }
    }

    /// Whether a store may go straight to the frame.
    #[must_use]
    pub fn takes_stores(&self) -> bool {
        self.writable && !self.cow
    }

    /// Pages of our own that still lie in a snapshot: a store copies them.
    #[must_use]
    pub fn saved(frame: Frame) -> Self {
        Pma { frame, owned: true, cow: true, writable: true }
    }

    /// Whether the frames are counted references to the memory file.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.owned && self.frame.file.kind() == FileKind::Memory
    }

    /// The memory file offsets of `len` bytes, where we hold them.
    #[must_use]
    pub fn held(&self, len: u64) -> Option<AddrRange> {
        self.is_held().then(|| AddrRange::new(self.frame.offset, self.frame.offset + len))
    }

    /// The change that shows this to the guest with the access that `vma` allows.
    #[must_use]
    pub fn map_op(&self, range: AddrRange, vma: &Vma) -> MapOp {
        let mut prot = vma.cpu_prot();
        prot.set(Prot::WRITE, prot.contains(Prot::WRITE) && self.takes_stores());
        MapOp::Map { range, frame: self.frame.clone(), prot, pkey: vma.pkey }
    }
}

impl RangeValue for Pma {
    fn advance(&self, by: u64) -> Self {
        Pma { frame: self.frame.advance(by), ..*self }
    }

    fn continues(&self, len: u64, next: &Self) -> bool {
        self.owned == next.owned
            && self.cow == next.cow
            && self.writable == next.writable
            && self.frame.file.id() == next.frame.file.id()
            && self.frame.offset + len == next.frame.offset
    }
}

/// All realised memory of an address space.
#[derive(Default)]
pub struct Pmas {
    /// By address.
    pub map: RangeMap<Pma>,
    /// Where private pages go.
    pub extents: Extents,
    /// Counts invalidations by mappables: a translation asked for before one is void after it.
    pub invalidations: u64,
    /// Where stores to shared private pages happened lately, latest last: the next fork copies these at once.
    pub hot: Vec<AddrRange>,
    /// What was copied last for a store.
    pub last_copy: AddrRange,
}

impl Pmas {
    /// Most windows that a fork copies at once.
    const MOST_HOT: usize = 8;

    /// Notes that a store to `range` had to be served after a fork.
    pub fn note_hot(&mut self, range: AddrRange) {
        self.hot.retain(|r| r.intersect(&range).is_empty());
        if self.hot.len() >= Self::MOST_HOT {
            self.hot.remove(0);
        }
        self.hot.push(range);
    }
}

/// The memory file offsets of what `gone` held.
#[must_use]
pub fn held_by(gone: &[(AddrRange, Pma)]) -> Vec<AddrRange> {
    gone.iter().filter_map(|(r, pma)| pma.held(r.len())).collect()
}
