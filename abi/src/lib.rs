//! The Linux ABI as nanovisor speaks it: error numbers, user addresses, structures and constants of x86-64.
//!
//! No I/O and no policy. Constants that `libc` already has are used from there; here stand the types that make
//! guest values hard to misuse, and the structures that `libc` lacks or lays out differently from the kernel.
#![deny(unsafe_code)]

pub mod addr;
pub mod errno;
pub mod time;

pub use addr::{AddrRange, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, UserAddr, page_down, page_up};
pub use errno::Errno;
pub use time::Timespec;
