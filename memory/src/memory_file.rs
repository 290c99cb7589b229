//! The memory that a sandbox's guests own: frames with reference counts, in one sparse file.
//!
//! Offsets are plentiful (the file is sparse and far larger than the memory limit) and frames are not. A page of
//! offset space is *free*, *reserved* (an [`Extent`] promises it to one Vma, so that pages copied one by one keep
//! address order), or *used* by one or more holders. Only used pages cost memory. When the last holder lets go, the
//! page is punched out: a fresh page is always zero.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{AddrRange, Errno, PAGE_SIZE, page_up};
use parking_lot::Mutex;

use crate::frame_file::{FileKind, Frame, FrameFile};
use crate::range_map::RangeMap;

/// How a memory file is backed; the platform chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A memfd, which stub processes map.
    Memfd,
    /// Anonymous memory, huge where it can be, which a VM's memory slots point at.
    Anonymous,
}

/// A contiguous piece of a memory file's offset space, reserved for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Size classes of the first-fit hints: pages, as powers of two.
const CLASSES: usize = 30;

struct Space {
    free: RangeMap<()>,
    reserved: RangeMap<()>,
    /// Holders of used pages. 0 means that the last one left and the page is being punched out: not yet free.
    refs: RangeMap<u32>,
    /// For each size class: nothing of that size is free below this offset, so that a search starts there.
    hints: [u64; CLASSES],
}

fn class_of(len: u64) -> usize {
    (len / PAGE_SIZE).max(1).ilog2().min(CLASSES as u32 - 1) as usize
}

impl Space {
    fn release(&mut self, range: AddrRange) {
        if range.is_empty() {
            return;
        }
        self.free.insert(range, ());
        let start = self.free.get(range.start).map_or(range.start, |(r, ())| r.start);
        self.hints.iter_mut().for_each(|h| *h = (*h).min(start));
    }

    /// First fit for `len` bytes at an offset that is `phase` past a multiple of `align`.
    fn find(&mut self, len: u64, align: u64, phase: u64) -> Option<u64> {
        let class = class_of(len);
        let mut at = self.hints[class];
        let mut passed_fitting = false;
        while let Some((r, ())) = self.free.at_or_after(at) {
            let start = r.start.saturating_sub(phase).checked_next_multiple_of(align)? + phase;
            let start = if start < r.start { start.checked_add(align)? } else { start };
            if start.checked_add(len)? <= r.end {
                // Alignment may have passed over ranges that fit others of the class.
                if !passed_fitting {
                    self.hints[class] = r.start;
                }
                return Some(start);
            }
            passed_fitting |= r.len() / PAGE_SIZE >= 1 << class;
            at = r.end;
        }
        None
    }
}

/// The sandbox's own memory.
pub struct MemoryFile {
    file: Arc<FrameFile>,
    backing: Backing,
    space: Mutex<Space>,
    used: AtomicU64,
    /// Bytes ever taken into use: how much anybody can have grown between two looks at this.
    taken: AtomicU64,
    limit: AtomicU64,
    /// Bytes charged for what lies outside of the frames and the heap: page tables, stub processes.
    overhead: AtomicU64,
    /// Of the used bytes, those of memory objects.
    shared: AtomicU64,
    /// The heap that is not the guest's doing.
    heap_base: AtomicU64,
}

/// Offset space of a memory file: what the largest sandbox could ever map, with room for reservations.
const SPACE: u64 = 1 << 40;

impl MemoryFile {
    /// An empty memory file that hands out at most `limit` bytes of frames.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate` or `mmap` say.
    pub fn new(backing: Backing, limit: u64) -> io::Result<Arc<Self>> {
        let fd = match backing {
            Backing::Memfd => Some(memfd(SPACE)?),
            Backing::Anonymous => None,
        };
        let file = FrameFile::map(FileKind::Memory, fd, SPACE, true)?;
        let mut space =
            Space { free: RangeMap::new(), reserved: RangeMap::new(), refs: RangeMap::new(), hints: [0; CLASSES] };
        space.free.insert(AddrRange::new(0, SPACE), ());
        Ok(Arc::new(MemoryFile {
            file,
            backing,
            space: Mutex::new(space),
            used: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            overhead: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            heap_base: AtomicU64::new(u64::MAX),
        }))
    }

    /// The frame file behind it.
    #[must_use]
    pub fn file(&self) -> &Arc<FrameFile> {
        &self.file
    }

    /// The frame at `offset`.
    #[must_use]
    pub fn frame(&self, offset: u64) -> Frame {
        Frame { file: self.file.clone(), offset }
    }

    /// How it is backed.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Bytes of frames in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of frames ever taken into use, given back or not.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Most bytes of frames that may be in use.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes how many bytes of frames may be in use. More may be in use already: then nothing more is given out.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes in use by memory objects: files in memory and shared anonymous memory (`Shmem`).
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }

    /// Notes that memory objects hold `more` bytes and no longer `less` bytes.
    pub fn note_shared(&self, more: u64, less: u64) {
        self.shared.fetch_add(more, Ordering::Relaxed);
        self.shared.fetch_sub(less, Ordering::Relaxed);
    }

    /// From now on the heap that grows beyond its present size counts as the guest's.
    pub fn count_heap(&self) {
        self.heap_base.store(crate::heap::used(), Ordering::Relaxed);
    }

    /// Bytes of kernel objects that are the guest's doing: heap and what [`MemoryFile::charge_overhead`] charged.
    #[must_use]
    pub fn kernel_bytes(&self) -> u64 {
        let heap = crate::heap::used().saturating_sub(self.heap_base.load(Ordering::Relaxed));
        self.overhead.load(Ordering::Relaxed).saturating_add(heap)
    }

    /// Bytes in use, of frames and for kernel objects.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.used().saturating_add(self.kernel_bytes())
    }

    /// What is kept for the kernel's own copies to and from guests, which cannot be put off until memory is freed.
    #[must_use]
    pub fn reserve_size(&self) -> u64 {
        (self.limit() / 32).min(8 << 20)
    }

    /// Whether only the reserve is left: who needs memory now must wait until some is freed.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.charged() > self.limit().saturating_sub(self.reserve_size())
    }

    /// Whether `bytes` more would leave too little to run programs in: then what outlives processes (files in memory)
    /// must not grow. A killed process gives its own memory back, but not its files'.
    #[must_use]
    pub fn is_short(&self, bytes: u64) -> bool {
        let kept = (self.limit() / 8).min(64 << 20);
        self.charged().saturating_add(bytes) > self.limit().saturating_sub(kept)
    }

    /// Charges `bytes` for something outside of frames and heap.
    ///
    /// # Errors
    /// `ENOMEM` where only the reserve is left.
    pub fn charge_overhead(&self, bytes: u64) -> Result<(), Errno> {
        if self.is_tight() {
            return Err(Errno::ENOMEM);
        }
        self.overhead.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a charge back.
    pub fn uncharge_overhead(&self, bytes: u64) {
        self.overhead.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reserves `len` bytes (rounded up to pages) of offset space at a multiple of `align` (a power of two, at least
    /// a page). Costs no memory.
    ///
    /// # Errors
    /// `ENOMEM` where the offset space is exhausted.
    pub fn reserve(&self, len: u64, align: u64) -> Result<Extent, Errno> {
        self.reserve_congruent(len, align, 0)
    }

    /// As [`MemoryFile::reserve`], at an offset that leaves the remainder `like % align`: so that huge pages of the
    /// guest's addresses and of the file coincide.
    ///
    /// # Errors
    /// `ENOMEM` where the offset space is exhausted.
    pub fn reserve_congruent(&self, len: u64, align: u64, like: u64) -> Result<Extent, Errno> {
        let len = page_up(len).filter(|&l| l > 0).ok_or(Errno::ENOMEM)?;
        let align = align.max(PAGE_SIZE);
        let mut space = self.space.lock();
        let offset = space.find(len, align, abi::page_down(like % align)).ok_or(Errno::ENOMEM)?;
        let range = AddrRange::new(offset, offset + len);
        space.free.remove(range);
        space.reserved.insert(range, ());
        Ok(Extent { offset, len })
    }

    /// Lengthens a reservation that ends at `end` by `len` bytes, where those lie free. Answers whether they did.
    #[must_use]
    pub fn extend(&self, end: u64, len: u64) -> bool {
        let Some(range) = end.checked_add(len).map(|e| AddrRange::new(end, e)) else { return false };
        let mut space = self.space.lock();
        if !space.free.get(end).is_some_and(|(r, ())| r.covers(&range)) {
            return false;
        }
        space.free.remove(range);
        space.reserved.insert(range, ());
        true
    }

    /// Gives a reservation (or a part of one) back. Pages of it that are in use stay so until their last holder leaves.
    pub fn unreserve(&self, extent: Extent) {
        let range = AddrRange::new(extent.offset, extent.offset.saturating_add(extent.len));
        let mut space = self.space.lock();
        space.reserved.remove(range);
        for gap in space.refs.gaps(range) {
            space.release(gap);
        }
    }

    /// Takes the unused pages of `range` (inside a reservation) into use, with one holder. They are zero.
    ///
    /// # Errors
    /// `ENOMEM` past the limit; `EEXIST` where one of them is in use already. Nothing changes then.
    pub fn commit(&self, range: AddrRange) -> Result<(), Errno> {
        let mut space = self.space.lock();
        if space.refs.overlapping(range).next().is_some() {
            return Err(Errno::EEXIST);
        }
        self.charge(range.len())?;
        space.refs.insert(range, 1);
        Ok(())
    }

    /// Reserves, commits, and drops the reservation: `len` bytes of frames that return to the free space by themselves.
    ///
    /// # Errors
    /// `ENOMEM` past the limit or out of offset space.
    pub fn allocate(&self, len: u64, align: u64) -> Result<u64, Errno> {
        let extent = self.reserve(len, align)?;
        let range = AddrRange::new(extent.offset, extent.offset + extent.len);
        let committed = self.commit(range);
        self.unreserve(extent);
        committed.map(|()| extent.offset)
    }

    fn charge(&self, bytes: u64) -> Result<(), Errno> {
        let limit = self.limit().saturating_sub(self.kernel_bytes());
        let add = |used: u64| used.checked_add(bytes).filter(|&u| u <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| Errno::ENOMEM)?;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Adds a holder to every used page of `range`.
    pub fn inc_ref(&self, range: AddrRange) {
        self.space.lock().refs.update(range, |_, n| *n = n.saturating_add(u32::from(*n > 0)));
    }

    /// Adds a holder to every used page of all `ranges`.
    pub fn inc_refs(&self, ranges: &[AddrRange]) {
        let mut space = self.space.lock();
        for range in ranges {
            space.refs.update(*range, |_, n| *n = n.saturating_add(u32::from(*n > 0)));
        }
    }

    /// Removes a holder from every used page of `range`; pages without one are punched out.
    pub fn dec_ref(&self, range: AddrRange) {
        self.dec_refs(&[range]);
    }

    /// Removes a holder from every used page of all `ranges`; pages without one are punched out, neighbours in one go.
    pub fn dec_refs(&self, ranges: &[AddrRange]) {
        let mut dead: Vec<AddrRange> = Vec::new();
        {
            let mut space = self.space.lock();
            for range in ranges {
                space.refs.update(*range, |r, n| {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        dead.push(r);
                    }
                });
            }
        }
        dead.sort_unstable_by_key(|r| r.start);
        dead.dedup_by(|next, last| {
            let joined = last.end == next.start;
            last.end = if joined { next.end } else { last.end };
            joined
        });
        // Punched without the lock: the dying pages count as used until they are zero again.
        dead.iter().for_each(|r| self.punch(*r));
        let mut space = self.space.lock();
        for r in &dead {
            space.refs.remove(*r);
            for gap in space.reserved.gaps(*r) {
                space.release(gap);
            }
            self.used.fetch_sub(r.len(), Ordering::Relaxed);
        }
    }

    /// Populates the host's pages behind `range`, which is in use, so that the first touch is cheap. Best effort.
    pub fn populate(&self, range: AddrRange) {
        const MADV_POPULATE_WRITE: i32 = 23;
        let addr = self.file.host_addr(range.start) as *mut libc::c_void;
        // SAFETY: the range lies in our mapping; populating changes no content.
        unsafe { libc::madvise(addr, range.len() as usize, MADV_POPULATE_WRITE) };
    }

    /// The parts of `range` behind which the host has pages; the rest reads as zeros without being touched. Where the
    /// host does not tell, all of it.
    #[must_use]
    pub fn populated(&self, range: AddrRange) -> Vec<AddrRange> {
        use nix::unistd::{Whence, lseek};
        let Some(fd) = self.file.fd() else { return vec![range] };
        let seek = |at: u64, whence| lseek(fd, i64::try_from(at).ok()?, whence).ok()?.try_into().ok();
        let (mut found, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let Some(start): Option<u64> = seek(at, Whence::SeekData) else { break };
            let end = seek(start, Whence::SeekHole).unwrap_or(range.end).min(range.end);
            if start >= end {
                break;
            }
            found.push(AddrRange::new(start, end));
            at = end;
        }
        found
    }

    /// Gives the host's pages behind `range` back; its holders stay and read zeros from now on.
    pub fn discard(&self, range: AddrRange) {
        self.punch(range);
    }

    /// Whether every page of `range` has exactly one holder.
    #[must_use]
    pub fn is_unique(&self, range: AddrRange) -> bool {
        let space = self.space.lock();
        space.refs.overlapping(range).all(|(_, &n)| n == 1) && space.refs.gaps(range).is_empty()
    }

    /// Releases the host memory of `range`; it reads as zeros afterwards.
    fn punch(&self, range: AddrRange) {
        let addr = self.file.host_addr(range.start) as *mut libc::c_void;
        // MADV_REMOVE punches shared file mappings; anonymous memory takes MADV_DONTNEED.
        let advice = match self.backing {
            Backing::Memfd => libc::MADV_REMOVE,
            Backing::Anonymous => libc::MADV_DONTNEED,
        };
        // SAFETY: the range lies in our mapping and no holder is left.
        if unsafe { libc::madvise(addr, range.len() as usize, advice) } != 0 {
            log::warn!("cannot release guest memory {range:?}: {}", io::Error::last_os_error());
        }
    }
}

fn memfd(len: u64) -> io::Result<OwnedFd> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let fd = memfd_create(c"nanovisor-memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&fd, i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_and_zeroed() {
        for backing in [Backing::Memfd, Backing::Anonymous] {
            let mem = MemoryFile::new(backing, 1 << 20).unwrap();
            let a = mem.allocate(8192, PAGE_SIZE).unwrap();
            let range = AddrRange::new(a, a + 8192);
            mem.file().write(a, b"hello").unwrap();
            mem.inc_ref(range);
            assert!(!mem.is_unique(range));
            mem.dec_ref(range);
            assert!(mem.is_unique(range));
            mem.dec_ref(range);
            assert_eq!(mem.used(), 0);
            let b = mem.allocate(8192, PAGE_SIZE).unwrap();
            assert_eq!(a, b);
            let mut buf = [1u8; 5];
            mem.file().read(b, &mut buf).unwrap();
            assert_eq!(buf, [0; 5]);
            assert_eq!(mem.allocate(1 << 20, PAGE_SIZE), Err(Errno::ENOMEM));
        }
    }
}
