//! `mprotect(2)` and `pkey_mprotect(2)`.

use abi::{AddrRange, Errno, PAGE_MASK, page_up};
use memory::RangeValue;
use platform::{MapOp, Prot, USER_END};

use crate::mm::layout::MAX_MAPS;
use crate::mm::vma::VmaFlags;
use crate::mm::{Mm, Vmas};

/// Most pieces whose translations are changed in place; more are left to faults.
const MAX_PIECES: usize = 64;

/// Where a protection change starts and ends (PROT_GROWSDOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protect {
    /// New access.
    pub prot: Prot,
    /// New protection key; `None` keeps it.
    pub pkey: Option<u8>,
    /// Go down to the start of the stack mapping.
    pub grows_down: bool,
}

impl Mm {
    /// Changes the protection of `addr..addr+len`. Mappings before a hole are changed, as on Linux.
    ///
    /// # Errors
    /// `EINVAL` for an address that is not aligned (or no stack, with PROT_GROWSDOWN, or a key not allocated);
    /// `ENOMEM` where a page is not mapped; `EACCES` for access that the file was not opened for.
    pub fn mprotect(&self, addr: u64, len: u64, change: Protect) -> Result<(), Errno> {
        if addr & PAGE_MASK != 0 {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let len = page_up(len).filter(|l| *l > 0).ok_or(Errno::ENOMEM)?;
        let end = addr.checked_add(len).filter(|e| *e <= USER_END).ok_or(Errno::ENOMEM)?;
        let mut vmas = self.vmas.write();
        if change.pkey.is_some_and(|k| k > 15 || vmas.pkeys & (1 << k) == 0) {
            return Err(Errno::EINVAL);
        }
        let mut start = addr;
        if change.grows_down {
            let (r, vma) = vmas.map.at_or_after(addr).filter(|(r, _)| r.start < end).ok_or(Errno::ENOMEM)?;
            if !vma.flags.contains(VmaFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            start = r.start;
        }
        let range = AddrRange::new(start, end);
        let (reach, answer) = Self::may_protect(&vmas, range, change.prot);
        if vmas.map.len() + 2 > MAX_MAPS {
            return Err(Errno::ENOMEM);
        }
        self.protect_locked(&mut vmas, AddrRange::new(range.start, reach), change);
        answer
    }

    /// How far the change may go, and the answer: all, or up to the first hole or refusal.
    fn may_protect(vmas: &Vmas, range: AddrRange, prot: Prot) -> (u64, Result<(), Errno>) {
        let mut at = range.start;
        for (r, vma) in vmas.map.overlapping(range) {
            if r.start > at {
                return (at, Err(Errno::ENOMEM));
            }
            if !vma.max.contains(prot) {
                return (at, Err(Errno::EACCES));
            }
            at = r.end;
        }
        if at < range.end { (at, Err(Errno::ENOMEM)) } else { (range.end, Ok(())) }
    }

    fn protect_locked(&self, vmas: &mut Vmas, range: AddrRange, change: Protect) {
        let mut changed = false;
        vmas.map.update(range, |_, vma| {
            let pkey = change.pkey.unwrap_or(vma.pkey);
            changed |= vma.prot != change.prot || vma.pkey != pkey;
            vma.prot = change.prot;
            vma.pkey = pkey;
        });
        if changed {
            self.refresh(vmas, range);
            self.expect_use(vmas, range);
        }
    }

    /// Brings the platform's translations of `range` in line with the mappings there.
    pub(super) fn refresh(&self, vmas: &Vmas, range: AddrRange) {
        let pmas = self.pmas.lock();
        let pieces: Vec<_> = pmas.map.overlapping(range).take(MAX_PIECES + 1).collect();
        if pieces.is_empty() {
            return;
        }
        let mut ops = Vec::new();
        if pieces.len() <= MAX_PIECES {
            for (vrange, vma) in vmas.map.overlapping(range) {
                let here = vrange.intersect(&range);
                if vma.prot.is_empty() {
                    ops.push(MapOp::Unmap { range: here });
                    continue;
                }
                for (r, pma) in pmas.map.overlapping(here) {
                    let part = r.intersect(&here);
                    ops.push(pma.advance(part.start - r.start).map_op(part, vma));
                }
            }
        } else {
            ops.push(MapOp::Unmap { range });
        }
        // Out of room, the space is empty and faults fill it again: nothing old is left.
        let _ = self.space.apply(&ops);
    }
}
