//! A map from disjoint ranges of `u64` to values, which merges neighbours that belong together.
//!
//! Both halves of an address space are such maps (Vma: intent, Pma: realised frames), as is the reference count of
//! a memory file. Values that depend on their position (a file offset) say how they continue by [`RangeValue`].

use std::collections::BTreeMap;

use abi::AddrRange;

/// A value of a [`RangeMap`].
pub trait RangeValue: Clone {
    /// The value for the part of a range that starts `by` after the range's start.
    #[must_use]
    fn advance(&self, by: u64) -> Self;
    /// Whether `next`, standing `len` after the start of `self`'s range and right behind it, continues `self`.
    fn continues(&self, len: u64, next: &Self) -> bool;
}

/// A map of disjoint, non-empty ranges.
#[derive(Clone, Debug)]
pub struct RangeMap<V> {
    map: BTreeMap<u64, (u64, V)>,
    /// Sum of the ranges' lengths.
    covered: u64,
    /// The most that it has been.
    most: u64,
}

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        RangeMap { map: BTreeMap::new(), covered: 0, most: 0 }
    }
}

impl<V: RangeValue> RangeMap<V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The sum of the ranges' lengths.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// The most that [`Self::covered`] has been.
    #[must_use]
    pub fn most_covered(&self) -> u64 {
        self.most
    }

    /// The range that holds `at`, with its value.
    #[must_use]
    pub fn get(&self, at: u64) -> Option<(AddrRange, &V)> {
        let (&start, (end, value)) = self.map.range(..=at).next_back()?;
        (at < *end).then_some((AddrRange { start, end: *end }, value))
    }

    /// The first range that ends after `at`.
    #[must_use]
    pub fn at_or_after(&self, at: u64) -> Option<(AddrRange, &V)> {
        self.get(at).or_else(|| self.map.range(at..).next().map(|(&s, (e, v))| (AddrRange { start: s, end: *e }, v)))
    }

    /// The last range that starts before `at`.
    #[must_use]
    pub fn before(&self, at: u64) -> Option<(AddrRange, &V)> {
        self.map.range(..at).next_back().map(|(&s, (e, v))| (AddrRange { start: s, end: *e }, v))
    }

    /// The ranges that start before `at`, the last first.
    pub fn iter_before(&self, at: u64) -> impl Iterator<Item = (AddrRange, &V)> {
        self.map.range(..at).rev().map(|(&s, (e, v))| (AddrRange { start: s, end: *e }, v))
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (AddrRange, &V)> {
        self.map.iter().map(|(&start, (end, v))| (AddrRange { start, end: *end }, v))
    }

    /// The ranges that share an address with `range`, whole, in order.
    pub fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = (AddrRange, &V)> {
        let first = self.get(range.start).map_or(range.start, |(r, _)| r.start);
        let end = if range.is_empty() { first } else { range.end };
        self.map.range(first..end.max(first)).map(|(&start, (e, v))| (AddrRange { start, end: *e }, v))
    }

    /// The parts of `range` that no range covers, in order.
    #[must_use]
    pub fn gaps(&self, range: AddrRange) -> Vec<AddrRange> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for (r, _) in self.overlapping(range) {
            if r.start > at {
                gaps.push(AddrRange { start: at, end: r.start });
            }
            at = r.end;
        }
        if at < range.end {
            gaps.push(AddrRange { start: at, end: range.end });
        }
        gaps
    }

    /// Makes `at` a boundary: a range across it becomes two.
    pub fn split(&mut self, at: u64) {
        let Some((&start, (end, value))) = self.map.range_mut(..at).next_back() else { return };
        if at < *end {
            let tail = (*end, value.advance(at - start));
            *end = at;
            self.map.insert(at, tail);
        }
    }

    /// Takes out everything inside `range`, split at its ends, in order.
    pub fn remove(&mut self, range: AddrRange) -> Vec<(AddrRange, V)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.map.range(range.start..range.end).map(|(&s, _)| s).collect();
        let take = |s: u64| self.map.remove(&s).map(|(end, v)| (AddrRange { start: s, end }, v));
        let gone: Vec<_> = starts.into_iter().filter_map(take).collect();
        self.covered -= gone.iter().map(|(r, _)| r.len()).sum::<u64>();
        gone
    }

    /// Puts `value` at `range`, replacing what was there, and merges it with its neighbours. Empty ranges do nothing.
    pub fn insert(&mut self, range: AddrRange, value: V) {
        if range.is_empty() {
            return;
        }
        self.remove(range);
        self.map.insert(range.start, (range.end, value));
        self.covered += range.len();
        self.most = self.most.max(self.covered);
        self.merge_at(range.end);
        self.merge_at(range.start);
    }

    /// Joins the two ranges that meet at `at`, where they continue each other.
    pub fn merge_at(&mut self, at: u64) {
        let Some((next_end, next)) = self.map.get(&at) else { return };
        let Some((&start, (end, value))) = self.map.range(..at).next_back() else { return };
        if *end == at && value.continues(at - start, next) {
            let next_end = *next_end;
            self.map.remove(&at);
            if let Some(entry) = self.map.get_mut(&start) {
                entry.0 = next_end;
            }
        }
    }

    /// Changes the value of every range inside `range`, split at its ends, then merges neighbours.
    pub fn update(&mut self, range: AddrRange, mut change: impl FnMut(AddrRange, &mut V)) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let mut bounds = vec![range.end];
        for (&start, (end, value)) in self.map.range_mut(range.start..range.end) {
            change(AddrRange { start, end: *end }, value);
            bounds.push(start);
        }
        bounds.into_iter().for_each(|at| self.merge_at(at));
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.map.clear();
        self.covered = 0;
    }
}

/// A plain value that does not depend on its position and merges with its equals.
impl RangeValue for u32 {
    fn advance(&self, _by: u64) -> Self {
        *self
    }
    fn continues(&self, _len: u64, next: &Self) -> bool {
        self == next
    }
}

/// Presence alone: a set of ranges.
impl RangeValue for () {
    fn advance(&self, _by: u64) {}
    fn continues(&self, _len: u64, _next: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_splits_and_merges() {
        let mut m = RangeMap::new();
        m.insert(AddrRange::new(0, 10), 1u32);
        m.insert(AddrRange::new(4, 6), 2);
        assert_eq!(m.len(), 3);
        m.insert(AddrRange::new(4, 6), 1);
        assert_eq!(m.len(), 1);
        assert_eq!(m.gaps(AddrRange::new(5, 15)), vec![AddrRange::new(10, 15)]);
        m.update(AddrRange::new(2, 3), |_, v| *v += 1);
        assert_eq!(m.get(2), Some((AddrRange::new(2, 3), &2)));
    }

    #[test]
    fn it_knows_how_much_it_covers_and_covered() {
        let mut m = RangeMap::new();
        m.insert(AddrRange::new(0, 10), 1u32);
        m.insert(AddrRange::new(5, 20), 2);
        assert_eq!((m.covered(), m.most_covered()), (20, 20));
        m.remove(AddrRange::new(3, 8));
        m.insert(AddrRange::new(0, 3), 7);
        assert_eq!((m.covered(), m.most_covered()), (15, 20));
        m.clear();
        assert_eq!((m.covered(), m.most_covered()), (0, 20));
    }
}
