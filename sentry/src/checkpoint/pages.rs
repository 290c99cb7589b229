//! Guest memory on its way into a pages file: which frame goes where, each once, and the writing.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use abi::{AddrRange, PAGE_SIZE};
use memory::{FileId, FileKind, Frame, FrameFile, MemoryFile, RangeMap};
use serde::{Deserialize, Serialize};
use snapshot::{PAGES_START, PagesHeader, SnapshotId};

use crate::checkpoint::Unusable;
use crate::mm::extents::Place;

/// Frames in a pages file, behind a range of an owner's addresses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PageRun {
    /// The owner's first address (or offset).
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// File offset of the first page.
    pub offset: u64,
}

/// Pieces of zeros at least this long are left out where a missing page means zeros as well.
const UNIT: u64 = 64 << 10;
/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;

struct Copy {
    from: Frame,
    len: u64,
    to: u64,
}

/// Where frames go.
pub struct PagePlan {
    memory: Arc<MemoryFile>,
    placed: HashMap<FileId, RangeMap<Place>>,
    copies: Vec<Copy>,
    end: u64,
}

impl PagePlan {
    /// Nothing yet.
    #[must_use]
    pub fn new(memory: Arc<MemoryFile>) -> Self {
        PagePlan { memory, placed: HashMap::new(), copies: Vec::new(), end: PAGES_START }
    }

    /// Gives `len` bytes of frames from `frame` on, which an owner shows from `start` on, their places. `sparse`: what
    /// is zero may be left out.
    pub fn place(&mut self, start: u64, frame: &Frame, len: u64, sparse: bool, runs: &mut Vec<PageRun>) {
        let whole = AddrRange::new(frame.offset, frame.offset + len);
        let parts = if sparse { self.content(frame, whole) } else { vec![whole] };
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let (len, offset) = self.place_one(&frame.file, AddrRange::new(at, part.end));
                let owner = start + (at - whole.start);
                match runs.last_mut() {
                    Some(last) if last.start + last.len == owner && last.offset + last.len == offset => last.len += len,
                    _ => runs.push(PageRun { start: owner, len, offset }),
                }
                at += len;
            }
        }
    }

    /// The place of (the start of) `range`.
    fn place_one(&mut self, file: &Arc<FrameFile>, range: AddrRange) -> (u64, u64) {
        let placed = self.placed.entry(file.id()).or_default();
        if let Some((r, place)) = placed.get(range.start) {
            return (r.intersect(&range).len(), place.0 + (range.start - r.start));
        }
        let end = placed.at_or_after(range.start).map_or(range.end, |(r, _)| r.start.min(range.end));
        let (len, offset) = (end - range.start, self.end);
        placed.insert(AddrRange::new(range.start, end), Place(offset));
        self.copies.push(Copy { from: Frame { file: file.clone(), offset: range.start }, len, to: offset });
        self.end += len;
        (len, offset)
    }

    /// The parts of `range` that are worth keeping: whole units that are not zero.
    fn content(&self, frame: &Frame, range: AddrRange) -> Vec<AddrRange> {
        let own = frame.file.kind() == FileKind::Memory;
        let populated = if own { self.memory.populated(range) } else { vec![range] };
        let mut parts: Vec<AddrRange> = Vec::new();
        let mut unit = Vec::new();
        for piece in populated {
            let mut at = piece.start;
            while at < piece.end {
                let end = ((at / UNIT + 1) * UNIT).min(piece.end);
                unit.resize(usize::try_from(end - at).unwrap_or(0), 0);
                // What cannot be read is kept, so that its failure is not taken for zeros.
                let zero = frame.file.read(at, &mut unit).is_ok() && is_zero(&unit);
                match parts.last_mut() {
                    _ if zero => {}
                    Some(last) if last.end == at => last.end = end,
                    _ => parts.push(AddrRange::new(at, end)),
                }
                at = end;
            }
        }
        parts
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether there is no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == PAGES_START
    }

    /// Writes the file. Pages of zeros become holes.
    ///
    /// # Errors
    /// What writing says; `InvalidData` where a page cannot be read.
    pub fn write(&self, file: &File, id: SnapshotId) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.end)?;
        file.write_all_at(&PagesHeader { id, len: self.end }.encode(), 0)?;
        let mut buf = vec![0u8; CHUNK];
        for copy in &self.copies {
            let whole = AddrRange::new(copy.from.offset, copy.from.offset + copy.len);
            let own = copy.from.file.kind() == FileKind::Memory;
            let populated = if own { self.memory.populated(whole) } else { vec![whole] };
            for part in populated {
                self.copy_part(file, copy, part, &mut buf)?;
            }
        }
        Ok(())
    }

    fn copy_part(&self, file: &File, copy: &Copy, part: AddrRange, buf: &mut [u8]) -> io::Result<()> {
        let mut at = part.start;
        while at < part.end {
            let len = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(buf.len());
            let piece = buf.get_mut(..len).unwrap_or_default();
            copy.from.file.read(at, piece).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            write_sparse(file, piece, copy.to + (at - copy.from.offset))?;
            at += len as u64;
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|w| *w == [0; 64]) && rest.iter().all(|b| *b == 0)
}

/// Writes what is not zero, in stretches of whole pages.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let page = usize::try_from(PAGE_SIZE).unwrap_or(4096);
    let mut start = 0;
    while start < bytes.len() {
        let pages = bytes.get(start..).unwrap_or_default().chunks(page);
        let zero: usize = pages.clone().take_while(|p| is_zero(p)).map(<[u8]>::len).sum();
        let data: usize = pages.skip(zero.div_ceil(page)).take_while(|p| !is_zero(p)).map(<[u8]>::len).sum();
        start += zero;
        if data > 0 {
            file.write_all_at(bytes.get(start..start + data).unwrap_or_default(), offset + start as u64)?;
        }
        start += data;
    }
    Ok(())
}

/// Maps the pages file of snapshot `id`. Nothing of it is read but its header.
///
/// # Errors
/// Another file; the host.
pub fn map(file: File, id: SnapshotId) -> Result<Arc<FrameFile>, Unusable> {
    let len = file.metadata()?.len();
    let mut head = [0u8; 64];
    let n = file.read_at(&mut head, 0)?;
    let header = PagesHeader::parse(head.get(..n).unwrap_or_default(), len, &id)?;
    Ok(FrameFile::map(FileKind::Snapshot, Some(file.into()), header.len, false)?)
}

impl PageRun {
    /// The first frame, where the whole run lies in `frames` and makes sense as a piece of an owner's space.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn frame(&self, frames: &Arc<FrameFile>) -> Result<(AddrRange, Frame), Unusable> {
        let bad = Unusable::Corrupt("a run of pages");
        let aligned = (self.start | self.len | self.offset).is_multiple_of(PAGE_SIZE);
        let inside = self.offset.checked_add(self.len).is_some_and(|end| end <= frames.size());
        let Some(end) = self.start.checked_add(self.len) else { return Err(bad) };
        if !aligned || !inside || self.len == 0 || self.offset < PAGES_START {
            return Err(bad);
        }
        Ok((AddrRange::new(self.start, end), Frame { file: frames.clone(), offset: self.offset }))
    }
}
