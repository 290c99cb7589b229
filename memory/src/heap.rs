//! How much heap the process uses: a global allocator that counts.
//!
//! Everything a guest can make grow in the kernel (descriptors, pipes, queued signals, directory entries, mappings) lies
//! on the heap, so its size is what kernel objects cost, without a charge at each of them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// A thread tells the sum once it has changed by this much.
const BATCH: isize = 64 << 10;

static USED: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// What this thread has not told yet. Without a destructor, so that it works at every moment of a thread's life.
    static UNTOLD: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting bytes. Installed by the program with `#[global_allocator]`.
pub struct CountingAllocator;

fn note(bytes: isize) {
    UNTOLD.with(|untold| {
        let sum = untold.get().wrapping_add(bytes);
        if sum.abs() < BATCH {
            untold.set(sum);
        } else {
            untold.set(0);
            USED.fetch_add(sum, Ordering::Relaxed);
        }
    });
}

/// Bytes on the heap, to within some 64 KiB a thread; 0 where [`CountingAllocator`] is not installed.
#[must_use]
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed).max(0).cast_unsigned() as u64
}

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
