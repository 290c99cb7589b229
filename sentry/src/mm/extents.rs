//! Where in the memory file the pages of one owner (an address space, a memory object) go.
//!
//! Offsets are cheap and contiguity is dear: pages that are realised one by one must keep the order of their
//! addresses, so that neighbours merge into one Pma and one host mapping. So an owner reserves a *chunk* of offset
//! space at the first page and takes the others from it.

use abi::{AddrRange, Errno};
use memory::{Extent, MemoryFile, RangeMap, RangeValue};

/// Longest piece of offset space reserved at once.
const CHUNK: u64 = 256 << 20;
/// The unit at which hosts have huge pages.
pub const HUGE: u64 = 2 << 20;

/// The memory file offset where a range of the owner's addresses would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl RangeValue for Place {
    fn advance(&self, by: u64) -> Self {
        Place(self.0 + by)
    }
    fn continues(&self, len: u64, next: &Self) -> bool {
        self.0 + len == next.0
    }
}

/// An owner's reservations, by the owner's addresses.
#[derive(Debug, Default)]
pub struct Extents {
    map: RangeMap<Place>,
}

impl Extents {
    /// Takes fresh zero frames for (the start of) `range`, inside `bounds`, within which later neighbours are expected.
    /// Answers the part that was served and its memory file offset.
    ///
    /// # Errors
    /// `ENOMEM` past the memory limit.
    pub fn commit(
        &mut self,
        memory: &MemoryFile,
        range: AddrRange,
        bounds: AddrRange,
    ) -> Result<(AddrRange, u64), Errno> {
        for _ in 0..2 {
            let (reserved, place) = match self.map.get(range.start) {
                Some((r, p)) => (r, *p),
                None => self.reserve(memory, range, bounds)?,
            };
            let part = range.intersect(&reserved);
            let offset = place.0 + (part.start - reserved.start);
            match memory.commit(AddrRange::new(offset, offset + part.len())) {
                Ok(()) => return Ok((part, offset)),
                // A fork or an earlier owner still holds a frame there: go elsewhere from now on.
                Err(Errno::EEXIST) => self.remove(memory, reserved),
                Err(e) => return Err(e),
            }
        }
        let offset = memory.allocate(range.len(), abi::PAGE_SIZE)?;
        Ok((range, offset))
    }

    fn reserve(
        &mut self,
        memory: &MemoryFile,
        range: AddrRange,
        bounds: AddrRange,
    ) -> Result<(AddrRange, Place), Errno> {
        let chunk = abi::AddrRange::new(range.start & !(CHUNK - 1), (range.start & !(CHUNK - 1)).saturating_add(CHUNK));
        let mut want = bounds.intersect(&chunk);
        if let Some((before, _)) = self.map.before(range.start) {
            want.start = want.start.max(before.end);
        }
        if let Some((after, _)) = self.map.at_or_after(range.start) {
            want.end = want.end.min(after.start);
        }
        let align = if want.len() >= HUGE { HUGE } else { abi::PAGE_SIZE };
        let extent = memory.reserve_congruent(want.len(), align, want.start)?;
        self.map.insert(want, Place(extent.offset));
        self.map.get(range.start).map(|(r, p)| (r, *p)).ok_or(Errno::ENOMEM)
    }

    /// Gives back the reservations of `range`. Frames in use stay with their holders.
    pub fn remove(&mut self, memory: &MemoryFile, range: AddrRange) {
        for (r, place) in self.map.remove(range) {
            memory.unreserve(Extent { offset: place.0, len: r.len() });
        }
    }

    /// Moves the reservations of `from` to the addresses from `to` on, as `mremap` moves their pages.
    pub fn relocate(&mut self, memory: &MemoryFile, from: AddrRange, to: u64) {
        let moved = self.map.remove(from);
        self.remove(memory, AddrRange::new(to, to.saturating_add(from.len())));
        for (r, place) in moved {
            let start = r.start - from.start + to;
            self.map.insert(AddrRange::new(start, start + r.len()), place);
        }
    }

    /// Gives back everything.
    pub fn clear(&mut self, memory: &MemoryFile) {
        self.remove(memory, AddrRange::new(0, u64::MAX));
    }
}
