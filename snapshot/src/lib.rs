//! The container format of saved sandboxes. It knows bytes and sections, not kernels. See `README.md` here.
//!
//! A snapshot is two files. The *state* file is a header, a table of sections and the sections, each with its checksum.
//! The *pages* file is one page of header and then pages of guest memory, which a restore maps and never reads through.
//! Both carry the same random id, so that files of different snapshots are not mixed up.
//!
//! Readers treat every byte as hostile: all offsets are checked, nothing is allocated by a length that the input claims,
//! and there is no panic.

mod checksum;
mod pages;
mod reader;
mod section;
mod writer;

pub use checksum::crc32;
pub use pages::{PAGES_START, PagesHeader};
pub use reader::Reader;
pub use section::{Kind, decode, encode};
pub use writer::Writer;

/// The version that this code writes, and the only one that it reads: a snapshot lives as long as the build that can
/// read it. It grows with every change to the layout of any section.
pub const VERSION: u32 = 2;
/// How a state file begins.
pub const STATE_MAGIC: [u8; 8] = *b"NVSTATE\n";
/// How a pages file begins.
pub const PAGES_MAGIC: [u8; 8] = *b"NVPAGES\n";
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of the state file's header.
const HEADER_LEN: usize = 48;
/// Bytes of an entry of the table.
const ENTRY_LEN: usize = 24;
/// Most sections of a file.
const MAX_SECTIONS: usize = 64;
/// Longest state file: far more than any kernel's state, few enough bytes to be read whole.
pub const MAX_STATE_LEN: u64 = 1 << 30;

/// Names one snapshot.
pub type SnapshotId = [u8; 16];

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin as one.
    #[error("not a snapshot ({0} file)")]
    Magic(&'static str),
    /// It was written by another version.
    #[error("the snapshot has format version {found}; this nanovisor reads version {VERSION}: make it anew")]
    Version {
        /// The version that it says.
        found: u32,
    },
    /// It ends too early, or is longer than it says.
    #[error("the snapshot's {file} file has {actual} bytes and should have {expected}")]
    Length {
        /// Which file.
        file: &'static str,
        /// What its header says.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// A part of it is not what was written.
    #[error("the snapshot's {0} is damaged (checksum)")]
    Checksum(&'static str),
    /// Its table makes no sense.
    #[error("the snapshot's table of sections is corrupt: {0}")]
    Table(&'static str),
    /// A section that is needed is not there.
    #[error("the snapshot has no {0} section")]
    Missing(&'static str),
    /// A section's content makes no sense.
    #[error("the snapshot's {0} section is corrupt")]
    Corrupt(&'static str),
    /// The two files are of different snapshots.
    #[error("the pages file is another snapshot's")]
    OtherPages,
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
