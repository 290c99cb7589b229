//! From file offsets to image offsets, and reads.

use std::ops::Range;

use zerocopy::little_endian::U32;

use crate::format::{BLOCK_SIZE, ChunkIndex, NULL_BLOCK};
use crate::inode::{FileType, Inode, Layout, blocks};
use crate::{Error, Reader, Result};

/// What an extent is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Whole blocks of the image. For a page-aligned range, file offset and `image_offset` are page-aligned and the
    /// extent can be mapped.
    Data {
        /// Byte offset in the image.
        image_offset: u64,
    },
    /// The file's last, partial block. It must be copied and zero-filled to a page: it may be inline, behind its
    /// inode, and what follows it in the image is not the file's (but see [`Reader::tail_is_mappable`]).
    Tail {
        /// Byte offset in the image.
        image_offset: u64,
    },
    /// Zeros.
    Hole,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Byte offset in the file.
    pub offset: u64,
    /// Length in bytes, above zero.
    pub len: u64,
    /// What it is made of.
    pub kind: ExtentKind,
}

/// Iterator over a file's extents, in order and without gaps; stops behind the first error.
#[derive(Debug, Clone)]
pub struct Extents<'a> {
    reader: Reader<'a>,
    inode: Inode,
    pos: u64,
    end: u64,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.end {
            return None;
        }
        let extent = self.reader.map(&self.inode, self.pos, self.end);
        self.pos = match &extent {
            // map() never returns an empty extent, so this always advances.
            Ok(extent) => extent.offset.saturating_add(extent.len.max(1)),
            Err(_) => self.end,
        };
        Some(extent)
    }
}

impl<'a> Reader<'a> {
    /// The extents of the part of `range` that is inside the file. Neighbours that continue each other are merged.
    pub fn extents(&self, inode: &Inode, range: Range<u64>) -> Extents<'a> {
        Extents { reader: *self, inode: *inode, pos: range.start, end: range.end.min(inode.size) }
    }

    /// The bytes of an extent of this image; `None` for a hole.
    pub fn extent_bytes(&self, extent: &Extent) -> Result<Option<&'a [u8]>> {
        match extent.kind {
            ExtentKind::Data { image_offset } | ExtentKind::Tail { image_offset } => {
                self.range(image_offset, extent.len, "file data").map(Some)
            }
            ExtentKind::Hole => Ok(None),
        }
    }

    /// Whether a [`ExtentKind::Tail`] may be mapped as a whole page after all: it starts a page of the image and the
    /// rest of that page is zeros (always so in images of our builder). Reads the rest of one page.
    pub fn tail_is_mappable(&self, extent: &Extent) -> bool {
        let ExtentKind::Tail { image_offset } = extent.kind else { return false };
        if image_offset % BLOCK_SIZE != 0 || extent.len > BLOCK_SIZE {
            return false;
        }
        let rest = self.range(image_offset + extent.len, BLOCK_SIZE - extent.len, "rest of a tail");
        rest.is_ok_and(|rest| rest.iter().all(|&byte| byte == 0))
    }

    /// Reads file data at `offset` into `buf`; returns the number of bytes, short only at the end of the file.
    pub fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if inode.file_type != FileType::Regular {
            return Err(Error::NoData(inode.nid));
        }
        let end = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        let mut done = 0;
        for extent in self.extents(inode, offset..end) {
            let extent = extent?;
            let len = usize::try_from(extent.len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            match self.extent_bytes(&extent)? {
                Some(bytes) => now.copy_from_slice(bytes.get(..len).unwrap_or_default()),
                None => now.fill(0),
            }
            rest = later;
            done += len;
        }
        Ok(done)
    }

    /// The target of a symbolic link: 1 to 4095 bytes without a NUL.
    pub fn readlink(&self, inode: &Inode) -> Result<&'a [u8]> {
        if inode.file_type != FileType::Symlink {
            return Err(Error::NotASymlink(inode.nid));
        }
        let corrupt = |what| Error::Corrupt { nid: inode.nid, what };
        if inode.size == 0 || inode.size > crate::format::SYMLINK_MAX {
            return Err(corrupt("symbolic link of an impossible length"));
        }
        let target = self.block(inode, 0)?;
        if target.contains(&0) { Err(corrupt("NUL in a symbolic link")) } else { Ok(target) }
    }

    /// Block `index` of a directory or link: 4096 bytes, fewer at the end. Holes are corruption there.
    pub(crate) fn block(&self, inode: &Inode, index: u64) -> Result<&'a [u8]> {
        let corrupt = |what| Error::Corrupt { nid: inode.nid, what };
        let start = index.checked_mul(BLOCK_SIZE).filter(|&start| start < inode.size);
        let start = start.ok_or_else(|| corrupt("block behind the end"))?;
        let len = (inode.size - start).min(BLOCK_SIZE);
        let extent = self.map(inode, start, start + len)?;
        if extent.len != len {
            return Err(corrupt("block in pieces"));
        }
        self.extent_bytes(&extent)?.ok_or_else(|| corrupt("hole in a directory or symbolic link"))
    }

    /// The extent that starts at `pos`, cut at `end`; `pos < end <= inode.size`.
    fn map(&self, inode: &Inode, pos: u64, end: u64) -> Result<Extent> {
        let whole = inode.size - inode.size % BLOCK_SIZE;
        match inode.layout {
            Layout::Plain { start } => Ok(flat(pos, end, whole, start)),
            Layout::Inline { start, tail } => {
                let inline = (blocks(inode.size).saturating_sub(1)) * BLOCK_SIZE;
                if pos < inline {
                    Ok(flat(pos, end.min(inline), whole, start))
                } else {
                    let kind = ExtentKind::Tail { image_offset: tail + (pos - inline) };
                    Ok(Extent { offset: pos, len: end - pos, kind })
                }
            }
            Layout::Chunked { bits, .. } => self.map_chunks(inode, pos, end, whole, bits),
            Layout::None => Err(Error::NoData(inode.nid)),
        }
    }

    /// [`Reader::map`] of a chunk-based file: goes on while the next chunk continues the extent.
    fn map_chunks(&self, inode: &Inode, pos: u64, end: u64, whole: u64, bits: u32) -> Result<Extent> {
        let chunk_start = (pos >> bits) << bits;
        let first = self.chunk(inode, pos >> bits)?;
        // size <= i64::MAX and a chunk is at most 2^43 bytes: no overflow.
        let mut reach = chunk_start + (1 << bits);
        while reach < end {
            let expected = first.map(|start| start.saturating_add(reach - chunk_start));
            if self.chunk(inode, reach >> bits)? != expected {
                break;
            }
            reach += 1 << bits;
        }
        let end = end.min(reach);
        let Some(start) = first else {
            return Ok(Extent { offset: pos, len: end - pos, kind: ExtentKind::Hole });
        };
        let base = start + (pos - chunk_start);
        self.range(base, end - pos, "file data of a chunk")?;
        if pos >= whole {
            return Ok(Extent { offset: pos, len: end - pos, kind: ExtentKind::Tail { image_offset: base } });
        }
        let end = end.min(whole);
        Ok(Extent { offset: pos, len: end - pos, kind: ExtentKind::Data { image_offset: base } })
    }

    /// The image offset of chunk `index`, `None` for a hole.
    fn chunk(&self, inode: &Inode, index: u64) -> Result<Option<u64>> {
        let Layout::Chunked { table, indexes, .. } = inode.layout else { return Err(Error::NoData(inode.nid)) };
        let block = if indexes {
            let entry: ChunkIndex = self.structure(table + index * 8, "chunk table")?;
            if entry.blkaddr.get() != NULL_BLOCK && entry.device_id.get() != 0 {
                return Err(Error::Unsupported("multiple devices"));
            }
            entry.blkaddr.get()
        } else {
            self.structure::<U32>(table + index * 4, "chunk table")?.get()
        };
        Ok((block != NULL_BLOCK).then(|| u64::from(block) * BLOCK_SIZE))
    }
}

/// An extent of consecutive blocks that start at image offset `start`; `whole` is where the partial block starts.
fn flat(pos: u64, end: u64, whole: u64, start: u64) -> Extent {
    let image_offset = start + pos;
    if pos >= whole {
        Extent { offset: pos, len: end - pos, kind: ExtentKind::Tail { image_offset } }
    } else {
        Extent { offset: pos, len: end.min(whole) - pos, kind: ExtentKind::Data { image_offset } }
    }
}
