//! What a new address space shows before its first instruction.
//!
//! A fork's child and a fresh program touch the same few places at once: text, stack, data, heap. A fault for each costs
//! two trips on ptrace and an exit on KVM; all of them in the first batch cost little.

use abi::AddrRange;
use memory::{Backing, RangeValue};
use platform::{MapOp, Prot};

use crate::mm::pma::Pmas;
use crate::mm::realise::{COPY_WINDOW, Stale};
use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{Mm, Vmas};

/// Most pieces mapped in advance.
const MOST: usize = 32;
/// Longest writable mapping of a program whose pages are made its own in advance.
const SMALL: u64 = 64 << 10;
/// Longest piece where each page costs a table entry.
const MOST_TABLES: u64 = 2 << 20;

impl Mm {
    /// Maps what is realised, if that is little; of a large child only what can be executed and the pages that are
    /// its own.
    pub(super) fn premap_child(&self, vmas: &Vmas, pmas: &Pmas, own: &[AddrRange]) {
        let mut pieces = self.pieces(vmas, pmas);
        if pieces.len() > MOST {
            pieces.retain(|(part, op)| own.iter().any(|r| !r.intersect(part).is_empty()) || is_executable(op));
            pieces.truncate(MOST);
        }
        let ops: Vec<MapOp> = pieces.into_iter().map(|(_, op)| op).collect();
        // Without room the space is empty: the child faults.
        let _ = self.space.apply(&ops);
    }

    /// Realises and maps the parts of a program that was just loaded: all of what it only reads, and small writable
    /// parts. What cannot be realised is left to the fault that will tell.
    pub fn premap_program(&self) {
        if self.memory.is_tight() {
            return;
        }
        let vmas = self.vmas.read();
        let mut stale = Stale::default();
        for (range, vma) in vmas.map.iter().filter(|(_, v)| !v.is_shared() && !v.cpu_prot().is_empty()).take(MOST) {
            self.realise_for_program(&vmas, (range, vma), &mut stale);
        }
        let pmas = self.pmas.lock();
        let mut pieces = self.pieces(&vmas, &pmas);
        pieces.truncate(MOST);
        let ops: Vec<MapOp> = pieces.into_iter().map(|(_, op)| op).collect();
        let _ = self.space.apply(&ops);
        self.settle(&mut stale);
    }

    fn realise_for_program(&self, vmas: &Vmas, (range, vma): (AddrRange, &Vma), stale: &mut Stale) {
        let written = vma.prot.contains(Prot::WRITE);
        if written && range.len() <= SMALL && !vma.flags.contains(VmaFlags::GROWSDOWN) {
            for page in (range.start..range.end).step_by(COPY_WINDOW as usize) {
                let _ = self.realise(vmas, (range, vma), page, true, stale);
            }
        } else if vma.file.is_some() {
            let _ = self.realise(vmas, (range, vma), range.start, false, stale);
        }
    }

    /// The changes that show everything that is realised.
    fn pieces(&self, vmas: &Vmas, pmas: &Pmas) -> Vec<(AddrRange, MapOp)> {
        let tables = self.memory.backing() == Backing::Anonymous;
        let mut pieces = Vec::new();
        for (vrange, vma) in vmas.map.iter().filter(|(_, v)| !v.cpu_prot().is_empty()) {
            for (r, pma) in pmas.map.overlapping(vrange) {
                let part = r.intersect(&vrange);
                if !tables || part.len() <= MOST_TABLES {
                    pieces.push((part, pma.advance(part.start - r.start).map_op(part, vma)));
                }
            }
        }
        pieces
    }
}

fn is_executable(op: &MapOp) -> bool {
    matches!(op, MapOp::Map { prot, .. } if prot.contains(Prot::EXEC))
}
