//! Copies of address spaces: frames are shared and counted, stores copy from then on.
//!
//! The work is in proportion to mappings and runs of frames, not to pages.

use std::sync::Arc;

use abi::{AddrRange, Errno};
use memory::{RangeMap, RangeValue};
use platform::{MapOp, Platform};

use crate::kernel::Kernel;
use crate::mm::map::counts_as_writable;
use crate::mm::pma::{Pma, held_by};
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
        let (vmas, pages) = {
            let mut ours = self.vmas.write();
            let vmas = child.copy_vmas(&ours)?;
            // Announced before the frames are copied, so that no invalidation misses the child.
            let pages = self.share_pages(&mut ours, &vmas);
            (vmas, pages)
        };
        let mut pmas = child.pmas.lock();
        let valid = pmas.invalidations == 0;
        for (range, pma) in pages {
            if valid || pma.owned {
                pmas.map.insert(range, pma);
            }
        }
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
    fn share_pages(&self, ours: &mut Vmas, wanted: &Vmas) -> Vec<(AddrRange, Pma)> {
        let mut pages = Vec::new();
        let mut ops: Vec<MapOp> = Vec::new();
        let mut pmas = self.pmas.lock();
        for (vrange, vma) in wanted.map.iter() {
            if vma.flags.contains(VmaFlags::WIPEONFORK) {
                continue;
            }
            for (r, pma) in pmas.map.overlapping(vrange) {
                let part = r.intersect(&vrange);
                let mut piece = pma.advance(part.start - r.start);
                let was_writable = piece.takes_stores();
                piece.cow |= piece.owned;
                if was_writable && piece.cow && vma.prot.contains(platform::Prot::WRITE) {
                    let mine = ours.map.get(part.start).map_or_else(|| vma.clone(), |(_, v)| v.clone());
                    ops.push(piece.map_op(part, &mine));
                }
                pages.push((part, piece));
            }
        }
        for (range, piece) in &pages {
            if piece.owned {
                pmas.map.update(*range, |_, p| p.cow = true);
            }
        }
        self.memory.inc_refs(&held_by(&pages));
        // Without room the space is empty, which protects as well.
        let _ = self.space.apply(&ops);
        pages
    }
}
