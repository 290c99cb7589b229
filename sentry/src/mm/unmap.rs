//! Mappings go: guests lose sight of the frames first, then the frames are let go.

use abi::{AddrRange, Errno, PAGE_MASK, page_up};
use platform::{USER_END, USER_START};

use crate::mm::layout::MAX_MAPS;
use crate::mm::map::counts_as_writable;
use crate::mm::pma::held_by;
use crate::mm::vma::Vma;
use crate::mm::{Mm, Vmas};

/// Mappings taken out, to be dropped when no lock is held: the last reference to a file takes the file's locks.
#[derive(Default)]
pub struct Garbage(pub(super) Vec<(AddrRange, Vma)>);

impl Mm {
    /// `munmap(2)`.
    ///
    /// # Errors
    /// `EINVAL` for a range that is empty, not aligned or outside of user space; `ENOMEM` where splitting a mapping
    /// would exceed `vm.max_map_count`.
    pub fn munmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let len = page_up(len).filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).filter(|e| *e <= USER_END).ok_or(Errno::EINVAL)?;
        if addr & PAGE_MASK != 0 {
            return Err(Errno::EINVAL);
        }
        let range = AddrRange::new(addr, end);
        let mut garbage = Garbage::default();
        let mut vmas = self.vmas.write();
        let splits = vmas.map.get(addr).is_some_and(|(r, _)| r.start < addr && end < r.end);
        if splits && vmas.map.len() >= MAX_MAPS {
            return Err(Errno::ENOMEM);
        }
        self.unmap_locked(&mut vmas, range, &mut garbage);
        drop(vmas);
        Ok(())
    }

    /// What `shmdt(2)` takes away: the pieces, with their inode number, of the first mapping of a file on device `dev`
    /// that was mapped whole at `addr`.
    #[must_use]
    pub fn pieces_of_device(&self, addr: u64, dev: u64) -> Vec<(AddrRange, u64)> {
        let vmas = self.vmas.read();
        let mut pieces: Vec<(AddrRange, u64)> = Vec::new();
        for (range, vma) in vmas.map.overlapping(AddrRange::new(addr, USER_END.max(addr))) {
            let Some(file) = &vma.file else { continue };
            let key = file.mappable.key();
            let began_here = range.start.checked_sub(addr) == Some(file.offset);
            if key.dev == dev && began_here && pieces.first().is_none_or(|(_, ino)| *ino == key.ino) {
                pieces.push((range, key.ino));
            }
        }
        pieces
    }

    /// Removes all mappings of `range`.
    pub(super) fn unmap_locked(&self, vmas: &mut Vmas, range: AddrRange, garbage: &mut Garbage) {
        let mut gone = vmas.take_out(range);
        if gone.is_empty() {
            return;
        }
        self.forget_pages(range, true);
        for (at, vma) in &gone {
            if let Some(file) = &vma.file {
                file.mappable.remove_mapping(&self.this, *at, file.offset, counts_as_writable(vma));
            }
        }
        garbage.0.append(&mut gone);
    }

    /// Removes the frames of `range` from guests' sight and lets them go; the next access finds fresh ones.
    pub(super) fn forget_pages(&self, range: AddrRange, reservation: bool) {
        let held = {
            let mut pmas = self.pmas.lock();
            let gone = pmas.map.remove(range);
            if !gone.is_empty() {
                self.space.invalidate(range);
            }
            if reservation {
                pmas.extents.remove(&self.memory, range);
            }
            held_by(&gone)
        };
        if !held.is_empty() {
            self.memory.dec_refs(&held);
        }
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        let all = AddrRange::new(USER_START, USER_END);
        let vmas = std::mem::take(&mut *self.vmas.write());
        {
            let mut pmas = self.pmas.lock();
            let gone = pmas.map.remove(all);
            if !gone.is_empty() {
                self.space.invalidate(all);
            }
            let held = held_by(&gone);
            pmas.extents.clear(&self.memory);
            self.memory.dec_refs(&held);
        }
        for (at, vma) in vmas.map.iter() {
            if let Some(file) = &vma.file {
                file.mappable.remove_mapping(&self.this, at, file.offset, counts_as_writable(vma));
            }
        }
    }
}
