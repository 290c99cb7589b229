//! Copies between the kernel and guest memory, and atomic operations on guest words.
//!
//! A page that has no frame yet gets one, as a fault would; protections hold as they do for the guest itself.

use abi::{AddrRange, Errno, PAGE_SIZE, UserAddr, page_down};
use memory::Frame;
use memory::copy::Atomic32;
use platform::{Access, USER_END};

use crate::kernel::trip::inputs;
use crate::mm::Mm;
use crate::mm::realise::Stale;
use crate::mm::vma::VmaFlags;
use crate::vfs::InodeKey;

/// Longest piece moved under one hold of the locks.
const PIECE: usize = 1 << 20;

/// What a futex word is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexKey {
    /// A word of private memory: address space and address.
    Private {
        /// [`Mm::id`].
        mm: u64,
        /// Address.
        addr: u64,
    },
    /// A word of a shared mapping: object and offset in it.
    Shared {
        /// The mappable's key.
        object: InodeKey,
        /// Byte offset in it.
        offset: u64,
    },
}

impl Mm {
    /// Calls `each` with the frames behind `addr..addr+len`, piece by piece: frame, offset from `addr`, length.
    /// Page tables' rights are checked as for the guest. The frames stay while `each` runs, which must be short.
    fn for_frames(
        &self,
        addr: UserAddr,
        len: usize,
        access: Access,
        each: impl FnMut(&Frame, usize, usize) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.for_frames_of(addr, len, (access, false), each)
    }

    /// As [`Mm::for_frames`]; `force`d, the rights of private mappings do not matter (a debugger's access).
    fn for_frames_of(
        &self,
        addr: UserAddr,
        len: usize,
        access: (Access, bool),
        mut each: impl FnMut(&Frame, usize, usize) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let range = addr.range(len as u64).filter(|r| r.end <= USER_END).ok_or(Errno::EFAULT)?;
        let mut done = 0usize;
        while done < len {
            done += self.frames_piece(range, done, access, &mut each)?;
        }
        Ok(())
    }

    fn frames_piece(
        &self,
        range: AddrRange,
        done: usize,
        (access, force): (Access, bool),
        each: &mut impl FnMut(&Frame, usize, usize) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let at = range.start + done as u64;
        let page = page_down(at);
        let mut vmas = self.vmas.read();
        if vmas.map.get(page).is_none() {
            drop(vmas);
            self.grow_stack(page).map_err(|_| Errno::EFAULT)?;
            vmas = self.vmas.read();
        }
        let (vrange, vma) = vmas.map.get(page).ok_or(Errno::EFAULT)?;
        let forced = force && (!access.write || !vma.is_shared()) && !vma.flags.contains(VmaFlags::SPECIAL);
        if !vma.allows(access) && !forced {
            return Err(Errno::EFAULT);
        }
        let mut stale = Stale::default();
        let realised = self.realise(&vmas, (vrange, vma), page, access.write, &mut stale);
        let Ok(pmas) = realised else {
            drop(realised);
            let _order = self.pmas.lock();
            self.settle(&mut stale);
            return Err(Errno::EFAULT);
        };
        if !stale.ranges.is_empty() {
            // The guest will look where the kernel has written: show it now, with what else is due, not by a fault.
            // Where there is no room for that, the space is empty, which is right as well.
            let _ = self.show(&pmas, (vrange, vma), page, &mut stale);
        }
        let (r, pma) = pmas.map.get(page).ok_or(Errno::EFAULT)?;
        let here = r.intersect(&vrange).intersect(&AddrRange::new(at, range.end));
        let n = usize::try_from(here.len()).unwrap_or(PIECE).min(PIECE);
        each(&pma.frame.advance(at - r.start), done, n)?;
        Ok(n)
    }

    /// Copies `dst.len()` bytes in from the guest.
    ///
    /// # Errors
    /// `EFAULT` where any of them cannot be read; `dst` may be partly filled.
    pub fn read_bytes(&self, addr: UserAddr, dst: &mut [u8]) -> Result<(), Errno> {
        inputs::memory(self.id, addr, dst, |dst| self.read_data(addr, dst))
    }

    /// [`Mm::read_bytes`] for what is content, not arguments: a call that runs again after a wait reads it again.
    ///
    /// # Errors
    /// As [`Mm::read_bytes`].
    pub fn read_data(&self, addr: UserAddr, dst: &mut [u8]) -> Result<(), Errno> {
        self.for_frames(addr, dst.len(), Access::READ, |frame, at, n| {
            frame.file.read(frame.offset, &mut dst[at..at + n]).map_err(|_| Errno::EFAULT)
        })
    }

    /// Lets `f` put bytes at `addr`, as many as lie together there of `len`: it gets the frame and their number, and
    /// answers how many it has put.
    ///
    /// # Errors
    /// `EFAULT` where they cannot be written; what `f` answers.
    pub fn fill_with<T>(
        &self,
        addr: UserAddr,
        len: usize,
        mut f: impl FnMut(&Frame, usize) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let range = addr.range(len as u64).filter(|r| r.end <= USER_END && !r.is_empty()).ok_or(Errno::EFAULT)?;
        let mut answer = Err(Errno::EFAULT);
        self.frames_piece(range, 0, (Access::WRITE, false), &mut |frame, _, n| {
            answer = f(frame, n);
            Ok(())
        })?;
        answer
    }

    /// Copies `src` out to the guest.
    ///
    /// # Errors
    /// `EFAULT` where any byte cannot be written; a part may have been.
    pub fn write_bytes(&self, addr: UserAddr, src: &[u8]) -> Result<(), Errno> {
        self.for_frames(addr, src.len(), Access::WRITE, |frame, at, n| {
            frame.file.write(frame.offset, &src[at..at + n]).map_err(|_| Errno::EFAULT)
        })
    }

    /// Reads as a debugger does: protections do not matter.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped.
    pub fn read_forced(&self, addr: UserAddr, dst: &mut [u8]) -> Result<(), Errno> {
        self.for_frames_of(addr, dst.len(), (Access::READ, true), |frame, at, n| {
            frame.file.read(frame.offset, &mut dst[at..at + n]).map_err(|_| Errno::EFAULT)
        })
    }

    /// Writes as a debugger does: private pages are copied and changed, whatever their protection.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped, or a shared mapping is read-only.
    pub fn write_forced(&self, addr: UserAddr, src: &[u8]) -> Result<(), Errno> {
        self.for_frames_of(addr, src.len(), (Access::WRITE, true), |frame, at, n| {
            frame.file.write(frame.offset, &src[at..at + n]).map_err(|_| Errno::EFAULT)
        })
    }

    /// Copies `dst.len()` bytes in from the guest as far as they can be read; answers how many that were.
    ///
    /// # Errors
    /// `EFAULT` where not even the first could be.
    pub fn read_partial(&self, addr: UserAddr, dst: &mut [u8]) -> Result<usize, Errno> {
        let mut reached = 0;
        let copied = self.for_frames(addr, dst.len(), Access::READ, |frame, at, n| {
            frame.file.read(frame.offset, &mut dst[at..at + n]).map_err(|_| Errno::EFAULT)?;
            reached = at + n;
            Ok(())
        });
        copied.map(|()| reached).or(if reached > 0 { Ok(reached) } else { Err(Errno::EFAULT) })
    }

    /// Copies `src` out to the guest as far as it can be written; answers how many bytes that were.
    ///
    /// # Errors
    /// `EFAULT` where not even the first could be.
    pub fn write_partial(&self, addr: UserAddr, src: &[u8]) -> Result<usize, Errno> {
        let mut reached = 0;
        let copied = self.for_frames(addr, src.len(), Access::WRITE, |frame, at, n| {
            frame.file.write(frame.offset, &src[at..at + n]).map_err(|_| Errno::EFAULT)?;
            reached = at + n;
            Ok(())
        });
        copied.map(|()| reached).or(if reached > 0 { Ok(reached) } else { Err(Errno::EFAULT) })
    }

    /// Zeroes `len` bytes of guest memory.
    ///
    /// # Errors
    /// `EFAULT` where any byte cannot be written.
    pub fn zero_bytes(&self, addr: UserAddr, len: usize) -> Result<(), Errno> {
        self.for_frames(addr, len, Access::WRITE, |frame, _, n| {
            frame.file.zero(frame.offset, n).map_err(|_| Errno::EFAULT)
        })
    }

    /// Copies `len` bytes of `from` straight into guest memory.
    ///
    /// # Errors
    /// `EFAULT` where a byte cannot be written; `EIO` where the frame is gone.
    pub fn copy_from_frame(&self, addr: UserAddr, from: &Frame, len: usize) -> Result<(), Errno> {
        self.for_frames(addr, len, Access::WRITE, |to, at, n| {
            let source = from.offset.checked_add(at as u64).ok_or(Errno::EIO)?;
            to.file.copy_from(to.offset, &from.file, source, n).map_err(|_| Errno::EIO)
        })
    }

    /// Does an atomic operation on the guest word at `addr`; answers the value seen before.
    ///
    /// # Errors
    /// `EINVAL` where it is not aligned; `EFAULT` where it cannot be accessed.
    pub fn atomic32(&self, addr: UserAddr, op: Atomic32) -> Result<u32, Errno> {
        if !addr.0.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let access = if matches!(op, Atomic32::Load) { Access::READ } else { Access::WRITE };
        let mut seen = 0;
        self.for_frames(addr, 4, access, |frame, _, _| {
            seen = frame.file.atomic32(frame.offset, op).map_err(|_| Errno::EFAULT)?;
            Ok(())
        })?;
        Ok(seen)
    }

    /// What the futex word at `addr` is known by. `private` is FUTEX_PRIVATE_FLAG: nobody else can mean the word.
    ///
    /// # Errors
    /// `EINVAL` where it is not aligned; `EFAULT` where nothing readable is mapped there.
    pub fn futex_key(&self, addr: UserAddr, private: bool) -> Result<FutexKey, Errno> {
        if !addr.0.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if addr.0 >= USER_END {
            return Err(Errno::EFAULT);
        }
        let own = FutexKey::Private { mm: self.id, addr: addr.0 };
        if private {
            return Ok(own);
        }
        let vmas = self.vmas.read();
        let (range, vma) = vmas.map.get(page_down(addr.0)).ok_or(Errno::EFAULT)?;
        if !vma.allows(Access::READ) {
            return Err(Errno::EFAULT);
        }
        match &vma.file {
            Some(file) if vma.is_shared() => {
                let offset = file.offset.wrapping_add(addr.0 - range.start);
                Ok(FutexKey::Shared { object: file.mappable.key(), offset })
            }
            _ => Ok(own),
        }
    }

    /// Realises the pages of `range` as accesses would, and maps them, as far as that goes.
    ///
    /// # Errors
    /// The signal that the first failing access would earn.
    pub fn populate(&self, range: AddrRange, access: Access) -> Result<(), crate::mm::FaultSignal> {
        let mut at = range.start;
        while at < range.end {
            self.handle_fault(at, access)?;
            let next = self.pmas.lock().map.get(at).map_or(at, |(r, p)| {
                let done = !access.write || p.takes_stores();
                if done { r.end.min(range.end) } else { at }
            });
            at = next.max(at + PAGE_SIZE);
        }
        Ok(())
    }
}
