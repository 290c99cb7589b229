//! Host memory of the platform itself: the private area and the page tables.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// An anonymous host mapping that guests see only as the platform decides.
pub struct HostArea {
    base: *mut u8,
    len: u64,
}

// SAFETY: plain memory that lives as long as the value; shared words are accessed as atomics.
unsafe impl Send for HostArea {}
// SAFETY: as above.
unsafe impl Sync for HostArea {}

impl HostArea {
    /// Reserves `len` bytes of zeros; nothing is populated.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(len: u64) -> io::Result<Self> {
        let size = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(HostArea { base: base.cast(), len })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The host address of `offset`.
    pub fn host_addr(&self, offset: u64) -> u64 {
        self.base as u64 + offset
    }

    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the platform's own memory");
        // SAFETY: inside the mapping, by the check above.
        unsafe { self.base.add(offset as usize) }
    }

    /// The word at `offset`.
    pub fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: aligned, mapped as long as `self`, and only ever accessed as an atomic.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// Loads the word at `offset`.
    pub fn load(&self, offset: u64) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// Stores the word at `offset`.
    pub fn store(&self, offset: u64, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// Copies `bytes` to `offset`. No CPU may use the place meanwhile.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let dst = self.at(offset, bytes.len() as u64);
        // SAFETY: in bounds; the source is a plain slice of ours.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), dst, bytes.len()) }
    }

    /// Copies from `offset` into `bytes`. No CPU may write the place meanwhile.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let src = self.at(offset, bytes.len() as u64);
        // SAFETY: in bounds; the destination is a plain slice of ours.
        unsafe { ptr::copy_nonoverlapping(src, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Fills the page at `offset` with zeros. No CPU may use it meanwhile.
    pub fn zero_page(&self, offset: u64) {
        let dst = self.at(offset, crate::layout::PAGE);
        // SAFETY: in bounds.
        unsafe { ptr::write_bytes(dst, 0, crate::layout::PAGE as usize) }
    }
}

impl Drop for HostArea {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the VM that used it is gone or only has translations to nothing.
        unsafe { libc::munmap(self.base.cast(), self.len as usize) };
    }
}
