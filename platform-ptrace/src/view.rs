//! Translations as the kernel wants them, and what one stub still lacks of them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::ThreadId;

use abi::AddrRange;
use memory::{Frame, RangeMap, RangeValue};
use platform::Prot;

use crate::stub::StubProcess;

/// What a guest page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// First frame of the range.
    pub frame: Frame,
    /// Access allowed.
    pub prot: Prot,
    /// Protection key.
    pub pkey: u8,
}

impl RangeValue for Translation {
    fn advance(&self, by: u64) -> Self {
        Translation { frame: self.frame.advance(by), ..self.clone() }
    }
    fn continues(&self, len: u64, next: &Self) -> bool {
        self.prot == next.prot
            && self.pkey == next.pkey
            && self.frame.file.id() == next.frame.file.id()
            && self.frame.offset.checked_add(len) == Some(next.frame.offset)
    }
}

impl Translation {
    /// Whether a stub that still has `self` shows nothing wrong where `new` is wanted: at worst it faults.
    fn grows_into(&self, new: &Translation) -> bool {
        self.frame == new.frame && self.pkey == new.pkey && new.prot.contains(self.prot)
    }
}

/// The stub has nothing wrong in a range, but may have less than it should.
pub const LACKS: u32 = 0;
/// The stub may have a translation that must not be used any more.
pub const STALE: u32 = 1;

/// One CPU's stub in a space.
pub struct View {
    /// Index of the CPU.
    pub cpu: usize,
    /// The CPU's thread.
    pub owner: ThreadId,
    /// How many stubs of the CPU are without a space.
    pub idle: Arc<AtomicUsize>,
    /// Its stub.
    pub stub: Arc<StubProcess>,
    /// Where the stub differs from the space: [`LACKS`] or [`STALE`].
    pub dirty: RangeMap<u32>,
    /// Whether missing translations wait for their fault: after the host ran out of room for mappings.
    pub lazy: bool,
    /// Whether the stub may be running guest code.
    pub in_guest: bool,
    /// Entries into guest code so far.
    pub entries: u64,
}

impl View {
    /// Notes that `range` differs; [`STALE`] is never weakened.
    fn mark(&mut self, range: AddrRange, how: u32) {
        if how == STALE {
            self.dirty.insert(range, STALE);
        } else {
            for gap in self.dirty.gaps(range) {
                self.dirty.insert(gap, LACKS);
            }
        }
    }
}

/// A change of `range` in `map` to `new`: the parts in which stubs now differ.
fn differences(map: &RangeMap<Translation>, range: AddrRange, new: Option<&Translation>) -> Vec<(AddrRange, u32)> {
    let mut parts = Vec::new();
    for (r, old) in map.overlapping(range) {
        let part = AddrRange::new(r.start.max(range.start), r.end.min(range.end));
        let how = match new {
            None => STALE,
            Some(new) => {
                let (old, new) = (old.advance(part.start - r.start), new.advance(part.start - range.start));
                if old == new {
                    continue;
                }
                if old.grows_into(&new) { LACKS } else { STALE }
            }
        };
        parts.push((part, how));
    }
    if new.is_some() {
        parts.extend(map.gaps(range).into_iter().map(|gap| (gap, LACKS)));
    }
    parts
}

/// Makes `range` show `new` (or nothing); answers whether a translation was replaced that stubs may hold.
pub fn change(map: &mut RangeMap<Translation>, views: &mut [View], range: AddrRange, new: Option<Translation>) -> bool {
    let parts = differences(map, range, new.as_ref());
    for view in views {
        parts.iter().for_each(|&(part, how)| view.mark(part, how));
    }
    match new {
        Some(new) => map.insert(range, new),
        None => drop(map.remove(range)),
    }
    parts.iter().any(|&(_, how)| how == STALE)
}
