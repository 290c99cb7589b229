//! ROFS: root file systems as read-only images.
//!
//! The on-disk format is standard, uncompressed EROFS (`fs/erofs/erofs_fs.h` of Linux), so `mkfs.erofs`, `fsck.erofs`,
//! the kernel's own mount and containerd's layers interoperate. The crate has two halves that share only [`format`]:
//!
//! * the reader ([`Image`], [`Reader`]): plain functions over `&[u8]`. No I/O, no allocation, nothing parsed up front.
//!   The bytes are untrusted: each offset is checked, each loop is bounded, a bad image is an [`Error`].
//! * the builder ([`build`]): a directory or a tar stream in, an image out; the same bytes for the same input.
//!
//! `README.md` beside this crate teaches the layout.
#![deny(unsafe_code)]

pub mod build;
mod crc32c;
mod dir;
mod error;
mod extents;
pub mod format;
mod inode;
mod path;
mod reader;
mod superblock;
mod verify;
mod xattr;

pub use dir::{DirEntry, ReadDir};
pub use error::{Error, Result};
pub use extents::{Extent, ExtentKind, Extents};
pub use format::BLOCK_SIZE;
pub use inode::{FileType, Inode};
pub use path::Follow;
pub use reader::{Image, Reader};
pub use superblock::SuperBlock;
pub use verify::{Problem, verify};
pub use xattr::{Xattr, Xattrs};
