//! Ranges of bytes in a file, and the list of locked ones of one owner's kind.

use abi::Errno;

/// The last byte a file can have (`OFFSET_MAX`); a lock that ends there is "to the end of the file".
pub const END: u64 = i64::MAX.cast_unsigned();

/// Bytes `start..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub last: u64,
}

impl Range {
    /// The bytes that `l_start` and `l_len` mean, counted from `base` (`flock64_to_posix_lock` in `fs/locks.c`).
    ///
    /// # Errors
    /// `EINVAL` for a negative position; `EOVERFLOW` past the end of what files can have.
    pub fn parse(base: i64, start: i64, len: i64) -> Result<Range, Errno> {
        let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
        if start < 0 {
            return Err(Errno::EINVAL);
        }
        let (first, last) = match len {
            0 => (start, i64::MAX),
            1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
            // A negative length is the bytes before.
            _ => (start.checked_add(len).filter(|s| *s >= 0).ok_or(Errno::EINVAL)?, start - 1),
        };
        Ok(Range { start: first.cast_unsigned(), last: last.cast_unsigned() })
    }

    /// `l_len`: 0 for a range that goes to the end.
    #[must_use]
    pub fn flock_len(self) -> u64 {
        if self.last >= END { 0 } else { self.last - self.start + 1 }
    }

    /// Whether they share a byte.
    #[must_use]
    pub fn overlaps(self, other: Range) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// Whether they overlap or lie side by side.
    fn touches(self, other: Range) -> bool {
        self.start <= other.last.saturating_add(1) && other.start <= self.last.saturating_add(1)
    }
}

/// A locked range with what the lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock<T> {
    /// The bytes.
    pub range: Range,
    /// Shared or exclusive, and whose.
    pub what: T,
}

/// Makes `range` be `what` (`None`: unlocked) for the locks that `mine` picks; others stay. Equal neighbours merge.
pub fn replace<T: Clone + PartialEq>(
    locks: &mut Vec<Lock<T>>,
    range: Range,
    what: Option<T>,
    mine: impl Fn(&T) -> bool,
) {
    let mut merged = range;
    let mut kept = Vec::with_capacity(locks.len() + 2);
    for lock in locks.drain(..) {
        if !mine(&lock.what) || !lock.range.touches(range) {
            kept.push(lock);
        } else if what.as_ref() == Some(&lock.what) {
            merged.start = merged.start.min(lock.range.start);
            merged.last = merged.last.max(lock.range.last);
        } else {
            // What sticks out on either side stays as it was.
            if lock.range.start < range.start {
                let last = lock.range.last.min(range.start - 1);
                kept.push(Lock { range: Range { start: lock.range.start, last }, what: lock.what.clone() });
            }
            if lock.range.last > range.last {
                let start = lock.range.start.max(range.last + 1);
                kept.push(Lock { range: Range { start, last: lock.range.last }, what: lock.what });
            }
        }
    }
    kept.extend(what.map(|what| Lock { range: merged, what }));
    *locks = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn sorted(mut locks: Vec<Lock<u8>>) -> Vec<(u64, u64, u8)> {
        locks.sort_by_key(|l| l.range.start);
        locks.into_iter().map(|l| (l.range.start, l.range.last, l.what)).collect()
    }

    #[test]
    fn parses_as_linux_does() {
        assert_eq!(Range::parse(0, 10, 5), Ok(r(10, 14)));
        assert_eq!(Range::parse(10, 0, -3), Ok(r(7, 9)));
        assert_eq!(Range::parse(10, 0, -11), Err(Errno::EINVAL));
        assert_eq!(Range::parse(0, -1, 0), Err(Errno::EINVAL));
        assert_eq!(Range::parse(0, 5, 0), Ok(r(5, END)));
        assert_eq!(Range::parse(0, i64::MAX, 2), Err(Errno::EOVERFLOW));
        assert_eq!(Range::parse(1, i64::MAX, 0), Err(Errno::EOVERFLOW));
    }

    #[test]
    fn splits_and_merges() {
        let mut locks = Vec::new();
        replace(&mut locks, r(0, 99), Some(1u8), |_| true);
        replace(&mut locks, r(40, 59), None, |_| true);
        assert_eq!(sorted(locks.clone()), [(0, 39, 1), (60, 99, 1)]);
        replace(&mut locks, r(30, 69), Some(2), |_| true);
        assert_eq!(sorted(locks.clone()), [(0, 29, 1), (30, 69, 2), (70, 99, 1)]);
        replace(&mut locks, r(30, 69), Some(1), |_| true);
        assert_eq!(sorted(locks.clone()), [(0, 99, 1)]);
        replace(&mut locks, r(100, END), Some(1), |_| true);
        assert_eq!(sorted(locks.clone()), [(0, END, 1)]);
        replace(&mut locks, r(0, END), None, |_| true);
        assert!(locks.is_empty());
    }
}
