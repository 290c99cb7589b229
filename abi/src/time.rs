//! Time structures as the 64-bit ABI lays them out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Errno;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: i64 = 1_000_000_000;

/// `struct timespec` (`include/uapi/linux/time_types.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    serde::Serialize,
    serde::Deserialize,
)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, 0..1e9 when valid.
    pub nsec: i64,
}

impl Timespec {
    /// The time `nanos` nanoseconds after zero.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Timespec { sec: nanos.div_euclid(NANOS_PER_SEC), nsec: nanos.rem_euclid(NANOS_PER_SEC) }
    }

    /// The value in nanoseconds, saturating as the kernel's `timespec64_to_ktime` does.
    ///
    /// # Errors
    /// `EINVAL` where the nanoseconds are out of 0..1e9 or the seconds negative.
    pub fn to_nanos(self) -> Result<i64, Errno> {
        if self.sec < 0 || !(0..NANOS_PER_SEC).contains(&self.nsec) {
            return Err(Errno::EINVAL);
        }
        Ok(self.sec.checked_mul(NANOS_PER_SEC).and_then(|n| n.checked_add(self.nsec)).unwrap_or(i64::MAX))
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds.
    pub usec: i64,
}
