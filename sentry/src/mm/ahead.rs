//! Mapping ahead of faults, where a fault is dear and an entry of a page table cheap (a VM).

use abi::{AddrRange, PAGE_SIZE, page_down};
use platform::{Access, Prot};

use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{Mm, Vmas};

/// Neighbours on each side that a first fault in a file's mapping takes along: the segments of a library.
const NEIGHBOURS: usize = 6;
/// Holes between them, at most.
const HOLE: u64 = 64 << 10;
/// New anonymous memory up to this long is expected to be used at once, from its start.
const SOON: u64 = 1 << 20;
/// Private writable mappings up to this long are copied ahead: relocations will store to them.
const COPY_AHEAD: u64 = 64 << 10;

impl Mm {
    /// Maps what a new program touches first, before it runs: the pages around its entry point, its stack's end, and
    /// `others`.
    pub(crate) fn map_ahead(&self, stack: u64, others: &[u64]) {
        if !self.has_large_pages() {
            return;
        }
        // What cannot be mapped now is the program's to find out.
        let _ = self.handle_fault(stack, Access::WRITE);
        for &addr in others {
            let _ = self.handle_fault(addr, Access::READ);
        }
    }

    /// Makes the first pages of private anonymous memory that a program has just asked for, if it is so little that it
    /// must be for now: a heap that grows, a buffer, a piece of a reservation made accessible.
    pub(super) fn expect_use(&self, vmas: &Vmas, range: AddrRange) {
        if range.len() > SOON || !self.has_large_pages() {
            return;
        }
        let Some((vrange, vma)) = vmas.map.get(range.start) else { return };
        let plain = vma.file.is_none() && !vma.is_shared() && !vma.flags.contains(VmaFlags::NORESERVE);
        if plain && vma.prot.contains(Prot::READ | Prot::WRITE) && self.pmas.lock().map.get(range.start).is_none() {
            // Only a guess: what fails will be a fault.
            let _ = self.serve(vmas, (vrange, vma), range.start, true);
        }
    }

    /// Maps the beginnings of the mappings that lie close to `range`, one of a file: a program that loads a library
    /// touches all its segments at once.
    pub(super) fn map_neighbours(&self, vmas: &Vmas, range: AddrRange) {
        let mut end = range.end;
        for (r, vma) in vmas.map.overlapping(AddrRange::new(range.end, u64::MAX)).take(NEIGHBOURS) {
            if r.start - end > HOLE {
                break;
            }
            end = r.end;
            self.touch(vmas, (r, vma));
        }
        let mut start = range.start;
        for (r, vma) in vmas.map.iter_before(range.start).take(NEIGHBOURS) {
            if start.saturating_sub(r.end) > HOLE {
                break;
            }
            start = r.start;
            self.touch(vmas, (r, vma));
        }
    }

    fn touch(&self, vmas: &Vmas, (range, vma): (AddrRange, &Vma)) {
        let write = vma.prot.contains(Prot::WRITE);
        let own = write && !vma.is_shared() && range.len() <= COPY_AHEAD;
        // Files whose frames may be anywhere, or not be there, are left alone; so is memory that may never be used.
        let image = vma.file.as_ref().is_some_and(|f| f.mappable.placement(f.offset).is_some());
        if !vma.prot.contains(Prot::READ) || vma.is_shared() || !(image || vma.file.is_none() && own) {
            return;
        }
        let mut page = range.start;
        while page < range.end {
            // Only a guess: what fails will be a fault.
            if self.serve(vmas, (range, vma), page, own).is_err() || !own {
                return;
            }
            let pmas = self.pmas.lock();
            let next = pmas.map.overlapping(AddrRange::new(page, range.end)).find(|(_, p)| !p.takes_stores());
            page = match next {
                Some((r, _)) => page_down(r.start).max(page + PAGE_SIZE),
                None => return,
            };
        }
    }
}
