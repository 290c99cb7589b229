//! Page faults: realise the page, then map it together with its neighbours in one batch.

use abi::{AddrRange, Errno, PAGE_SIZE, page_down};
use memory::Backing;
use platform::{Access, MapOp, USER_END};

use crate::mm::extents::HUGE;
use crate::mm::pma::Pmas;
use crate::mm::realise::Stale;
use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{FaultSignal, Mm, Vmas, layout};

/// How far around a fault existing frames are mapped, to each side.
const AROUND: u64 = 32 << 20;
/// The same where each page costs a table entry.
const AROUND_TABLES: u64 = 2 << 20;
/// Most separate pieces mapped by one fault.
const MAX_PIECES: usize = 24;
/// Pieces further away than this are left for a later fault.
const PIECES_WITHIN: u64 = 1 << 20;

impl Mm {
    /// Serves a page fault: realises and maps the page and its neighbours.
    ///
    /// # Errors
    /// The signal that the access earns.
    pub fn handle_fault(&self, addr: u64, access: Access) -> Result<(), FaultSignal> {
        let page = page_down(addr);
        if addr >= USER_END {
            return Err(FaultSignal::maperr());
        }
        if self.vmas.read().map.get(page).is_none() {
            self.grow_stack(page)?;
        }
        let vmas = self.vmas.read();
        let (vrange, vma) = vmas.map.get(page).ok_or_else(FaultSignal::maperr)?;
        if !vma.allows(access) {
            return Err(FaultSignal::accerr());
        }
        let first = self.has_large_pages() && vma.file.is_some() && self.pmas.lock().map.get(page).is_none();
        self.serve(&vmas, (vrange, vma), page, access.write)?;
        if first {
            self.map_neighbours(&vmas, vrange);
        }
        Ok(())
    }

    /// Realises `page` and maps it with what is around it.
    pub(super) fn serve(
        &self,
        vmas: &Vmas,
        (vrange, vma): (AddrRange, &Vma),
        page: u64,
        write: bool,
    ) -> Result<(), FaultSignal> {
        let mut stale = Stale { spares_reserve: true, ..Stale::default() };
        let pmas = match self.realise(vmas, (vrange, vma), page, write, &mut stale) {
            Ok(pmas) => pmas,
            Err(signal) => {
                // Nothing holds the lock now, but what was replaced so far must still go.
                let _order = self.pmas.lock();
                self.settle(&mut stale);
                return Err(signal);
            }
        };
        match self.show(&pmas, (vrange, vma), page, &mut stale) {
            Ok(()) => Ok(()),
            Err(errno) => self.map_alone(&pmas, (vrange, vma), page, errno),
        }
    }

    /// Maps `page` and existing frames around it, and takes away what else is stale.
    ///
    /// # Errors
    /// `ENOMEM` where the host had no room: the space is then empty, and nothing stale is left in it.
    pub(super) fn show(
        &self,
        pmas: &Pmas,
        (vrange, vma): (AddrRange, &Vma),
        page: u64,
        stale: &mut Stale,
    ) -> Result<(), Errno> {
        let ops = self.around(pmas, (vrange, vma), page);
        let covered = |r: &AddrRange| ops.iter().any(|op| matches!(op, MapOp::Map { range, .. } if range.covers(r)));
        let applied = self.space.apply(&ops);
        // What was mapped anew just now needs no invalidation.
        stale.ranges.retain(|r| applied.is_err() || !covered(r));
        self.settle(stale);
        applied
    }

    /// The host had no room for the batch and emptied the space: try the one page.
    fn map_alone(&self, pmas: &Pmas, (_, vma): (AddrRange, &Vma), page: u64, errno: Errno) -> Result<(), FaultSignal> {
        let one = AddrRange::new(page, page + PAGE_SIZE);
        let Some((r, pma)) = pmas.map.get(page) else { return Err(FaultSignal::bus_adrerr()) };
        let piece = memory::RangeValue::advance(pma, page - r.start);
        self.space.apply(&[piece.map_op(one, vma)]).map_err(|_| {
            log::error!("the host has no room for a page at {page:#x} ({errno})");
            FaultSignal::out_of_memory()
        })
    }

    /// The changes that show `page` and existing frames around it, the fault's own piece first.
    fn around(&self, pmas: &Pmas, (vrange, vma): (AddrRange, &Vma), page: u64) -> Vec<MapOp> {
        let reach = if self.memory.backing() == Backing::Anonymous { AROUND_TABLES } else { AROUND };
        // In whole units of large pages, so that one is not begun with small ones.
        let near = |by: u64| {
            let (start, end) = (page.saturating_sub(by) & !(HUGE - 1), page.saturating_add(by));
            AddrRange::new(start, end.checked_next_multiple_of(HUGE).unwrap_or(end)).intersect(&vrange)
        };
        let mut ops = Vec::new();
        if let Some((r, pma)) = pmas.map.get(page) {
            let part = r.intersect(&near(reach));
            ops.push(memory::RangeValue::advance(pma, part.start - r.start).map_op(part, vma));
        }
        for (r, pma) in pmas.map.overlapping(near(PIECES_WITHIN)) {
            if ops.len() >= MAX_PIECES {
                break;
            }
            if !r.contains(page) {
                let part = r.intersect(&near(reach));
                ops.push(memory::RangeValue::advance(pma, part.start - r.start).map_op(part, vma));
            }
        }
        ops
    }

    /// Lets a stack grow down to `page`, within RLIMIT_STACK and off the mapping below it.
    pub(super) fn grow_stack(&self, page: u64) -> Result<(), FaultSignal> {
        let limits = self.limits();
        let mut vmas = self.vmas.write();
        let Some((range, vma)) = vmas.map.at_or_after(page).map(|(r, v)| (r, v.clone())) else {
            return Err(FaultSignal::maperr());
        };
        if range.contains(page) {
            return Ok(());
        }
        let below = vmas.map.before(page).map_or(0, |(r, v)| {
            // A mapping without access may lie close: it is a guard itself (mm/mmap.c, expand_downwards).
            if v.prot.is_empty() || v.flags.contains(VmaFlags::GROWSDOWN) { r.end } else { r.end + layout::STACK_GUARD }
        });
        let size = range.end - page;
        let total: u64 = vmas.map.iter().map(|(r, _)| r.len()).sum::<u64>().saturating_add(range.start - page);
        if !vma.flags.contains(VmaFlags::GROWSDOWN)
            || size > limits.stack
            || total > limits.address_space
            || page < below
            || page < platform::USER_START
        {
            return Err(FaultSignal::maperr());
        }
        vmas.map.insert(AddrRange::new(page, range.start), vma);
        Ok(())
    }
}
