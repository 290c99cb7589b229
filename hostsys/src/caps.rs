//! Giving up every capability, in every set.

use crate::error::{Error, Result, check};

/// `SECBIT_*` of `linux/securebits.h`: being root gives nothing, and neither does changing users; all locked.
const SECUREBITS: libc::c_ulong = 0b1110_1111;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding and ambient sets and locks, by securebits, that being root or changing users gives anything.
/// The capabilities held stay (even across a change of user) until [`clear`].
///
/// # Errors
/// What `prctl` says: `EPERM` without CAP_SETPCAP.
pub fn lock() -> Result<()> {
    for cap in 0..64 {
        // SAFETY: no pointers.
        let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap as libc::c_ulong, 0, 0, 0) };
        if rc != 0 {
            if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
                break; // Past the last capability this kernel knows.
            }
            return Err(Error::last("prctl(PR_CAPBSET_DROP)"));
        }
    }
    // SAFETY: no pointers.
    let ambient =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) };
    check("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", i64::from(ambient))?;
    // SAFETY: no pointers.
    let bits = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) };
    check("prctl(PR_SET_SECUREBITS)", i64::from(bits)).map(|_| ())
}

/// Empties the permitted, effective and inheritable sets.
///
/// # Errors
/// What `capset` says.
pub fn clear() -> Result<()> {
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let none = [Data::default(); 2];
    // SAFETY: version 3 takes a header and two data elements.
    check("capset", unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(|_| ())
}

/// Gives up every capability that is not in `keep` (a bit per capability), for good: an exec by root gives `keep` again
/// and nothing else.
///
/// # Errors
/// What `prctl` and `capset` say: `EPERM` without CAP_SETPCAP.
pub fn keep_only(keep: u64) -> Result<()> {
    for cap in (0..64).filter(|cap| keep & (1 << cap) == 0) {
        // SAFETY: no pointers.
        let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap as libc::c_ulong, 0, 0, 0) };
        if rc != 0 {
            if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
                break; // Past the last capability this kernel knows.
            }
            return Err(Error::last("prctl(PR_CAPBSET_DROP)"));
        }
    }
    let held = get()?;
    let part = |i: usize| {
        let keep = (keep >> (32 * i)) as u32;
        let permitted = held[i].permitted & keep;
        Data { effective: permitted, permitted, inheritable: 0 }
    };
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let data = [part(0), part(1)];
    // SAFETY: version 3 takes a header and two data elements.
    check("capset", unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    // SAFETY: no pointers.
    let ambient =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) };
    check("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", i64::from(ambient)).map(|_| ())
}

/// The capabilities held: union of the permitted, effective and inheritable sets (a bit per capability).
///
/// # Errors
/// None in practice.
pub fn held() -> Result<u64> {
    let data = get()?;
    let union = |d: Data| u64::from(d.effective | d.permitted | d.inheritable);
    Ok(union(data[0]) | union(data[1]) << 32)
}

fn get() -> Result<[Data; 2]> {
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes a header and two data elements, which the kernel fills.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    check("capget", rc).map(|_| data)
}

/// Whether this process holds capability number `cap` (`linux/capability.h`) effectively.
#[must_use]
pub fn has_effective(cap: u32) -> bool {
    get().is_ok_and(|d| d.get((cap / 32) as usize).is_some_and(|d| d.effective & (1 << (cap % 32)) != 0))
}

/// The bounding set (a bit per capability): what an exec could give at most.
#[must_use]
pub fn bounding() -> u64 {
    // SAFETY: no pointers.
    let has = |cap: u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap), 0, 0, 0) } == 1;
    (0..64).filter(|&cap| has(cap)).fold(0, |set, cap| set | 1 << cap)
}
