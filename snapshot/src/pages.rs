//! The head of a pages file.

use crate::{Error, PAGE_SIZE, PAGES_MAGIC, SnapshotId, VERSION, crc32, word32, word64};

/// Where the pages begin: the header has a page of its own, so that a file offset of a page is a multiple of its size.
pub const PAGES_START: u64 = PAGE_SIZE;
const HEADER_LEN: usize = 40;

/// What a pages file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesHeader {
    /// The snapshot it belongs to.
    pub id: SnapshotId,
    /// Bytes of the whole file, this page included: a multiple of the page size.
    pub len: u64,
}

impl PagesHeader {
    /// The file's first page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(4096);
        page.extend_from_slice(&PAGES_MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.len.to_le_bytes());
        page.extend_from_slice(&self.id);
        let checksum = crc32(&page);
        page.extend_from_slice(&checksum.to_le_bytes());
        page.resize(4096, 0);
        page
    }

    /// Reads the header of a file of `actual` bytes from its first bytes (40 do), and checks that it belongs to `id`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(bytes: &[u8], actual: u64, id: &SnapshotId) -> Result<Self, Error> {
        if bytes.get(..PAGES_MAGIC.len()) != Some(&PAGES_MAGIC) {
            return Err(Error::Magic("pages"));
        }
        let short = || Error::Length { file: "pages", expected: PAGES_START, actual };
        let header = bytes.get(..HEADER_LEN).ok_or_else(short)?;
        let found = word32(header, 8).ok_or_else(short)?;
        if found != VERSION {
            return Err(Error::Version { found });
        }
        if word32(header, HEADER_LEN - 4) != Some(crc32(&header[..HEADER_LEN - 4])) {
            return Err(Error::Checksum("pages header"));
        }
        let len = word64(header, 12).ok_or_else(short)?;
        let own = header.get(20..).and_then(|b| b.first_chunk()).copied().ok_or_else(short)?;
        if own != *id {
            return Err(Error::OtherPages);
        }
        if len != actual || len < PAGES_START || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Length { file: "pages", expected: len, actual });
        }
        Ok(PagesHeader { id: own, len })
    }
}
