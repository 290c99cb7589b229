//! Robust futexes: locks of a dying thread (`exit_robust_list` in `kernel/futex/core.c`).

use std::sync::Arc;

use abi::{Errno, UserAddr};
use memory::copy::Atomic32;

use crate::kernel::futex::{pi, wake_at};
use crate::kernel::task::CurrentTask;
use crate::mm::Mm;

/// Most entries looked at (`ROBUST_LIST_LIMIT`): the list may be a loop.
const LIMIT: usize = 2048;
/// `sizeof(struct robust_list_head)`.
pub const HEAD_LEN: u64 = 24;
/// The parts of a futex word that the kernel knows.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// The owner died.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Somebody waits in the kernel.
pub const WAITERS: u32 = 0x8000_0000;

/// Marks the locks that the dying task still holds and wakes one waiter of each. Bad addresses end the walk.
pub fn exit(cx: &mut CurrentTask<'_>) {
    let (head, len) = std::mem::take(&mut cx.own.robust_list);
    let Ok(mm) = cx.mm() else { return };
    if head != 0 && len == HEAD_LEN {
        let _ = walk(cx, &mm, head);
    }
}

fn walk(cx: &CurrentTask<'_>, mm: &Arc<Mm>, head: u64) -> Result<(), Errno> {
    let [first, offset, pending]: [u64; 3] = mm.read_obj(UserAddr(head))?;
    let mut entry = first;
    for _ in 0..LIMIT {
        if entry & !1 == head {
            break;
        }
        // The link first: the waiter may reuse the node as soon as it owns the lock.
        let next = mm.read_obj::<u64>(UserAddr(entry & !1));
        if entry & !1 != pending & !1 {
            owner_died(cx, mm, (entry & !1).wrapping_add(offset), entry & 1 != 0, false)?;
        }
        entry = next?;
    }
    if pending & !1 != 0 {
        owner_died(cx, mm, (pending & !1).wrapping_add(offset), pending & 1 != 0, true)?;
    }
    Ok(())
}

/// `handle_futex_death`.
fn owner_died(cx: &CurrentTask<'_>, mm: &Arc<Mm>, addr: u64, is_pi: bool, pending: bool) -> Result<(), Errno> {
    let addr = UserAddr(addr);
    if !addr.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mine = cx.task.tid.0.cast_unsigned();
    loop {
        let seen = mm.atomic32(addr, Atomic32::Load)?;
        if pending && !is_pi && seen & TID_MASK == 0 {
            // It died between unlocking and waking.
            wake_at(cx, addr, 1)?;
            return Ok(());
        }
        if seen & TID_MASK != mine {
            return Ok(());
        }
        if is_pi && pi::pass_on(cx, addr, seen)? {
            return Ok(());
        }
        let new = seen & WAITERS | OWNER_DIED;
        if mm.atomic32(addr, Atomic32::CompareExchange { old: seen, new })? == seen {
            if !is_pi && seen & WAITERS != 0 {
                wake_at(cx, addr, 1)?;
            }
            return Ok(());
        }
    }
}
