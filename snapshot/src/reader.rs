//! Reading a state file that may be anything.

use crate::{ENTRY_LEN, Error, HEADER_LEN, Kind, MAX_SECTIONS, STATE_MAGIC, SnapshotId, VERSION};
use crate::{crc32, word32, word64};

/// A state file whose table has been checked. Sections are checked when they are asked for.
#[derive(Debug)]
pub struct Reader<'a> {
    id: SnapshotId,
    sections: Vec<Section<'a>>,
}

#[derive(Debug)]
struct Section<'a> {
    kind: Kind,
    checksum: u32,
    bytes: &'a [u8],
}

/// Where the fields of the header lie.
mod at {
    pub const VERSION: usize = 8;
    pub const COUNT: usize = 12;
    pub const LENGTH: usize = 16;
    pub const ID: usize = 24;
    pub const TABLE_CHECKSUM: usize = 40;
    pub const CHECKSUM: usize = 44;
}

impl<'a> Reader<'a> {
    /// Checks header and table.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.get(..STATE_MAGIC.len()) != Some(&STATE_MAGIC) {
            return Err(Error::Magic("state"));
        }
        let short = || Error::Length { file: "state", expected: HEADER_LEN as u64, actual: bytes.len() as u64 };
        let header = bytes.get(..HEADER_LEN).ok_or_else(short)?;
        let word = |at| word32(header, at).ok_or_else(short);
        let found = word(at::VERSION)?;
        if found != VERSION {
            return Err(Error::Version { found });
        }
        if crc32(header.get(..at::CHECKSUM).ok_or_else(short)?) != word(at::CHECKSUM)? {
            return Err(Error::Checksum("header"));
        }
        let expected = word64(header, at::LENGTH).ok_or_else(short)?;
        if expected != bytes.len() as u64 {
            return Err(Error::Length { file: "state", expected, actual: bytes.len() as u64 });
        }
        let count = word(at::COUNT)? as usize;
        if count == 0 || count > MAX_SECTIONS {
            return Err(Error::Table("too many sections, or none"));
        }
        let table = bytes.get(HEADER_LEN..HEADER_LEN + count * ENTRY_LEN).ok_or(Error::Table("cut off"))?;
        if crc32(table) != word(at::TABLE_CHECKSUM)? {
            return Err(Error::Checksum("table of sections"));
        }
        let id = header.get(at::ID..).and_then(|b| b.first_chunk()).copied().ok_or_else(short)?;
        Ok(Reader { id, sections: sections(bytes, table)? })
    }

    /// The snapshot's id.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The bytes of a section, checked.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Checksum`].
    pub fn section(&self, kind: Kind) -> Result<&'a [u8], Error> {
        let section = self.sections.iter().find(|s| s.kind == kind).ok_or(Error::Missing(kind.name()))?;
        if crc32(section.bytes) == section.checksum { Ok(section.bytes) } else { Err(Error::Checksum(kind.name())) }
    }
}

/// The sections of `table`: one behind the other, in the order of their kinds, the features first, nothing between.
fn sections<'a>(bytes: &'a [u8], table: &[u8]) -> Result<Vec<Section<'a>>, Error> {
    let mut all: Vec<Section<'a>> = Vec::new();
    let mut end = HEADER_LEN + table.len();
    for entry in table.chunks_exact(ENTRY_LEN) {
        let cut = || Error::Table("cut off");
        let kind = word32(entry, 0).and_then(Kind::from_raw).ok_or(Error::Table("an unknown kind"))?;
        let checksum = word32(entry, 4).ok_or_else(cut)?;
        let offset = word64(entry, 8).and_then(|o| usize::try_from(o).ok()).ok_or_else(cut)?;
        let len = word64(entry, 16).and_then(|l| usize::try_from(l).ok()).ok_or_else(cut)?;
        if offset != end {
            return Err(Error::Table("sections apart"));
        }
        end = offset.checked_add(len).ok_or_else(cut)?;
        if all.last().is_some_and(|before| before.kind >= kind) {
            return Err(Error::Table("sections out of order"));
        }
        all.push(Section { kind, checksum, bytes: bytes.get(offset..end).ok_or_else(cut)? });
    }
    match all.first() {
        Some(first) if first.kind == Kind::Features && end == bytes.len() => Ok(all),
        Some(first) if first.kind == Kind::Features => Err(Error::Table("bytes left over")),
        _ => Err(Error::Missing(Kind::Features.name())),
    }
}
