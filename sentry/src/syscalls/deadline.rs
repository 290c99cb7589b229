//! Timeouts of waiting calls: parsed once into an absolute deadline.

use abi::{Errno, Timespec, UserAddr, time::Timeval};

use crate::kernel::task::CurrentTask;

/// A deadline `nanos` from now, kernel monotonic nanoseconds; saturates.
#[must_use]
pub fn after(cx: &CurrentTask<'_>, nanos: i64) -> i64 {
    cx.kernel().clock.monotonic().saturating_add(nanos)
}

/// `poll`'s and `epoll_wait`'s milliseconds; negative waits forever.
#[must_use]
pub fn from_millis(cx: &CurrentTask<'_>, millis: i32) -> Option<i64> {
    u32::try_from(millis).ok().map(|ms| after(cx, i64::from(ms) * 1_000_000))
}

/// A relative `struct timespec`; null waits forever.
///
/// # Errors
/// `EINVAL` for an invalid time; `EFAULT`.
pub fn from_timespec(cx: &CurrentTask<'_>, at: UserAddr) -> Result<Option<i64>, Errno> {
    if at.is_null() {
        return Ok(None);
    }
    let nanos = cx.mm()?.read_obj::<Timespec>(at)?.to_nanos()?;
    Ok(Some(after(cx, nanos)))
}

/// A relative `struct timeval`; null waits forever. Microseconds past a second carry over, as in `select(2)`.
///
/// # Errors
/// `EINVAL` for negative parts; `EFAULT`.
pub fn from_timeval(cx: &CurrentTask<'_>, at: UserAddr) -> Result<Option<i64>, Errno> {
    if at.is_null() {
        return Ok(None);
    }
    let tv = cx.mm()?.read_obj::<Timeval>(at)?;
    if tv.sec < 0 || tv.usec < 0 {
        return Err(Errno::EINVAL);
    }
    let nanos = tv.sec.saturating_mul(1_000_000_000).saturating_add(tv.usec.saturating_mul(1000));
    Ok(Some(after(cx, nanos)))
}

/// Nanoseconds left until `deadline`, not negative.
#[must_use]
pub fn left(cx: &CurrentTask<'_>, deadline: i64) -> i64 {
    deadline.saturating_sub(cx.kernel().clock.monotonic()).max(0)
}
