//! `madvise(2)`, `msync(2)`, `mincore(2)`, `mlock(2)` and names.

use std::sync::Arc;

use abi::{AddrRange, Errno, PAGE_MASK, PAGE_SIZE, page_up};
use platform::{Access, Prot, USER_END};

use crate::mm::layout::MAX_MAPS;
use crate::mm::mappable::{FileRange, Mappable};
use crate::mm::vma::{Vma, VmaFlags};
use crate::mm::{FaultSignal, Mm, Vmas};

/// What `madvise` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing that can be seen.
    Nothing,
    /// Sets and clears flags of the mappings.
    Flags {
        /// To be set.
        set: VmaFlags,
        /// To be cleared.
        clear: VmaFlags,
        /// Only for private anonymous memory (`EINVAL` elsewhere).
        anonymous: bool,
    },
    /// The pages go (MADV_DONTNEED); locked ones too if `locked`.
    DontNeed {
        /// MADV_DONTNEED_LOCKED.
        locked: bool,
    },
    /// The pages of private anonymous memory may go (MADV_FREE).
    Free,
    /// The file's pages go too (MADV_REMOVE).
    Remove,
    /// Only checks that nothing is locked (MADV_COLD, MADV_PAGEOUT).
    Cold,
    /// Realise pages for reading or writing (MADV_POPULATE_*).
    Populate(Access),
}

/// The page range of a call that takes an aligned address and any length.
///
/// # Errors
/// `EINVAL` where it is not aligned or wraps around.
pub fn page_range(addr: u64, len: u64) -> Result<AddrRange, Errno> {
    let len = page_up(len).filter(|l| *l > 0 || len == 0).ok_or(Errno::EINVAL)?;
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    if addr & PAGE_MASK != 0 { Err(Errno::EINVAL) } else { Ok(AddrRange::new(addr, end)) }
}

/// A change of flags that leaves room below `vm.max_map_count`.
fn set_flags(vmas: &mut Vmas, range: AddrRange, set: VmaFlags, clear: VmaFlags) -> Result<(), Errno> {
    if vmas.map.len() + 2 > MAX_MAPS {
        return Err(Errno::ENOMEM);
    }
    vmas.map.update(range, |_, vma| {
        vma.flags.remove(clear);
        vma.flags.insert(set);
    });
    Ok(())
}

impl Mm {
    /// `madvise(2)` on a page range.
    ///
    /// # Errors
    /// `EINVAL` where the advice does not fit the mapping; `ENOMEM` where pages are not mapped (the others are served);
    /// `EACCES` for MADV_REMOVE without write access; `EFAULT` where populating met a SIGBUS.
    pub fn madvise(&self, range: AddrRange, advice: Advice) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        if let Advice::Populate(access) = advice {
            return self.populate_checked(range, access);
        }
        let mut files: Vec<(Arc<dyn Mappable>, FileRange)> = Vec::new();
        let mut vmas = self.vmas.write();
        let pieces: Vec<(AddrRange, Vma)> = vmas.map.overlapping(range).map(|(r, v)| (r, v.clone())).collect();
        let mut at = range.start;
        let mut answer = Ok(());
        for (r, vma) in &pieces {
            if r.start > at {
                answer = Err(Errno::ENOMEM);
            }
            at = r.end;
            let here = r.intersect(&range);
            self.advise_one(&mut vmas, here, (r.start, vma), advice, &mut files)?;
        }
        drop(vmas);
        if at < range.end {
            answer = Err(Errno::ENOMEM);
        }
        // Files' locks come before ours.
        files.iter().try_for_each(|(file, range)| file.punch(*range))?;
        drop(pieces);
        answer
    }

    fn advise_one(
        &self,
        vmas: &mut Vmas,
        here: AddrRange,
        (start, vma): (u64, &Vma),
        advice: Advice,
        files: &mut Vec<(Arc<dyn Mappable>, FileRange)>,
    ) -> Result<(), Errno> {
        let locked = vma.flags.contains(VmaFlags::LOCKED);
        let anonymous = vma.file.is_none();
        match advice {
            Advice::Nothing | Advice::Populate(_) => Ok(()),
            Advice::Flags { anonymous: true, .. } if !anonymous => Err(Errno::EINVAL),
            Advice::Flags { set, clear, .. } => set_flags(vmas, here, set, clear),
            Advice::DontNeed { locked: false } | Advice::Free | Advice::Remove | Advice::Cold if locked => {
                Err(Errno::EINVAL)
            }
            Advice::Cold => Ok(()),
            Advice::Free if !anonymous => Err(Errno::EINVAL),
            Advice::DontNeed { .. } | Advice::Free => {
                self.forget_pages(here, false);
                Ok(())
            }
            Advice::Remove => {
                let file = vma.file.as_ref().ok_or(Errno::EINVAL)?;
                if !vma.is_shared() || !vma.max.contains(Prot::WRITE) {
                    return Err(Errno::EACCES);
                }
                let offset = file.offset.saturating_add(here.start - start);
                files
                    .push((file.mappable.clone(), FileRange { start: offset, end: offset.saturating_add(here.len()) }));
                Ok(())
            }
        }
    }

    fn populate_checked(&self, range: AddrRange, access: Access) -> Result<(), Errno> {
        if range.end > USER_END || !self.vmas.read().map.gaps(range).is_empty() {
            return Err(Errno::ENOMEM);
        }
        self.populate(range, access).map_err(|signal| {
            if signal == FaultSignal::out_of_memory() {
                Errno::ENOMEM
            } else if signal.signal == libc::SIGBUS {
                Errno::EFAULT
            } else {
                Errno::EINVAL
            }
        })
    }

    /// `msync(2)`: `sync` for MS_SYNC, `invalidate` for MS_INVALIDATE.
    ///
    /// # Errors
    /// `ENOMEM` where pages are not mapped; `EBUSY` for MS_INVALIDATE on locked memory; `EIO`.
    pub fn msync(&self, range: AddrRange, sync: bool, invalidate: bool) -> Result<(), Errno> {
        let mut files = Vec::new();
        let mut answer = Ok(());
        {
            let vmas = self.vmas.read();
            if !vmas.map.gaps(range).is_empty() {
                answer = Err(Errno::ENOMEM);
            }
            for (r, vma) in vmas.map.overlapping(range) {
                if invalidate && vma.flags.contains(VmaFlags::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                if let Some(file) = vma.file.as_ref().filter(|_| sync && vma.is_shared()) {
                    let here = r.intersect(&range);
                    let start = file.offset.saturating_add(here.start - r.start);
                    let end = start.saturating_add(here.len());
                    files.push((file.mappable.clone(), FileRange { start, end }));
                }
            }
        }
        files.iter().try_for_each(|(file, range)| file.sync(*range))?;
        answer
    }

    /// `mincore(2)` for up to a few thousand pages: one byte a page, 1 where it is resident.
    ///
    /// # Errors
    /// `ENOMEM` where a page is not mapped.
    pub fn mincore(&self, range: AddrRange) -> Result<Vec<u8>, Errno> {
        let vmas = self.vmas.read();
        if !vmas.map.gaps(range).is_empty() {
            return Err(Errno::ENOMEM);
        }
        let pmas = self.pmas.lock();
        let mut out = vec![0u8; usize::try_from(range.len() / PAGE_SIZE).map_err(|_| Errno::ENOMEM)?];
        for (r, _) in pmas.map.overlapping(range) {
            let here = r.intersect(&range);
            let from = usize::try_from((here.start - range.start) / PAGE_SIZE).unwrap_or(usize::MAX);
            let count = usize::try_from(here.len() / PAGE_SIZE).unwrap_or(0);
            out.iter_mut().skip(from).take(count).for_each(|b| *b = 1);
        }
        Ok(out)
    }

    /// `mlock2(2)` and `munlock(2)`: `flags` are LOCKED and LOCK_ON_FAULT, or none.
    ///
    /// # Errors
    /// `ENOMEM` where pages are not mapped or RLIMIT_MEMLOCK is exceeded; `EAGAIN` where they could not be had.
    pub fn mlock(&self, range: AddrRange, flags: VmaFlags) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        {
            let mut vmas = self.vmas.write();
            let already: u64 = vmas
                .map
                .overlapping(range)
                .filter(|(_, v)| v.flags.contains(VmaFlags::LOCKED))
                .map(|(r, _)| r.intersect(&range).len())
                .sum();
            let total = vmas.locked().saturating_sub(already).saturating_add(range.len());
            if !flags.is_empty() && total > self.limits().memlock {
                return Err(Errno::ENOMEM);
            }
            let hole = vmas.map.gaps(range).first().map(|g| g.start);
            let reach = AddrRange::new(range.start, hole.unwrap_or(range.end));
            set_flags(&mut vmas, reach, flags, VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT)?;
            if hole.is_some() {
                return Err(Errno::ENOMEM);
            }
        }
        if flags == VmaFlags::LOCKED {
            self.populate_accessible(range)?;
        }
        Ok(())
    }

    /// Realises what can be accessed; PROT_NONE is `ENOMEM`, as for `mlock`.
    fn populate_accessible(&self, range: AddrRange) -> Result<(), Errno> {
        let parts: Vec<(AddrRange, Access)> = {
            let vmas = self.vmas.read();
            let access = |v: &Vma| {
                if v.prot.contains(Prot::WRITE) && !v.is_shared() { Access::WRITE } else { Access::READ }
            };
            vmas.map.overlapping(range).map(|(r, v)| (r.intersect(&range), access(v))).collect()
        };
        for (part, access) in parts {
            self.populate(part, access)
                .map_err(|s| if s == FaultSignal::out_of_memory() { Errno::EAGAIN } else { Errno::ENOMEM })?;
        }
        Ok(())
    }

    /// `mlockall(2)` and `munlockall(2)`: flags for what is mapped (if `current`) and for what will be.
    ///
    /// # Errors
    /// `ENOMEM` over RLIMIT_MEMLOCK.
    pub fn mlockall(&self, current: Option<VmaFlags>, future: VmaFlags) -> Result<(), Errno> {
        let all = AddrRange::new(0, USER_END);
        {
            let mut vmas = self.vmas.write();
            let locks = current.is_some_and(|f| !f.is_empty());
            if locks && vmas.total() > self.limits().memlock {
                return Err(Errno::ENOMEM);
            }
            vmas.default_flags = future;
            if let Some(flags) = current {
                vmas.map.update(all, |_, vma| {
                    vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
                    if !vma.flags.contains(VmaFlags::SPECIAL) {
                        vma.flags.insert(flags);
                    }
                });
            }
        }
        if current == Some(VmaFlags::LOCKED) {
            // mlockall ignores what cannot be had (mm/mlock.c).
            let _ = self.populate_accessible(all);
        }
        Ok(())
    }

    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`: names private anonymous memory, or clears its name.
    ///
    /// # Errors
    /// `EBADF` where a file is mapped; `ENOMEM` where nothing is.
    pub fn set_anon_name(&self, range: AddrRange, name: Option<&[u8]>) -> Result<(), Errno> {
        let mut vmas = self.vmas.write();
        if vmas.map.overlapping(range).any(|(_, v)| v.file.is_some()) {
            return Err(Errno::EBADF);
        }
        if !vmas.map.gaps(range).is_empty() || vmas.map.len() + 2 > MAX_MAPS {
            return Err(Errno::ENOMEM);
        }
        let name: Option<Arc<[u8]>> = name.map(Arc::from);
        vmas.map.update(range, |_, v| v.name.clone_from(&name));
        Ok(())
    }
}
