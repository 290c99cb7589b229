//! Inode numbers and attributes of files that have no place in the tree.

use std::sync::atomic::{AtomicU64, Ordering};

use abi::Timespec;

use crate::vfs::{Attr, FileType, InodeKey};

/// Device number of pipes, sockets and other anonymous files (`pipefs`, `sockfs`, `anon_inodefs` in one).
pub const ANON_DEV: u64 = 0xc;

/// A fresh inode number for an anonymous file.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Only ever shown to guests as an identity; carries no state between kernels, but that a restored one's are not used
/// again.
static NEXT: AtomicU64 = AtomicU64::new(1000);

/// Gives no number below `next` from now on.
pub fn skip_inos(next: u64) {
    NEXT.fetch_max(next, Ordering::Relaxed);
}

/// Attributes of an anonymous file, made at `now`.
#[must_use]
pub fn attr(kind: FileType, perm: u32, ino: u64, now: Timespec) -> Attr {
    Attr {
        key: InodeKey { dev: ANON_DEV, ino },
        kind,
        perm,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        blocks: 0,
        blksize: 4096,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
    }
}
