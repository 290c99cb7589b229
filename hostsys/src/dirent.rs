//! Listing a directory with the kernel's own cookies.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Result, check};

/// An entry as `getdents64(2)` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Inode number.
    pub ino: u64,
    /// Where to seek to continue behind it.
    pub next: i64,
    /// DT_*.
    pub kind: u8,
    /// Name.
    pub name: Vec<u8>,
}

/// Offset of the name in `struct linux_dirent64`.
const NAME: usize = 19;

/// The next entries of an open directory, at most what fits `space` bytes; empty at the end.
///
/// # Errors
/// What `getdents64` says.
pub fn read_dir(dir: BorrowedFd<'_>, space: usize) -> Result<Vec<RawEntry>> {
    let mut buf = vec![0u8; space];
    // SAFETY: the buffer is writable for its length.
    let rc = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    let len = check("getdents64", rc)?;
    buf.truncate(usize::try_from(len).unwrap_or(0));
    let mut entries = Vec::new();
    let mut rest = buf.as_slice();
    while let Some((entry, len)) = parse(rest) {
        entries.push(entry);
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(entries)
}

fn parse(bytes: &[u8]) -> Option<(RawEntry, usize)> {
    let ino = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    let next = i64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?)).max(NAME);
    let kind = *bytes.get(18)?;
    let name = bytes.get(NAME..len)?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    Some((RawEntry { ino, next, kind, name }, len))
}
