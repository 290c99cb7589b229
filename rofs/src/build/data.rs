//! File data: read once, zeros left out, written at the next free blocks.
//!
//! A file without large holes is one run of consecutive blocks, which maps into a guest with one call. Zeros become a
//! hole only where [`MIN_HOLE`] of them follow each other (or the file has nothing else), because each hole splits the
//! mapping. Smaller runs of zeros keep their blocks, but are not written: the image file itself is sparse there.

use std::io;
use std::path::Path;

use super::Builder;
use super::error::{BuildError, Result};
use super::output::Output;
use crate::format::{BLOCK_BITS, BLOCK_SIZE};
use crate::inode::blocks;

/// Bytes read and judged at a time, and the smallest chunk.
pub(super) const UNIT: usize = 1 << UNIT_BITS;
const UNIT_BITS: u32 = 16;
/// Zeros in a row, in bytes, that are worth a hole.
const MIN_HOLE: u64 = 256 * 1024;
/// Upper bound of a chunk table's length; larger files get larger chunks.
const MAX_CHUNKS: u64 = 1 << 16;
/// Bytes between two progress reports inside a file.
const REPORT_EVERY: u64 = 4 << 20;

/// Where file data comes from. Offsets ascend.
pub(super) trait Source {
    /// Fills `buf` with the data at `offset`.
    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The offset of the next byte, at or behind `offset`, that may differ from zero.
    fn next_data(&mut self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
}

/// Chunks `first..first + count` of a file are at `block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) block: u32,
}

/// Where a file's data is.
#[derive(Debug)]
pub(super) struct FileData {
    pub(super) size: u64,
    /// log2 of the chunk size in bytes.
    pub(super) bits: u32,
    /// Chunks that have blocks, in order; what is missing is a hole.
    pub(super) runs: Vec<Run>,
}

impl FileData {
    fn new(size: u64) -> Self {
        let mut bits = UNIT_BITS;
        while size.div_ceil(1 << bits) > MAX_CHUNKS && bits < u32::from(BLOCK_BITS) + 31 {
            bits += 1;
        }
        Self { size, bits, runs: Vec::new() }
    }

    /// Number of chunks.
    pub(super) fn chunks(&self) -> u64 {
        self.size.div_ceil(1 << self.bits)
    }

    /// The first block of a file without holes; `None` for one that needs a chunk table.
    pub(super) fn flat(&self) -> Option<u32> {
        match self.runs.as_slice() {
            [] if self.size == 0 => Some(0),
            [run] if run.first == 0 && run.count == self.chunks() => Some(run.block),
            _ => None,
        }
    }

    /// First chunk behind those that have blocks.
    fn placed(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.first + run.count)
    }

    /// Gives blocks to chunks `from..to`, which continue or start a run.
    fn place(&mut self, from: u64, to: u64, out: &mut Output) -> Result<()> {
        let bytes = self.size.min(to << self.bits) - (from << self.bits);
        let block = out.allocate(blocks(bytes))?;
        let end = self.placed();
        match self.runs.last_mut() {
            Some(run) if end == from => run.count += to - from,
            _ => self.runs.push(Run { first: from, count: to - from, block }),
        }
        Ok(())
    }

    /// Chunks between the last one placed and `to` are zeros: small gaps get blocks, large ones stay holes.
    fn settle_gap(&mut self, to: u64, out: &mut Output) -> Result<()> {
        let from = self.placed();
        let all_zero = from == 0 && to == self.chunks();
        if to > from && !all_zero && (to - from) << self.bits < MIN_HOLE {
            self.place(from, to, out)?;
        }
        Ok(())
    }

    /// The image offset for the unit at file offset `offset`, whose data is not all zeros.
    fn locate(&mut self, offset: u64, out: &mut Output) -> Result<u64> {
        let chunk = offset >> self.bits;
        if chunk >= self.placed() {
            self.settle_gap(chunk, out)?;
            self.place(chunk, chunk + 1, out)?;
        }
        // The chunk is in the last run, whether it is new or not.
        let run = self.runs.last().copied().unwrap_or(Run { first: 0, count: 0, block: 0 });
        Ok(u64::from(run.block) * BLOCK_SIZE + (offset - (run.first << self.bits)))
    }
}

impl Builder<'_> {
    /// Copies a regular file of `size` bytes into the image.
    pub(super) fn store(&mut self, path: &Path, size: u64, source: &mut dyn Source) -> Result<FileData> {
        if size > i64::MAX as u64 {
            return Err(BuildError::invalid(path, "larger than the largest file offset"));
        }
        let mut file = FileData::new(size);
        let before = self.bytes;
        let mut reported = 0;
        let mut offset = 0;
        while offset < size {
            let data = source.next_data(offset).map_err(|error| BuildError::read(path, error))?;
            // A unit that begins in a hole and ends in data is read as a whole.
            let unit = if data >= size { size } else { data & !(UNIT as u64 - 1) };
            offset = offset.max(unit);
            if offset < size {
                offset += self.store_unit(path, offset, &mut file, source)?;
            }
            self.bytes = before.saturating_add(offset);
            if offset - reported >= REPORT_EVERY {
                reported = offset;
                self.report(path)?;
            }
        }
        file.settle_gap(file.chunks(), &mut self.out).map_err(|error| error.adding(path))?;
        Ok(file)
    }

    /// Copies the unit at `offset`, returns its length.
    fn store_unit(&mut self, path: &Path, offset: u64, file: &mut FileData, source: &mut dyn Source) -> Result<u64> {
        let len = (file.size - offset).min(UNIT as u64);
        // At most UNIT, the buffer's length.
        let buf = &mut self.buffer[..len as usize];
        source.read_exact_at(offset, buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                BuildError::invalid(path, "ended before its size was reached: truncated, or changed while it was read")
            }
            _ => BuildError::read(path, error),
        })?;
        if !is_zero(buf) {
            let at = file.locate(offset, &mut self.out).map_err(|error| error.adding(path))?;
            self.out.write_at(at, buf).map_err(|error| error.adding(path))?;
        }
        Ok(len)
    }
}

/// Whether all bytes are zero: the first is, and each equals its neighbour (one memcmp).
fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((first, rest)) => *first == 0 && bytes.get(..rest.len()) == Some(rest),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_found() {
        assert!(is_zero(&[]));
        assert!(is_zero(&[0]));
        assert!(is_zero(&[0; 4096]));
        for at in [0, 1, 4094, 4095] {
            let mut bytes = [0; 4096];
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
        }
    }

    #[test]
    fn chunk_tables_are_bounded() {
        for size in [0, 1, 1 << 16, 1 << 32, (1 << 32) + 1, 1 << 50] {
            let data = FileData::new(size);
            assert!(data.chunks() <= MAX_CHUNKS, "{size}");
        }
        assert!(FileData::new(i64::MAX as u64).bits <= 43);
    }
}
