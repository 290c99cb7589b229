//! From intent to frames: fresh zero pages, a file's frames, and copies for stores to private pages.

use abi::{AddrRange, Errno, PAGE_SIZE};
use memory::{Backing, FileKind, Frame};
use platform::Access;

use crate::mm::extents::HUGE;
use crate::mm::mappable::{FileRange, TranslateError};
use crate::mm::pma::{Pma, Pmas};
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::mm::{FaultSignal, Mm, Vmas};
use crate::sync::MutexGuard;

/// Fresh pages made around the first fault of a region, bytes.
const FIRST_WINDOW: u64 = 64 << 10;
/// Fresh pages made at once in a region that is being filled.
const LAST_WINDOW: u64 = 2 << 20;
/// The same where the host's pages are populated at once (a VM).
const LAST_POPULATED: u64 = 512 << 10;
/// Pages copied around a store to a private page, bytes.
pub(super) const COPY_WINDOW: u64 = 16 << 10;
/// The same after a run of such stores, where a fault is dear (a VM).
const LAST_COPY: u64 = 256 << 10;
/// The same in stubs, where the pages before were copied just now.
const LAST_COPY_STUBS: u64 = 128 << 10;
/// How far around a fault the frames of a file are asked for: in stubs one host mapping costs the same at any length.
const FILE_WINDOW: u64 = 32 << 20;
/// The same where each page costs a table entry.
const FILE_WINDOW_TABLES: u64 = 4 << 20;

/// What a realisation changed that guests may still see the old way.
#[derive(Default)]
pub struct Stale {
    /// Addresses whose translations show old frames, or less than there is now; to be mapped anew or invalidated.
    pub ranges: Vec<AddrRange>,
    /// Memory file offsets to let go of after that.
    pub drops: Vec<AddrRange>,
    /// A fault of the guest itself, which can be put off until there is memory: it leaves the reserve alone.
    pub spares_reserve: bool,
}

/// The window of `size` (a power of two) around `page`, inside `bounds`.
fn window(page: u64, size: u64, bounds: AddrRange) -> AddrRange {
    let start = page & !(size - 1);
    AddrRange::new(start, start.saturating_add(size)).intersect(&bounds)
}

impl Mm {
    /// Makes sure that `page` has a frame, one that takes stores if `write`, and answers with the lock held.
    /// `stale` collects what the caller must do before it lets go of the lock.
    ///
    /// # Errors
    /// The signal that the access earns.
    pub(super) fn realise(
        &self,
        vmas: &Vmas,
        (vrange, vma): (AddrRange, &Vma),
        page: u64,
        write: bool,
        stale: &mut Stale,
    ) -> Result<MutexGuard<'_, Pmas>, FaultSignal> {
        let mut pmas = self.pmas.lock();
        // Each turn makes progress, unless a file invalidates what it gave just now, again and again.
        for _ in 0..100 {
            match (pmas.map.get(page), &vma.file) {
                (Some((_, pma)), _) if !write || pma.takes_stores() => return Ok(pmas),
                (Some((_, pma)), _) if pma.cow => self.break_cow(&mut pmas, vmas, (vrange, vma), page, stale)?,
                (Some(_), _) => {
                    let one = AddrRange::new(page, page + PAGE_SIZE);
                    pmas.map.remove(one);
                    stale.ranges.push(one);
                }
                (None, None) => {
                    self.fresh(&mut pmas, vmas, (vrange, vma), page, stale)?;
                    stale.ranges.push(AddrRange::new(page, page + PAGE_SIZE));
                }
                (None, Some(file)) => {
                    let seen = pmas.invalidations;
                    drop(pmas);
                    let pieces = self.translate(file, vrange, vma, page, write)?;
                    pmas = self.pmas.lock();
                    if pmas.invalidations == seen {
                        adopt(&mut pmas, file, (vrange, vma), pieces);
                    }
                }
            }
        }
        Err(FaultSignal::bus_adrerr())
    }

    fn no_memory(&self, errno: Errno) -> FaultSignal {
        log::debug!("a page of {:#x} could not be had: {errno}", self.id);
        self.oom.store(true, std::sync::atomic::Ordering::Relaxed);
        FaultSignal::out_of_memory()
    }

    /// Zero pages for anonymous memory, in windows that grow while a region is filled.
    fn fresh(
        &self,
        pmas: &mut Pmas,
        vmas: &Vmas,
        (vrange, vma): (AddrRange, &Vma),
        page: u64,
        stale: &Stale,
    ) -> Result<(), FaultSignal> {
        if stale.spares_reserve && self.memory.is_tight() {
            return Err(self.no_memory(Errno::ENOMEM));
        }
        let hole_start = pmas.map.before(page).map_or(vrange.start, |(r, _)| r.end.max(vrange.start));
        let hole_end = pmas.map.at_or_after(page).map_or(vrange.end, |(r, _)| r.start.min(vrange.end));
        let hole = AddrRange::new(hole_start, hole_end);
        let size = self.window_size(pmas, vma, hole, page);
        let bounds = place_bounds(vmas, vrange, vma);
        let mut want = window(page, size, hole);
        if page == hole.start {
            // Upwards from here: a window that begins in the middle is no shorter for that.
            want.end = page.saturating_add(size).min(hole.end);
        }
        for want in [want, AddrRange::new(page, page + PAGE_SIZE)] {
            match self.fill(pmas, want, bounds, page) {
                Ok(()) => return Ok(()),
                // Less is more, near the limit.
                Err(Errno::ENOMEM) if want.len() > PAGE_SIZE => {}
                Err(e) => return Err(self.no_memory(e)),
            }
        }
        Err(self.no_memory(Errno::ENOMEM))
    }

    fn window_size(&self, pmas: &Pmas, vma: &Vma, hole: AddrRange, page: u64) -> u64 {
        let populated = self.memory.backing() == Backing::Anonymous;
        if vma.flags.contains(VmaFlags::HUGEPAGE) && populated {
            return HUGE;
        }
        // As long as what was filled right before (or, in a stack, behind) this hole.
        let run = |at: Option<(AddrRange, &Pma)>| at.map_or(0, |(r, _)| r.len());
        let near = FIRST_WINDOW * 2;
        let before = if page - hole.start < near { run(pmas.map.before(hole.start.max(1))) } else { 0 };
        let after = if hole.end - page <= near { run(pmas.map.get(hole.end)) } else { 0 };
        let last = if populated { LAST_POPULATED } else { LAST_WINDOW };
        before.max(after).clamp(FIRST_WINDOW, last).next_power_of_two().min(last)
    }

    fn fill(&self, pmas: &mut Pmas, want: AddrRange, bounds: AddrRange, page: u64) -> Result<(), Errno> {
        let mut at = want.start;
        while at < want.end {
            let served = pmas.extents.commit(&self.memory, AddrRange::new(at, want.end), bounds);
            let (part, offset) = match served {
                Ok(served) => served,
                // The page itself is there; the rest of the window was only a guess.
                Err(_) if at > page => break,
                Err(e) => return Err(e),
            };
            if self.memory.backing() == Backing::Anonymous {
                self.memory.populate(AddrRange::new(offset, offset + part.len()));
            }
            pmas.map.insert(part, Pma::private(self.memory.frame(offset)));
            at = part.end;
        }
        Ok(())
    }

    fn translate(
        &self,
        file: &FileBacking,
        vrange: AddrRange,
        vma: &Vma,
        page: u64,
        write: bool,
    ) -> Result<Vec<crate::mm::mappable::Translation>, FaultSignal> {
        let tables = self.memory.backing() == Backing::Anonymous;
        let around = window(page, if tables { FILE_WINDOW_TABLES } else { FILE_WINDOW }, vrange);
        let to_file = |addr: u64| file.offset.saturating_add(addr - vrange.start);
        let range = FileRange { start: to_file(page), end: to_file(page + PAGE_SIZE) };
        let optional = FileRange { start: to_file(around.start), end: to_file(around.end) };
        let access = if write && vma.is_shared() { Access::WRITE } else { Access::READ };
        file.mappable.translate(range, optional, access).map_err(|e| match e {
            TranslateError::Bus => FaultSignal::bus_adrerr(),
            TranslateError::NoMemory => self.no_memory(Errno::ENOMEM),
        })
    }

    /// Gives the pages around `page` frames of their own that take stores.
    fn break_cow(
        &self,
        pmas: &mut Pmas,
        vmas: &Vmas,
        (vrange, vma): (AddrRange, &Vma),
        page: u64,
        stale: &mut Stale,
    ) -> Result<(), FaultSignal> {
        let Some((prange, pma)) = pmas.map.get(page).map(|(r, p)| (r, p.clone())) else { return Ok(()) };
        let here = prange.intersect(&vrange);
        let one = AddrRange::new(page, page + PAGE_SIZE);
        if pma.is_held() {
            // The other holders may have left: then the frames are ours alone again.
            for part in [here, window(page, FIRST_WINDOW, here), one] {
                let offset = pma.frame.offset + (part.start - prange.start);
                if self.memory.is_unique(AddrRange::new(offset, offset + part.len())) {
                    pmas.map.update(part, |_, p| p.cow = false);
                    pmas.note_hot(window(page, COPY_WINDOW, part));
                    stale.ranges.push(one);
                    return Ok(());
                }
            }
        }
        if stale.spares_reserve && self.memory.is_tight() {
            return Err(self.no_memory(Errno::ENOMEM));
        }
        // A page of a file that may still change shows those changes until it is stored to itself.
        let changing = !pma.owned && pma.frame.file.kind() != FileKind::Image;
        let size = if changing { PAGE_SIZE } else { self.copy_window(pmas, here, page) };
        let first = window(page, size, here);
        // A region that is written from front to back: copy more at once.
        let in_order = !changing && first.start == pmas.last_copy.end && self.memory.backing() != Backing::Anonymous;
        let ahead = if in_order { (pmas.last_copy.len() * 2).min(LAST_COPY_STUBS) } else { 0 };
        let more = AddrRange::new(first.start, first.end.max(first.start + ahead)).intersect(&here);
        let bounds = place_bounds(vmas, vrange, vma);
        for want in [more, one] {
            match self.copy_pages(pmas, want, bounds, stale) {
                Ok(()) => {
                    pmas.last_copy = want;
                    if ahead == 0 {
                        pmas.note_hot(window(page, COPY_WINDOW, want));
                    }
                    return Ok(());
                }
                Err(Some(Errno::ENOMEM)) if want.len() > PAGE_SIZE => {}
                Err(Some(e)) => return Err(self.no_memory(e)),
                // A neighbour of the page may be unreadable.
                Err(None) if want.len() > PAGE_SIZE => {}
                Err(None) => return Err(FaultSignal::bus_adrerr()),
            }
        }
        Err(FaultSignal::bus_adrerr())
    }

    /// Stores that walk through a private mapping (relocations) get windows that grow, where an exit costs more than
    /// a few copies.
    fn copy_window(&self, pmas: &Pmas, here: AddrRange, page: u64) -> u64 {
        if self.memory.backing() != Backing::Anonymous {
            return COPY_WINDOW;
        }
        let near = COPY_WINDOW * 4;
        let run = |at: Option<(AddrRange, &Pma)>| at.filter(|(_, p)| p.takes_stores()).map_or(0, |(r, _)| r.len());
        let before = if page - here.start < near { run(pmas.map.before(here.start.max(1))) } else { 0 };
        let after = if here.end - page <= near { run(pmas.map.get(here.end)) } else { 0 };
        before.max(after).clamp(COPY_WINDOW * 4, LAST_COPY).next_power_of_two().min(LAST_COPY)
    }

    /// Copies what `want` (inside one Pma) shows. The error is `None` where the old frame cannot be read.
    fn copy_pages(
        &self,
        pmas: &mut Pmas,
        want: AddrRange,
        bounds: AddrRange,
        stale: &mut Stale,
    ) -> Result<(), Option<Errno>> {
        let mut at = want.start;
        while at < want.end {
            let rest = AddrRange::new(at, want.end);
            let Some((r, old)) = pmas.map.get(at).map(|(r, p)| (r, p.clone())) else { return Ok(()) };
            let from: Frame = old.frame.advance(at - r.start);
            let (part, offset) = pmas.extents.commit(&self.memory, rest, bounds).map_err(Some)?;
            let len = usize::try_from(part.len()).unwrap_or(0);
            if self.memory.file().copy_from(offset, &from.file, from.offset, len).is_err() {
                self.memory.dec_ref(AddrRange::new(offset, offset + part.len()));
                return Err(None);
            }
            if old.is_held() {
                stale.drops.push(AddrRange::new(from.offset, from.offset + part.len()));
            }
            stale.ranges.push(part);
            pmas.map.insert(part, Pma::private(self.memory.frame(offset)));
            at = part.end;
        }
        Ok(())
    }

    /// Does what a realisation left to do, where nothing was mapped since: takes old translations away.
    pub(super) fn settle(&self, stale: &mut Stale) {
        for range in stale.ranges.drain(..) {
            self.space.invalidate(range);
        }
        if !stale.drops.is_empty() {
            self.memory.dec_refs(&stale.drops);
            stale.drops.clear();
        }
    }
}

/// Enters a file's frames where nothing is yet.
fn adopt(
    pmas: &mut Pmas,
    file: &FileBacking,
    (vrange, vma): (AddrRange, &Vma),
    pieces: Vec<crate::mm::mappable::Translation>,
) {
    let visible = AddrRange::new(file.offset, file.offset.saturating_add(vrange.len()));
    for piece in pieces {
        let part = AddrRange::new(piece.source.start, piece.source.end).intersect(&visible);
        if part.is_empty() {
            continue;
        }
        let at = AddrRange::new(part.start - file.offset + vrange.start, part.end - file.offset + vrange.start);
        for gap in pmas.map.gaps(at) {
            let frame = piece.frame.advance(gap.start - at.start + (part.start - piece.source.start));
            let writable = vma.is_shared() && piece.writable;
            pmas.map.insert(gap, Pma { frame, owned: false, cow: !vma.is_shared(), writable });
        }
    }
}

/// Where the private pages of a mapping may go: far enough that it can grow and its neighbours join.
pub(super) fn place_bounds(vmas: &Vmas, vrange: AddrRange, vma: &Vma) -> AddrRange {
    let mut bounds = vrange;
    if vma.file.is_some() {
        return bounds;
    }
    let joins = |v: &Vma| v.file.is_none() && !v.is_shared();
    for _ in 0..4 {
        match vmas.map.get(bounds.end) {
            Some((r, v)) if joins(v) => bounds.end = r.end,
            _ => break,
        }
    }
    for _ in 0..4 {
        match vmas.map.before(bounds.start) {
            Some((r, v)) if r.end == bounds.start && joins(v) => bounds.start = r.start,
            _ => break,
        }
    }
    let room = 16 << 20;
    if vma.flags.contains(VmaFlags::HEAP) {
        let next = vmas.map.at_or_after(bounds.end).map_or(u64::MAX, |(r, _)| r.start);
        bounds.end = bounds.end.saturating_add(room).min(next);
    } else if vma.flags.contains(VmaFlags::GROWSDOWN) {
        let last = vmas.map.before(bounds.start).map_or(0, |(r, _)| r.end);
        bounds.start = bounds.start.saturating_sub(1 << 20).max(last);
    }
    bounds
}
