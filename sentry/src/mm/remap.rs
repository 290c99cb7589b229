//! `mremap(2)`: growing, shrinking and moving mappings with their pages.

use abi::{AddrRange, Errno, PAGE_MASK, page_up};
use memory::RangeValue;
use platform::{Access, Prot, USER_END, USER_START};

use crate::mm::layout::{self, MAX_MAPS};
use crate::mm::map::counts_as_writable;
use crate::mm::unmap::Garbage;
use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{Mm, Vmas};

/// May move.
pub const MREMAP_MAYMOVE: u32 = 1;
/// Must move to the address given.
pub const MREMAP_FIXED: u32 = 2;
/// The old mapping stays, without its pages.
pub const MREMAP_DONTUNMAP: u32 = 4;

/// The arguments of `mremap(2)`, in its order; lengths rounded up to pages by [`Mm::mremap`].
#[derive(Clone, Copy, Debug)]
pub struct Remap {
    /// Old address.
    pub old: u64,
    /// Old length.
    pub old_len: u64,
    /// New length.
    pub new_len: u64,
    /// MREMAP_*.
    pub flags: u32,
    /// New address, with MREMAP_FIXED (a hint with MREMAP_DONTUNMAP).
    pub new: u64,
}

impl Remap {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks what needs no look at the mappings; rounds the lengths.
    fn checked(mut self) -> Result<Self, Errno> {
        let known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        let moves = self.has(MREMAP_FIXED) || self.has(MREMAP_DONTUNMAP);
        if self.flags & !known != 0 || (moves && !self.has(MREMAP_MAYMOVE)) || self.old & PAGE_MASK != 0 {
            return Err(Errno::EINVAL);
        }
        self.old_len = page_up(self.old_len).ok_or(Errno::EINVAL)?;
        self.new_len = page_up(self.new_len).filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
        if self.has(MREMAP_DONTUNMAP) && self.old_len != self.new_len {
            return Err(Errno::EINVAL);
        }
        if moves {
            let end = self.new.checked_add(self.new_len).filter(|e| *e <= USER_END).ok_or(Errno::EINVAL)?;
            let old_end = self.old.checked_add(self.old_len).ok_or(Errno::EINVAL)?;
            let overlap = AddrRange::new(self.old, old_end).overlaps(&AddrRange::new(self.new, end));
            if self.new & PAGE_MASK != 0 || (self.has(MREMAP_FIXED) && overlap) {
                return Err(Errno::EINVAL);
            }
            if self.has(MREMAP_FIXED) && self.new < USER_START {
                return Err(Errno::EPERM);
            }
        }
        Ok(self)
    }
}

impl Mm {
    /// Resizes or moves a mapping; answers where it lies.
    ///
    /// # Errors
    /// As mremap(2): `EINVAL` for arguments that make no sense; `EFAULT` where the old range is not one mapping;
    /// `ENOMEM` without room; `EAGAIN` over RLIMIT_MEMLOCK.
    pub fn mremap(&self, request: Remap) -> Result<u64, Errno> {
        let request = request.checked()?;
        let mut garbage = Garbage::default();
        let mut vmas = self.vmas.write();
        let (range, grown) = self.remap_locked(&mut vmas, request, &mut garbage)?;
        let locked = vmas.map.get(range.start).is_some_and(|(_, v)| v.flags.contains(VmaFlags::LOCKED));
        drop(vmas);
        if locked && grown {
            let _ = self.populate(range, Access::READ);
        }
        Ok(range.start)
    }

    fn remap_locked(&self, vmas: &mut Vmas, request: Remap, garbage: &mut Garbage) -> Result<(AddrRange, bool), Errno> {
        let Remap { old, old_len, new_len, .. } = request;
        let (vrange, vma) = vmas.map.get(old).map(|(r, v)| (r, v.clone())).ok_or(Errno::EFAULT)?;
        if old_len == 0 && !(vma.is_shared() && request.has(MREMAP_MAYMOVE)) {
            // Only a shared mapping can be had twice (mremap(2), BUGS).
            return Err(Errno::EINVAL);
        }
        let moves = request.has(MREMAP_FIXED) || request.has(MREMAP_DONTUNMAP);
        if old_len > new_len && !moves {
            let tail = AddrRange::new(old + new_len, old.checked_add(old_len).ok_or(Errno::EINVAL)?);
            self.unmap_locked(vmas, tail, garbage);
            return Ok((AddrRange::new(old, old + new_len), false));
        }
        let keep = old_len.min(new_len);
        if keep > vrange.end - old || (old_len > vrange.end - old && !moves) {
            return Err(Errno::EFAULT);
        }
        if vma.flags.contains(VmaFlags::SPECIAL) && new_len > old_len {
            return Err(Errno::EFAULT);
        }
        if old_len == new_len && !moves {
            return Ok((AddrRange::new(old, old + old_len), false));
        }
        self.check_growth(vmas, &vma, new_len.saturating_sub(old_len))?;
        if !moves && old_len > 0 && self.grow_in_place(vmas, (vrange, &vma), old + old_len, new_len - old_len)? {
            return Ok((AddrRange::new(old, old + new_len), true));
        }
        if !request.has(MREMAP_MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        if vmas.map.len() + 3 > MAX_MAPS {
            return Err(Errno::ENOMEM);
        }
        if moves && old_len > new_len {
            self.unmap_locked(vmas, AddrRange::new(old + new_len, old + old_len), garbage);
        }
        let target = self.remap_target(vmas, request, garbage)?;
        let piece = vma.advance(old - vrange.start);
        self.move_mapping(vmas, AddrRange::new(old, old + keep), target, piece, request.has(MREMAP_DONTUNMAP))?;
        Ok((target, new_len > old_len))
    }

    fn check_growth(&self, vmas: &Vmas, vma: &Vma, by: u64) -> Result<(), Errno> {
        if let Some(file) = &vma.file {
            file.offset.checked_add(by).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        }
        let limits = self.limits();
        if vma.flags.contains(VmaFlags::LOCKED) && vmas.locked().saturating_add(by) > limits.memlock {
            return Err(Errno::EAGAIN);
        }
        if by > USER_END || vmas.total().saturating_add(by) > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn grow_in_place(
        &self,
        vmas: &mut Vmas,
        (vrange, vma): (AddrRange, &Vma),
        end: u64,
        by: u64,
    ) -> Result<bool, Errno> {
        let Some(new_end) = end.checked_add(by).filter(|e| *e <= USER_END) else { return Ok(false) };
        let fresh = AddrRange::new(end, new_end);
        if end != vrange.end || !layout::is_free(&vmas.map, fresh) {
            return Ok(false);
        }
        let tail = vma.advance(vrange.len());
        if let Some(file) = &tail.file {
            file.mappable.add_mapping(&self.this, fresh, file.offset, counts_as_writable(&tail))?;
        }
        vmas.map.insert(fresh, tail);
        Ok(true)
    }

    fn remap_target(&self, vmas: &mut Vmas, request: Remap, garbage: &mut Garbage) -> Result<AddrRange, Errno> {
        let len = request.new_len;
        if request.has(MREMAP_FIXED) {
            let target = AddrRange::new(request.new, request.new + len);
            self.unmap_locked(vmas, target, garbage);
            return Ok(target);
        }
        let hint = if request.has(MREMAP_DONTUNMAP) { request.new } else { 0 };
        let start = vmas.find_free(hint, len, false)?;
        Ok(AddrRange::new(start, start + len))
    }

    /// Moves the mapping `piece` of `from` with its pages to `to`, which is free and may be longer.
    fn move_mapping(
        &self,
        vmas: &mut Vmas,
        from: AddrRange,
        to: AddrRange,
        mut piece: Vma,
        keep_old: bool,
    ) -> Result<(), Errno> {
        if let Some(file) = &piece.file {
            let writable = counts_as_writable(&piece);
            file.mappable.add_mapping(&self.this, to, file.offset, writable)?;
            if !keep_old && !from.is_empty() {
                file.mappable.remove_mapping(&self.this, from, file.offset, writable);
            }
        }
        {
            let mut pmas = self.pmas.lock();
            // What a file's invalidation meant for the old addresses must not be lost on the way.
            pmas.invalidations += 1;
            let gone = pmas.map.remove(from);
            if !gone.is_empty() {
                self.space.invalidate(from);
            }
            pmas.extents.relocate(&self.memory, from, to.start);
            for (r, pma) in gone {
                let start = r.start - from.start + to.start;
                pmas.map.insert(AddrRange::new(start, start + r.len()), pma);
            }
        }
        if keep_old {
            vmas.map.update(from, |_, v| v.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT));
        } else {
            vmas.take_out(from);
        }
        piece.flags.remove(VmaFlags::HEAP);
        let visible = !(piece.prot & (Prot::READ | Prot::WRITE | Prot::EXEC)).is_empty();
        vmas.map.insert(to, piece);
        if visible {
            self.refresh(vmas, to);
        }
        Ok(())
    }
}
