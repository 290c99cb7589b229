//! Writing a state file.

use std::io::{self, Write};

use crate::{ENTRY_LEN, HEADER_LEN, Kind, STATE_MAGIC, SnapshotId, VERSION, crc32};

/// Collects sections and writes them as one file.
pub struct Writer {
    id: SnapshotId,
    sections: Vec<(Kind, Vec<u8>)>,
}

impl Writer {
    /// An empty state file of the snapshot `id`.
    #[must_use]
    pub fn new(id: SnapshotId) -> Self {
        Writer { id, sections: Vec::new() }
    }

    /// Adds a section. The file has them in the order of their kinds.
    pub fn section(&mut self, kind: Kind, bytes: Vec<u8>) {
        self.sections.push((kind, bytes));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        self.sections.sort_by_key(|(kind, _)| *kind);
        let count = self.sections.len();
        let mut offset = (HEADER_LEN + ENTRY_LEN * count) as u64;
        let mut table = Vec::with_capacity(ENTRY_LEN * count);
        for (kind, bytes) in &self.sections {
            table.extend_from_slice(&(*kind as u32).to_le_bytes());
            table.extend_from_slice(&crc32(bytes).to_le_bytes());
            table.extend_from_slice(&offset.to_le_bytes());
            table.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            offset += bytes.len() as u64;
        }
        let mut head = Vec::with_capacity(HEADER_LEN + table.len());
        head.extend_from_slice(&STATE_MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        head.extend_from_slice(&self.id);
        head.extend_from_slice(&crc32(&table).to_le_bytes());
        let checksum = crc32(&head);
        head.extend_from_slice(&checksum.to_le_bytes());
        head.extend_from_slice(&table);
        out.write_all(&head)?;
        self.sections.iter().try_for_each(|(_, bytes)| out.write_all(bytes))?;
        out.flush()
    }
}
