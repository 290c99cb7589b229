//! The heap.

use abi::{AddrRange, page_up};
use platform::{Access, Prot, USER_END};

use crate::mm::Mm;
use crate::mm::layout::{self, MAX_MAPS};
use crate::mm::unmap::Garbage;
use crate::mm::vma::{Vma, VmaFlags};

impl Mm {
    /// Places an empty heap at `start`.
    pub fn set_brk_start(&self, start: u64) {
        self.vmas.write().brk = AddrRange::new(start, start);
    }

    /// `brk(2)`: moves the heap's end to `addr` if that is possible; answers the end.
    pub fn brk(&self, addr: u64) -> u64 {
        let mut garbage = Garbage::default();
        let limits = self.limits();
        let mut vmas = self.vmas.write();
        let old = vmas.brk;
        let (Some(old_end), Some(new_end)) = (page_up(old.end), page_up(addr)) else { return old.end };
        if addr < old.start || new_end > USER_END || addr - old.start > limits.data {
            return old.end;
        }
        let mut fresh = AddrRange::default();
        if new_end < old_end {
            self.unmap_locked(&mut vmas, AddrRange::new(new_end, old_end), &mut garbage);
        } else if new_end > old_end {
            fresh = AddrRange::new(old_end, new_end);
            let room = layout::is_free(&vmas.map, fresh) && vmas.map.len() < MAX_MAPS;
            if !room || self.check_space(&vmas, fresh).is_err() || self.check_data(&vmas, fresh).is_err() {
                return old.end;
            }
            let flags = VmaFlags::HEAP | vmas.default_flags;
            vmas.map.insert(fresh, Vma::anonymous(Prot::READ | Prot::WRITE, flags));
        }
        vmas.brk.end = addr;
        let lock = vmas.default_flags.contains(VmaFlags::LOCKED) && !fresh.is_empty();
        if !fresh.is_empty() {
            self.expect_use(&vmas, fresh);
        }
        drop(vmas);
        if lock {
            let _ = self.populate(fresh, Access::WRITE);
        } else if !fresh.is_empty() && !self.memory.is_tight() {
            // Who asks for more heap is about to write to it.
            let _ = self.handle_fault(fresh.start, Access::WRITE);
        }
        addr
    }
}
