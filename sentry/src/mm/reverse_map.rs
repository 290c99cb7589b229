//! The reverse map of a memory object: who maps it where. A hostile program maps one object tens of thousands of
//! times, so adding and removing must not look at all of them.

use std::collections::BTreeMap;
use std::sync::Weak;

use abi::AddrRange;

use crate::mm::Mm;

/// A mapping of an object, or a part of one.
#[derive(Clone)]
pub struct Mapping {
    /// The address space.
    pub mm: Weak<Mm>,
    /// Its addresses.
    pub at: AddrRange,
    /// The object's byte at the first of them.
    pub offset: u64,
    /// Whether it may store to the object.
    pub writable: bool,
}

/// Which mappings cannot overlap: those of one address space that show the same bytes at the same addresses. While a
/// mapping moves, its old and its new place may well overlap.
type Kind = (usize, u64, bool);

/// All mappings of an object.
#[derive(Default)]
pub struct ReverseMap(BTreeMap<(Kind, u64), (u64, Weak<Mm>)>);

fn kind(mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) -> Kind {
    (mm.as_ptr() as usize, at.start.wrapping_sub(offset), writable)
}

impl Mapping {
    /// Whether it shows a byte of `file`.
    #[must_use]
    pub fn sees(&self, file: AddrRange) -> bool {
        AddrRange::new(self.offset, self.offset.saturating_add(self.at.len())).overlaps(&file)
    }

    /// Takes the translations of the object's bytes `file` from this mapper.
    pub fn invalidate(&self, file: AddrRange) {
        let Some(mm) = self.mm.upgrade() else { return };
        let start = file.start.max(self.offset) - self.offset;
        let end = file.end.saturating_sub(self.offset).min(self.at.len());
        mm.invalidate_mapping(AddrRange::new(self.at.start + start, self.at.start + end));
    }
}

impl ReverseMap {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Mapping> {
        self.0.iter().map(|(((_, delta, writable), start), (end, mm))| Mapping {
            mm: mm.clone(),
            at: AddrRange::new(*start, *end),
            offset: start.wrapping_sub(*delta),
            writable: *writable,
        })
    }

    /// Whether somebody may store through a mapping.
    #[must_use]
    pub fn has_writable(&self) -> bool {
        self.0.keys().any(|((_, _, writable), _)| *writable)
    }

    /// Notes a mapping.
    pub fn add(&mut self, mapping: Mapping) {
        let Mapping { mm, at, offset, writable } = mapping;
        self.0.insert((kind(&mm, at, offset, writable), at.start), (at.end, mm));
    }

    /// Forgets the mapping of `mm` at `at`, or that part of it. What shows other bytes there stays.
    pub fn remove(&mut self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) {
        let kind = kind(mm, at, offset, writable);
        while let Some((start, end)) = self.last_before(kind, at.end).filter(|(_, end)| *end > at.start) {
            self.0.remove(&(kind, start));
            if start < at.start {
                self.0.insert((kind, start), (at.start, mm.clone()));
            }
            if end > at.end {
                self.0.insert((kind, at.end), (end, mm.clone()));
            }
        }
    }

    /// The last of `kind` that starts before `end`.
    fn last_before(&self, kind: Kind, end: u64) -> Option<(u64, u64)> {
        let (&(_, start), &(stop, _)) = self.0.range((kind, 0)..(kind, end)).next_back()?;
        Some((start, stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(map: &ReverseMap) -> Vec<(u64, u64, u64)> {
        map.iter().map(|m| (m.at.start, m.at.end, m.offset)).collect()
    }

    #[test]
    fn parts_go_and_the_rest_stays() {
        let (mm, mut map) = (Weak::new(), ReverseMap::default());
        let mut add = |start, end, offset| {
            map.add(Mapping { mm: mm.clone(), at: AddrRange::new(start, end), offset, writable: false });
        };
        add(0x1000, 0x5000, 0);
        add(0x5000, 0x6000, 0x4000);
        // Other bytes at the same place.
        add(0x2000, 0x3000, 0);
        map.remove(&mm, AddrRange::new(0x2000, 0x3000), 0x1000, false);
        assert_eq!(
            ranges(&map),
            [(0x1000, 0x2000, 0), (0x3000, 0x5000, 0x2000), (0x5000, 0x6000, 0x4000), (0x2000, 0x3000, 0)]
        );
        // As one, where the two have become one mapping.
        map.remove(&mm, AddrRange::new(0x4000, 0x6000), 0x3000, false);
        assert_eq!(ranges(&map), [(0x1000, 0x2000, 0), (0x3000, 0x4000, 0x2000), (0x2000, 0x3000, 0)]);
        map.remove(&mm, AddrRange::new(0, 0x9000), 0, true);
        assert_eq!(map.len(), 3);
    }
}
