//! Giving up every capability, in every set.

use crate::error::{Error, Result, check};

/// `SECBIT_*` of `linux/securebits.h`: being root gives nothing, and neither does changing users; all locked.
const SECUREBITS: libc::c_ulong = 0b1110_1111;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// CAP_SETPCAP.
const SETPCAP: u32 = 8;

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

/// Empties the bounding, ambient, permitted, effective and inheritable sets, and locks them so by securebits. Sets that
/// the process may not change any more (because it holds no capability) must be harmless already: see [`held`].
///
/// # Errors
/// What `capset` or `prctl` say.
pub fn drop_all() -> Result<()> {
    if sets()?.effective & (1 << SETPCAP) != 0 {
        for cap in 0..64 {
            // SAFETY: no pointers.
            let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap as libc::c_ulong, 0, 0, 0) };
            if rc != 0 {
                break; // EINVAL: past the last capability this kernel knows.
            }
        }
        // SAFETY: no pointers.
        check("prctl(PR_SET_SECUREBITS)", unsafe { i64::from(libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0)) })?;
    }
    // SAFETY: no pointers.
    let rc = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) };
    check("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", i64::from(rc))?;
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let none = [Data::default(); 2];
    // SAFETY: version 3 takes a header and two data elements.
    check("capset", unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(|_| ())
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

fn sets() -> Result<Data> {
    Ok(get()?[0])
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

/// An error for a caller that finds capabilities left.
#[must_use]
pub fn left_over(bits: u64) -> Error {
    Error::new("capset", std::io::Error::other(format!("capabilities {bits:#x} are still held")))
}
