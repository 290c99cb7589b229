//! A file whose pages guests may map, and the host's flat mapping of it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::copy::{self, Atomic32, Fault};

/// Names a [`FrameFile`] within the process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What a frame file is, which decides who may write it and whether it can shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The sandbox's own memory.
    Memory,
    /// A ROFS image: read-only, immutable.
    Image,
    /// The pages of a snapshot: read-only, immutable; private pages and memory objects copy a frame when it is stored to.
    Snapshot,
    /// A file of the host's, mutable, which may shrink under us.
    Donated,
}

/// A file (or anonymous memory) mapped flat into the sandbox process: offset `o` lies at host address `base + o`.
pub struct FrameFile {
    id: FileId,
    kind: FileKind,
    fd: Option<OwnedFd>,
    base: *mut u8,
    len: u64,
    writable: bool,
}

// SAFETY: the mapping lives as long as the value; all access is by raw, fault-safe copies.
unsafe impl Send for FrameFile {}
// SAFETY: as above.
unsafe impl Sync for FrameFile {}

impl FrameFile {
    /// Maps `len` bytes of `fd`, or anonymous memory without one. Nothing is populated or reserved.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn map(kind: FileKind, fd: Option<OwnedFd>, len: u64, writable: bool) -> io::Result<Arc<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        crate::install_fault_handler();
        let size = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let (flags, raw) = match &fd {
            Some(fd) => (libc::MAP_SHARED | libc::MAP_NORESERVE, fd.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        };
        let base = map_aligned(size, prot, flags, raw)?;
        let id = FileId(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Arc::new(FrameFile { id, kind, fd, base, len, writable }))
    }

    /// The file's name within the process.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// What the file is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The host descriptor; `None` for anonymous memory.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Mapped bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Whether the host mapping may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Host address of `offset`, for platforms (memory slots) and `madvise`.
    #[must_use]
    pub fn host_addr(&self, offset: u64) -> usize {
        self.base as usize + offset as usize
    }

    /// Asks the host for huge pages in `len` bytes at `offset`: shared ones of the page cache, where the file is on a
    /// file system that has them. A hint.
    pub fn advise_huge(&self, offset: u64, len: u64) {
        let Ok(start) = self.at(offset, len as usize) else { return };
        // SAFETY: inside the mapping; the advice changes no content.
        unsafe { libc::madvise(start.cast(), len as usize, libc::MADV_HUGEPAGE) };
    }

    fn at(&self, offset: u64, len: usize) -> Result<*mut u8, Fault> {
        let end = offset.checked_add(len as u64).ok_or(Fault)?;
        if end > self.len {
            return Err(Fault);
        }
        // SAFETY: inside the mapping, by the check above.
        Ok(unsafe { self.base.add(offset as usize) })
    }

    /// Copies `dst.len()` bytes at `offset` out of the file.
    ///
    /// # Errors
    /// [`Fault`] where a page is out of range or gone; `dst` may then be partly filled.
    pub fn read(&self, offset: u64, dst: &mut [u8]) -> Result<(), Fault> {
        let src = self.at(offset, dst.len())?;
        // SAFETY: `src` spans `dst.len()` mapped bytes; `dst` is not guest memory.
        unsafe { copy::copy(dst.as_mut_ptr(), src, dst.len()) }
    }

    /// Copies `src` into the file at `offset`.
    ///
    /// # Errors
    /// [`Fault`] where a page is out of range, gone, or the mapping read-only.
    pub fn write(&self, offset: u64, src: &[u8]) -> Result<(), Fault> {
        let dst = self.at(offset, src.len())?;
        // SAFETY: as in `read`; a store to a read-only mapping ends in the fixup.
        unsafe { copy::copy(dst, src.as_ptr(), src.len()) }
    }

    /// Zeroes `len` bytes at `offset`.
    ///
    /// # Errors
    /// As [`FrameFile::write`].
    pub fn zero(&self, offset: u64, len: usize) -> Result<(), Fault> {
        let dst = self.at(offset, len)?;
        // SAFETY: as in `write`.
        unsafe { copy::zero(dst, len) }
    }

    /// Copies `len` bytes from `src` at `src_offset` to `offset` here, without a detour. The ranges must not overlap.
    ///
    /// # Errors
    /// As [`FrameFile::write`], for either side.
    pub fn copy_from(&self, offset: u64, src: &FrameFile, src_offset: u64, len: usize) -> Result<(), Fault> {
        let from = src.at(src_offset, len)?;
        let to = self.at(offset, len)?;
        // SAFETY: both lie in live mappings.
        unsafe { copy::copy(to, from, len) }
    }

    /// Reads up to `len` bytes of the host file `fd` at `at` straight to `offset` here; answers how many there were, and
    /// `None` where `cached` asks for what is in memory alone and nothing is.
    ///
    /// # Errors
    /// What the host says: `EFAULT` where this memory is out of range or gone; `EOPNOTSUPP` where it cannot tell what
    /// is in memory.
    pub fn read_file(
        &self,
        offset: u64,
        fd: BorrowedFd<'_>,
        at: u64,
        len: usize,
        cached: bool,
    ) -> io::Result<Option<usize>> {
        let to = self.at(offset, len).map_err(|Fault| io::Error::from_raw_os_error(libc::EFAULT))?;
        // SAFETY: `to` and `len` lie in a live mapping; the kernel answers EFAULT for pages that are gone.
        unsafe { copy::read_file(fd, at, to, len, cached) }
    }

    /// Does an atomic operation on the aligned word at `offset`; answers the value seen before.
    ///
    /// # Errors
    /// [`Fault`] where the word is out of range, misaligned, gone, or (for a store) read-only.
    pub fn atomic32(&self, offset: u64, op: Atomic32) -> Result<u32, Fault> {
        if !offset.is_multiple_of(4) {
            return Err(Fault);
        }
        let ptr = self.at(offset, 4)?;
        // SAFETY: aligned (the base is page-aligned) and mapped.
        unsafe { copy::atomic32(ptr.cast(), op) }
    }
}

/// `mmap` at an address that is a multiple of 2 MiB where the mapping is as long as that, so that huge pages fit.
fn map_aligned(size: usize, prot: libc::c_int, flags: libc::c_int, fd: libc::c_int) -> io::Result<*mut u8> {
    const HUGE: usize = 2 << 20;
    let map = |at: *mut libc::c_void, len, prot, flags, fd| {
        // SAFETY: a fresh mapping at an address of the kernel's choice, or over one of our own that holds nothing.
        let base = unsafe { libc::mmap(at, len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base) }
    };
    if size < HUGE {
        return map(std::ptr::null_mut(), size, prot, flags, fd).map(<*mut libc::c_void>::cast);
    }
    let room = size.checked_add(HUGE).ok_or(io::ErrorKind::FileTooLarge)?;
    let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let around = map(std::ptr::null_mut(), room, libc::PROT_NONE, nothing, -1)?;
    let before = (around as usize).next_multiple_of(HUGE) - around as usize;
    let end = before + size.next_multiple_of(4096);
    let base = around.wrapping_byte_add(before);
    let unmap = |from: *mut libc::c_void, len: usize| {
        if len > 0 {
            // SAFETY: a part of the reservation just made.
            unsafe { libc::munmap(from, len) };
        }
    };
    match map(base, size, prot, flags | libc::MAP_FIXED, fd) {
        Ok(_) => {
            unmap(around, before);
            unmap(around.wrapping_byte_add(end), room.next_multiple_of(4096) - end);
            Ok(base.cast())
        }
        Err(e) => {
            unmap(around, room);
            Err(e)
        }
    }
}

impl Drop for FrameFile {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unused from here on.
        unsafe { libc::munmap(self.base.cast(), self.len as usize) };
    }
}

impl fmt::Debug for FrameFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameFile").field("id", &self.id).field("kind", &self.kind).field("len", &self.len).finish()
    }
}

/// A place in a frame file; page-aligned where a mapping starts.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The file.
    pub file: Arc<FrameFile>,
    /// Byte offset in it.
    pub offset: u64,
}

impl Frame {
    /// The frame `by` bytes further on.
    #[must_use]
    pub fn advance(&self, by: u64) -> Frame {
        Frame { file: self.file.clone(), offset: self.offset + by }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.file.id == other.file.id && self.offset == other.offset
    }
}

impl Eq for Frame {}
