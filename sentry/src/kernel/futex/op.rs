//! Waking, moving, and the compound FUTEX_WAKE_OP.

use abi::{Errno, UserAddr};
use memory::copy::Atomic32;

use crate::kernel::futex::{ANY, mark_woken, take};
use crate::kernel::task::CurrentTask;

/// FUTEX_WAKE(_BITSET): answers how many were woken.
///
/// # Errors
/// `EINVAL` for an empty bitset or an unaligned address; `EFAULT`.
pub fn wake(cx: &CurrentTask<'_>, addr: UserAddr, private: bool, count: u32, bitset: u32) -> Result<u64, Errno> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = cx.mm()?.futex_key(addr, private)?;
    Ok(u64::from(cx.kernel().futexes.wake(&key, count, bitset)))
}

/// A requeue's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Requeue {
    /// Waiters are here.
    pub from: UserAddr,
    /// Those not woken go here.
    pub to: UserAddr,
    /// FUTEX_PRIVATE_FLAG.
    pub private: bool,
    /// How many to wake.
    pub wake: u32,
    /// How many to move.
    pub requeue: u32,
    /// FUTEX_CMP_REQUEUE: the value `from` must have.
    pub expected: Option<u32>,
}

/// FUTEX_(CMP_)REQUEUE: answers how many were woken or moved.
///
/// # Errors
/// `EAGAIN` where the word has another value; `EINVAL`, `EFAULT` for bad addresses.
pub fn requeue(cx: &CurrentTask<'_>, args: &Requeue) -> Result<u64, Errno> {
    let mm = cx.mm()?;
    let futexes = &cx.kernel().futexes;
    let from = mm.futex_key(args.from, args.private)?;
    let to = mm.futex_key(args.to, args.private)?;
    let (woken, moved) = {
        let mut bucket = futexes.bucket(&from).lock();
        if let Some(expected) = args.expected
            && mm.atomic32(args.from, Atomic32::Load)? != expected
        {
            return Err(Errno::EAGAIN);
        }
        let woken = take(&mut bucket, &from, args.wake, |w| !w.pi);
        let moved = take(&mut bucket, &from, args.requeue, |w| !w.pi);
        (woken, moved)
    };
    woken.iter().for_each(|w| mark_woken(w));
    Ok(woken.len() as u64 + u64::from(futexes.insert_moved(moved, to)))
}

/// Sign-extends the low 12 bits.
fn signed12(value: u32) -> i32 {
    (value << 20).cast_signed() >> 20
}

/// FUTEX_WAKE_OP: changes the word at `second`, wakes at `first`, and at `second` if its old value compares.
///
/// # Errors
/// `ENOSYS` for an unknown operation or comparison; `EINVAL`, `EFAULT` for bad addresses.
pub fn wake_op(
    cx: &CurrentTask<'_>,
    (first, second): (UserAddr, UserAddr),
    private: bool,
    (wake_first, wake_second): (u32, u32),
    encoded: u32,
) -> Result<u64, Errno> {
    let mm = cx.mm()?;
    let (key1, key2) = (mm.futex_key(first, private)?, mm.futex_key(second, private)?);
    let (operation, shift) = (encoded >> 28 & 7, encoded >> 31 & 1 != 0);
    let (comparison, raw, cmparg) = (encoded >> 24 & 0xf, signed12(encoded >> 12), signed12(encoded));
    let arg = if shift { 1u32 << (raw & 31) } else { raw.cast_unsigned() };
    let old = loop {
        let seen = mm.atomic32(second, Atomic32::Load)?;
        let new = match operation {
            0 => arg,
            1 => seen.wrapping_add(arg),
            2 => seen | arg,
            3 => seen & !arg,
            4 => seen ^ arg,
            _ => return Err(Errno::ENOSYS),
        };
        if mm.atomic32(second, Atomic32::CompareExchange { old: seen, new })? == seen {
            break seen.cast_signed();
        }
    };
    let holds = match comparison {
        0 => old == cmparg,
        1 => old != cmparg,
        2 => old < cmparg,
        3 => old <= cmparg,
        4 => old > cmparg,
        5 => old >= cmparg,
        _ => return Err(Errno::ENOSYS),
    };
    let futexes = &cx.kernel().futexes;
    let mut woken = u64::from(futexes.wake(&key1, wake_first, ANY));
    if holds {
        woken += u64::from(futexes.wake(&key2, wake_second, ANY));
    }
    Ok(woken)
}
