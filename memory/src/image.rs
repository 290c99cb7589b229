//! Read-only mappings of image files as byte slices.
//!
//! A slice must not vanish under its reader, yet a foreign file may shrink. The mappings made here are known to the
//! SIGBUS handler: a page that the host cannot produce is replaced by zeros, and the image is *poisoned*, so that
//! reads may answer EIO from then on.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MAX_IMAGES: usize = 256;

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

static SLOTS: [Slot; MAX_IMAGES] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), poisoned: AtomicBool::new(false) } };
        MAX_IMAGES];

/// An image file, mapped read-only and shared for as long as this lives.
#[derive(Debug)]
pub struct ImageMapping {
    base: *const u8,
    len: usize,
    slot: usize,
}

// SAFETY: the mapping is read-only and lives as long as the value.
unsafe impl Send for ImageMapping {}
// SAFETY: as above; the slot's fields are atomics.
unsafe impl Sync for ImageMapping {}

impl ImageMapping {
    /// Maps the whole of `file`.
    ///
    /// # Errors
    /// What `fstat` or `mmap` say; `InvalidInput` for an empty file; `OutOfMemory` past 256 images in one process.
    pub fn new(file: &File) -> io::Result<Self> {
        crate::install_fault_handler();
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the image file is empty"));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = base as usize;
        let claim = |s: &Slot| s.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let Some(slot) = SLOTS.iter().position(claim) else {
            // SAFETY: the mapping was made above and nobody else knows it.
            unsafe { libc::munmap(base, len) };
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "more than 256 images in one sandbox"));
        };
        SLOTS[slot].poisoned.store(false, Ordering::Release);
        SLOTS[slot].end.store(start + len, Ordering::Release);
        Ok(ImageMapping { base: base.cast(), len, slot })
    }

    /// Whether some page could not be read and zeros stand in its place.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        SLOTS[self.slot].poisoned.load(Ordering::Acquire)
    }
}

impl std::ops::Deref for ImageMapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped readable for `len` bytes while `self` lives; failing pages turn into zeros. That nobody
        // writes the file meanwhile is the image cache's promise; a foreign writer can only change what is read.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }
}

impl AsRef<[u8]> for ImageMapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for ImageMapping {
    fn drop(&mut self) {
        SLOTS[self.slot].end.store(0, Ordering::Release);
        SLOTS[self.slot].start.store(0, Ordering::Release);
        // SAFETY: our mapping; no slice of it outlives `self`.
        unsafe { libc::munmap(self.base.cast_mut().cast(), self.len) };
    }
}

/// Called from the signal handler: replaces a failing page of an image by zeros. Answers whether it was one.
pub(crate) fn absorb_bus_error(addr: usize) -> bool {
    for slot in &SLOTS {
        let (start, end) = (slot.start.load(Ordering::Acquire), slot.end.load(Ordering::Acquire));
        if start == 0 || addr < start || addr >= end {
            continue;
        }
        slot.poisoned.store(true, Ordering::Release);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: replaces one page of our own read-only mapping; mmap is async-signal-safe on Linux.
        let page = unsafe { libc::mmap((addr & !4095) as *mut _, 4096, libc::PROT_READ, flags, -1, 0) };
        return page != libc::MAP_FAILED;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    #[test]
    fn a_shrunken_image_reads_as_zeros_and_is_poisoned() {
        // SAFETY: a fresh memfd of ours.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"image".as_ptr(), 0)) };
        file.set_len(8192).unwrap();
        let map = ImageMapping::new(&file).unwrap();
        assert_eq!(map[5000], 0);
        assert!(!map.is_poisoned());
        file.set_len(4096).unwrap();
        assert_eq!(map[5000], 0);
        assert!(map.is_poisoned());
    }
}
