//! Copies of address spaces: frames are shared and counted, stores copy from then on. But the few windows that both
//! sides stored to after an earlier fork (stack, data, heap top) are copied at once: two faults saved for each.
//!
//! The work is in proportion to mappings and runs of frames, not to pages.

use std::sync::Arc;

use abi::{AddrRange, Errno};
use memory::{Backing, RangeMap, RangeValue};
use platform::{MapOp, Platform};

use crate::kernel::Kernel;
use crate::mm::extents::Extents;
use crate::mm::map::counts_as_writable;
use crate::mm::pma::{Pma, held_by};
use crate::mm::realise::place_bounds;
use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{Mm, Vmas};

impl Mm {
    /// A copy for `fork(2)`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self, kernel: &Arc<Kernel>) -> Result<Arc<Mm>, Errno> {
        self.fork_on(&kernel.platform)
    }

    /// As [`Mm::fork`], on a platform.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork_on(&self, platform: &Arc<dyn Platform>) -> Result<Arc<Mm>, Errno> {
        let child = Mm::on(platform, &self.memory)?;
        child.set_limits(self.limits());
        let (vmas, given) = {
            let mut ours = self.vmas.write();
            let vmas = child.copy_vmas(&ours)?;
            // Announced before the frames are copied, so that no invalidation misses the child.
            let given = self.share_pages(&mut ours, &vmas);
            (vmas, given)
        };
        let mut pmas = child.pmas.lock();
        let valid = pmas.invalidations == 0;
        let own: Vec<AddrRange> = given.copies.iter().map(|(r, _)| *r).collect();
        for (range, pma) in given.pages.into_iter().chain(given.copies) {
            if valid || pma.owned {
                pmas.map.insert(range, pma);
            }
        }
        (pmas.extents, pmas.hot) = (given.extents, given.hot);
        child.premap_child(&vmas, &pmas, &own);
        drop(pmas);
        *child.vmas.write() = vmas;
        Ok(child)
    }

    /// The mappings that `self`, the child, gets; announced to their files.
    fn copy_vmas(&self, parent: &Vmas) -> Result<Vmas, Errno> {
        let mut map: RangeMap<Vma> = RangeMap::new();
        for (range, vma) in parent.map.iter() {
            if vma.flags.contains(VmaFlags::DONTFORK) {
                continue;
            }
            let mut vma = vma.clone();
            vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
            let announced = vma
                .file
                .as_ref()
                .map_or(Ok(()), |f| f.mappable.add_mapping(&self.this, range, f.offset, counts_as_writable(&vma)));
            if let Err(errno) = announced {
                // Dropping the child forgets what was announced so far.
                self.vmas_for_drop(map);
                return Err(errno);
            }
            map.insert(range, vma);
        }
        let program = parent.program.clone();
        Ok(Vmas { map, layout: parent.layout, brk: parent.brk, pkeys: parent.pkeys, program, ..Vmas::default() })
    }

    fn vmas_for_drop(&self, map: RangeMap<Vma>) {
        for (range, vma) in map.iter() {
            if let Some(file) = &vma.file {
                file.mappable.remove_mapping(&self.this, range, file.offset, counts_as_writable(vma));
            }
        }
    }

    /// Makes our private pages copy-on-write and answers the child's view of all pages of `wanted`.
    fn share_pages(&self, ours: &mut Vmas, wanted: &Vmas) -> Given {
        let mut given = Given::default();
        let mut ops: Vec<MapOp> = Vec::new();
        let mut pmas = self.pmas.lock();
        given.hot.clone_from(&pmas.hot);
        // Copying while another thread stores could tear what it stores: then every page is write-protected first.
        let copies = self.this.strong_count() <= ONE_TASK && !self.memory.is_tight();
        let hot: &[AddrRange] = if copies { &given.hot.clone() } else { &[] };
        for (vrange, vma) in wanted.map.iter() {
            if vma.flags.contains(VmaFlags::WIPEONFORK) {
                continue;
            }
            for (r, pma) in pmas.map.overlapping(vrange) {
                for part in split(r.intersect(&vrange), hot) {
                    let mut part = part;
                    let mut piece = pma.advance(part.start - r.start);
                    if piece.owned && piece.takes_stores() && hot.iter().any(|h| h.covers(&part)) {
                        let copied = self.copy_hot(wanted, (vrange, vma), part, &piece, &mut given);
                        piece = piece.advance(copied - part.start);
                        part.start = copied;
                    }
                    if part.is_empty() {
                        continue;
                    }
                    let was_writable = piece.takes_stores();
                    piece.cow |= piece.owned;
                    if was_writable && piece.cow && vma.prot.contains(platform::Prot::WRITE) {
                        let mine = ours.map.get(part.start).map_or_else(|| vma.clone(), |(_, v)| v.clone());
                        ops.push(piece.map_op(part, &mine));
                    }
                    given.pages.push((part, piece));
                }
            }
        }
        for (range, piece) in &given.pages {
            if piece.owned {
                pmas.map.update(*range, |_, p| p.cow = true);
            }
        }
        self.memory.inc_refs(&held_by(&given.pages));
        // Without room the space is empty, which protects as well.
        let _ = self.space.apply(&ops);
        given
    }

    /// Copies our frames behind `part` for the child; answers up to where there was room.
    fn copy_hot(
        &self,
        wanted: &Vmas,
        (vrange, vma): (AddrRange, &Vma),
        part: AddrRange,
        piece: &Pma,
        given: &mut Given,
    ) -> u64 {
        let bounds = place_bounds(wanted, vrange, vma);
        let mut at = part.start;
        while at < part.end {
            let rest = AddrRange::new(at, part.end);
            let Ok((done, offset)) = given.extents.commit(&self.memory, rest, bounds) else { break };
            let copy = AddrRange::new(offset, offset + done.len());
            if self.memory.backing() == Backing::Anonymous {
                self.memory.populate(copy);
            }
            let from = piece.frame.advance(at - part.start);
            let len = usize::try_from(done.len()).unwrap_or(0);
            if self.memory.file().copy_from(offset, &from.file, from.offset, len).is_err() {
                self.memory.dec_ref(copy);
                break;
            }
            given.copies.push((done, Pma::private(self.memory.frame(offset))));
            at = done.end;
        }
        at
    }
}

/// References to an address space that one task and its call hold: `TaskOwned`, `TaskShared`, and the caller of `fork`.
const ONE_TASK: usize = 3;

/// What a child gets.
#[derive(Default)]
struct Given {
    /// Frames that it shares with us.
    pages: Vec<(AddrRange, Pma)>,
    /// Frames of its own.
    copies: Vec<(AddrRange, Pma)>,
    /// Where those lie.
    extents: Extents,
    /// Our [`Pmas::hot`](crate::mm::pma::Pmas::hot).
    hot: Vec<AddrRange>,
}

/// Cuts `range` at the ends of `windows`.
fn split(range: AddrRange, windows: &[AddrRange]) -> Vec<AddrRange> {
    let inside = |at: &u64| range.start < *at && *at < range.end;
    let mut cuts: Vec<u64> = windows.iter().flat_map(|w| [w.start, w.end]).filter(inside).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.push(range.end);
    let mut start = range.start;
    cuts.into_iter().map(|end| AddrRange::new(std::mem::replace(&mut start, end), end)).collect()
}
