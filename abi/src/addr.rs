//! Guest addresses. A guest pointer is a number, never a host pointer; only `mm` can turn it into bytes.

use std::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// The bits of an address inside its page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// `value` rounded down to a page boundary.
#[must_use]
pub const fn page_down(value: u64) -> u64 {
    value & !PAGE_MASK
}

/// `value` rounded up to a page boundary; `None` where that overflows.
#[must_use]
pub const fn page_up(value: u64) -> Option<u64> {
    match value.checked_add(PAGE_MASK) {
        Some(v) => Some(v & !PAGE_MASK),
        None => None,
    }
}

/// An address in a guest's address space, unchecked: it may point anywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// The null pointer.
    pub const NULL: UserAddr = UserAddr(0);

    /// Whether this is the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// This address plus `n` bytes; `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, n: u64) -> Option<UserAddr> {
        match self.0.checked_add(n) {
            Some(v) => Some(UserAddr(v)),
            None => None,
        }
    }

    /// The start of the page this address lies in.
    #[must_use]
    pub const fn page_down(self) -> UserAddr {
        UserAddr(page_down(self.0))
    }

    /// The first page boundary at or after this address.
    #[must_use]
    pub const fn page_up(self) -> Option<UserAddr> {
        match page_up(self.0) {
            Some(v) => Some(UserAddr(v)),
            None => None,
        }
    }

    /// Whether the address lies on a page boundary.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.0 & PAGE_MASK == 0
    }

    /// The range of `len` bytes from here; `None` on overflow.
    #[must_use]
    pub const fn range(self, len: u64) -> Option<AddrRange> {
        match self.0.checked_add(len) {
            Some(end) => Some(AddrRange { start: self.0, end }),
            None => None,
        }
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of guest addresses, `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct AddrRange {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

impl AddrRange {
    /// The range from `start` to `end`; empty where `end` lies before `start`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        AddrRange { start, end: if end < start { start } else { end } }
    }

    /// Bytes in the range.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether `addr` lies inside.
    #[must_use]
    pub const fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(&self, other: &AddrRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two share an address.
    #[must_use]
    pub const fn overlaps(&self, other: &AddrRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What the two share (empty where they are apart).
    #[must_use]
    pub fn intersect(&self, other: &AddrRange) -> AddrRange {
        AddrRange::new(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_checked_at_the_top() {
        assert_eq!(page_up(1), Some(PAGE_SIZE));
        assert_eq!(page_up(0), Some(0));
        assert_eq!(page_up(u64::MAX), None);
        assert_eq!(UserAddr(u64::MAX).range(2), None);
    }

    #[test]
    fn ranges_intersect() {
        let a = AddrRange::new(10, 20);
        assert!(a.overlaps(&AddrRange::new(19, 30)));
        assert!(!a.overlaps(&AddrRange::new(20, 30)));
        assert_eq!(a.intersect(&AddrRange::new(15, 30)), AddrRange::new(15, 20));
        assert!(a.intersect(&AddrRange::new(25, 30)).is_empty());
    }
}
