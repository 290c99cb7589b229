//! What the search for free addresses remembers, so that a program with tens of thousands of mappings does not pay for
//! all of them at each new one.
//!
//! Above [`Holes::searched`] no hole is longer than [`Holes::longest`], so a search for more starts there and finds
//! the same place as one from the top. Both are bounds, not truths: mappings that fill holes need not tell.

use abi::{AddrRange, Errno};
use memory::RangeMap;

use crate::mm::Vmas;
use crate::mm::layout::{self, guarded_start};
use crate::mm::vma::Vma;

/// What the last search from the top downwards saw.
#[derive(Clone, Copy, Debug)]
pub struct Holes {
    searched: u64,
    longest: u64,
}

impl Default for Holes {
    fn default() -> Self {
        Holes { searched: u64::MAX, longest: 0 }
    }
}

/// The highest free range of `len` bytes between `low` and `high`, and the longest hole above it.
fn search(map: &RangeMap<Vma>, low: u64, high: u64, len: u64) -> (Option<u64>, u64) {
    let (mut end, mut longest) = (high, 0);
    if let Some((r, vma)) = map.at_or_after(high) {
        end = end.min(guarded_start(r, vma));
    }
    for (r, vma) in map.iter_before(high) {
        if end.checked_sub(len).is_some_and(|start| start >= r.end && start >= low) {
            return (Some(end - len), longest);
        }
        longest = longest.max(end.saturating_sub(r.end));
        end = end.min(guarded_start(r, vma));
        if end < low {
            return (None, longest);
        }
    }
    (end.checked_sub(len).filter(|&start| start >= low), longest)
}

impl Holes {
    /// The highest free range of `len` bytes between `low` and `high`.
    pub fn find_top_down(&mut self, map: &RangeMap<Vma>, low: u64, high: u64, len: u64) -> Option<u64> {
        if len > self.longest && self.searched < high {
            let (found, longest) = search(map, low, self.searched, len);
            if let Some(start) = found {
                *self = Holes { searched: start, longest: self.longest.max(longest) };
                return found;
            }
        }
        let (found, longest) = search(map, low, high, len);
        *self = found.map_or_else(Holes::default, |start| Holes { searched: start, longest });
        found
    }

    /// `range` has become free in `map`.
    pub fn freed(&mut self, map: &RangeMap<Vma>, range: AddrRange) {
        let start = map.before(range.start).map_or(0, |(r, _)| r.end);
        let end = map.at_or_after(range.end).map_or(u64::MAX, |(r, _)| r.start);
        if end > self.searched {
            self.longest = self.longest.max(end.saturating_sub(start));
        }
    }
}

impl Vmas {
    /// A free place for `len` bytes, at `hint` where that is free, as `get_unmapped_area` chooses; with `low32` in the
    /// first 2 GiB.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn find_free(&mut self, hint: u64, len: u64, low32: bool) -> Result<u64, Errno> {
        layout::find_free(&self.map, &self.layout, &mut self.holes, hint, len, low32)
    }

    /// Takes the mappings of `range` out.
    pub fn take_out(&mut self, range: AddrRange) -> Vec<(AddrRange, Vma)> {
        let gone = self.map.remove(range);
        self.holes.freed(&self.map, range);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::vma::VmaFlags;
    use platform::Prot;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_search_of_all_finds(steps in proptest::collection::vec((any::<bool>(), 0u64..64, 1u64..6), 1..200)) {
            let (low, high, page) = (0x1_0000, 0x1_0000 + 256 * 0x1000, 0x1000);
            let (mut map, mut holes) = (RangeMap::new(), Holes::default());
            for (take, at, pages) in steps {
                if take {
                    let all = search(&map, low, high, pages * page).0;
                    let found = holes.find_top_down(&map, low, high, pages * page);
                    prop_assert_eq!(found, all);
                    if let Some(start) = found {
                        let flags = if at % 2 == 0 { VmaFlags::empty() } else { VmaFlags::LOCKED };
                        map.insert(AddrRange::new(start, start + pages * page), Vma::anonymous(Prot::READ, flags));
                    }
                } else {
                    let start = high - (at + pages) * page;
                    let range = AddrRange::new(start, start + pages * page);
                    map.remove(range);
                    holes.freed(&map, range);
                }
            }
        }
    }
}
