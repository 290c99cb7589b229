//! New mappings.

use std::sync::Arc;

use abi::{AddrRange, Errno, PAGE_MASK, page_up};
use platform::{Access, Prot, USER_END, USER_START};

use crate::mm::extents::HUGE;
use crate::mm::layout::{self, MAX_MAPS};
use crate::mm::object::{MemoryObject, anonymous_key};
use crate::mm::unmap::Garbage;
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::mm::{Mm, Vmas};

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere, near this hint if it is not 0.
    Hint(u64),
    /// Anywhere in the first 2 GiB (MAP_32BIT).
    Low(u64),
    /// Here, replacing what is there (MAP_FIXED).
    Fixed(u64),
    /// Here, if it is free (MAP_FIXED_NOREPLACE).
    FixedNoReplace(u64),
}

/// A mapping to be made.
pub struct MapRequest {
    /// Where.
    pub place: Place,
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// What.
    pub vma: Vma,
    /// Realise the pages now (MAP_POPULATE).
    pub populate: bool,
}

impl MapRequest {
    /// Private anonymous memory.
    #[must_use]
    pub fn anonymous(place: Place, len: u64, prot: Prot, flags: VmaFlags) -> Self {
        MapRequest { place, len, vma: Vma::anonymous(prot, flags), populate: false }
    }
}

impl Mm {
    /// A memory object for MAP_SHARED|MAP_ANONYMOUS of `len` bytes.
    #[must_use]
    pub fn shared_anonymous(&self, len: u64) -> FileBacking {
        let object = MemoryObject::new(self.memory.clone(), anonymous_key(), len);
        FileBacking { mappable: object, offset: 0, file: None }
    }

    /// Makes a mapping; answers where it lies.
    ///
    /// # Errors
    /// As mmap(2): `EINVAL` for lengths and addresses that make no sense; `ENOMEM` without room, over RLIMIT_AS or
    /// `vm.max_map_count`; `EEXIST` for MAP_FIXED_NOREPLACE; `EPERM` below `vm.mmap_min_addr` or where sealed;
    /// `EAGAIN` over RLIMIT_MEMLOCK; `EOVERFLOW` for an offset that overflows.
    pub fn mmap(&self, request: MapRequest) -> Result<u64, Errno> {
        let mut garbage = Garbage::default();
        let (range, populate) = {
            let mut vmas = self.vmas.write();
            self.mmap_locked(&mut vmas, request, &mut garbage)?
        };
        drop(garbage);
        if let Some(access) = populate {
            // Failure to populate is not reported (mmap(2)).
            let _ = self.populate(range, access);
        }
        Ok(range.start)
    }

    fn mmap_locked(
        &self,
        vmas: &mut Vmas,
        request: MapRequest,
        garbage: &mut Garbage,
    ) -> Result<(AddrRange, Option<Access>), Errno> {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(request.len).filter(|l| *l > 0 && *l <= USER_END).ok_or(Errno::ENOMEM)?;
        let mut vma = request.vma;
        if let Some(file) = &vma.file {
            if file.offset & PAGE_MASK != 0 {
                return Err(Errno::EINVAL);
            }
            file.offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
        }
        if vmas.map.len() >= MAX_MAPS {
            return Err(Errno::ENOMEM);
        }
        let range = match self.huge_place(vmas, request.place, len, &vma) {
            Some(start) => AddrRange::new(start, start + len),
            None => self.place(vmas, request.place, len)?,
        };
        self.check_space(vmas, range)?;
        if vma.is_data() {
            self.check_data(vmas, range)?;
        }
        vma.flags |= vmas.default_flags;
        self.check_locked(vmas, len, vma.flags)?;
        if matches!(request.place, Place::Fixed(_)) {
            self.unmap_locked(vmas, range, garbage);
        }
        if let Some(file) = &vma.file {
            file.mappable.add_mapping(&self.this, range, file.offset, counts_as_writable(&vma))?;
        }
        let locked = vma.flags.contains(VmaFlags::LOCKED) && !vma.flags.contains(VmaFlags::LOCK_ON_FAULT);
        let access = if vma.prot.contains(Prot::WRITE) && !vma.is_shared() { Access::WRITE } else { Access::READ };
        let populate = (request.populate || locked) && !vma.prot.is_empty();
        vmas.map.insert(range, vma);
        self.expect_use(vmas, range);
        Ok((range, populate.then_some(access)))
    }

    /// Where large pages could show a long mapping of a file, if it may go anywhere (`thp_get_unmapped_area`).
    fn huge_place(&self, vmas: &mut Vmas, place: Place, len: u64, vma: &Vma) -> Option<u64> {
        if place != Place::Hint(0) || len < HUGE || !self.has_large_pages() {
            return None;
        }
        let file = vma.file.as_ref()?;
        let offset = file.mappable.placement(file.offset)?;
        layout::find_congruent(vmas, len, HUGE, offset).ok()
    }

    fn place(&self, vmas: &mut Vmas, place: Place, len: u64) -> Result<AddrRange, Errno> {
        let fixed = |addr: u64| {
            if addr & PAGE_MASK != 0 {
                return Err(Errno::EINVAL);
            }
            let end = addr.checked_add(len).filter(|e| *e <= USER_END).ok_or(Errno::ENOMEM)?;
            if addr < USER_START {
                return Err(Errno::EPERM);
            }
            Ok(AddrRange::new(addr, end))
        };
        match place {
            Place::Fixed(addr) => fixed(addr),
            Place::FixedNoReplace(addr) => {
                let range = fixed(addr)?;
                let taken = vmas.map.overlapping(range).next().is_some();
                if taken { Err(Errno::EEXIST) } else { Ok(range) }
            }
            Place::Hint(hint) | Place::Low(hint) => {
                let low = matches!(place, Place::Low(_));
                let start = vmas.find_free(hint, len, low)?;
                Ok(AddrRange::new(start, start + len))
            }
        }
    }

    /// RLIMIT_AS, counting what a fixed mapping replaces only once.
    pub(super) fn check_space(&self, vmas: &Vmas, range: AddrRange) -> Result<(), Errno> {
        let limit = self.limits().address_space;
        if limit == u64::MAX {
            return Ok(());
        }
        let replaced: u64 = vmas.map.overlapping(range).map(|(r, _)| r.intersect(&range).len()).sum();
        let total = vmas.total() - replaced + range.len();
        if total > limit { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// RLIMIT_DATA, for `range` becoming private writable memory (`may_expand_vm`).
    pub(super) fn check_data(&self, vmas: &Vmas, range: AddrRange) -> Result<(), Errno> {
        let limit = self.limits().data;
        if limit == u64::MAX {
            return Ok(());
        }
        let data = |r: AddrRange| r.len() - r.intersect(&range).len();
        let others: u64 = vmas.map.iter().filter(|(_, v)| v.is_data()).map(|(r, _)| data(r)).sum();
        if others + range.len() > limit { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// RLIMIT_MEMLOCK.
    fn check_locked(&self, vmas: &Vmas, len: u64, flags: VmaFlags) -> Result<(), Errno> {
        let limit = self.limits().memlock;
        if !flags.contains(VmaFlags::LOCKED) || limit == u64::MAX {
            return Ok(());
        }
        if vmas.locked().saturating_add(len) > limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }
}

/// Whether a mapping counts as a writable one of its file: it may store there, or be made to.
#[must_use]
pub fn counts_as_writable(vma: &Vma) -> bool {
    vma.is_shared() && vma.max.contains(Prot::WRITE)
}

impl Vmas {
    /// Bytes mapped.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.map.covered()
    }

    /// Bytes locked.
    #[must_use]
    pub fn locked(&self) -> u64 {
        self.map.iter().filter(|(_, v)| v.flags.contains(VmaFlags::LOCKED)).map(|(r, _)| r.len()).sum()
    }
}

/// The name of a mapping, as bytes.
#[must_use]
pub fn name(text: &[u8]) -> Arc<[u8]> {
    Arc::from(text)
}
