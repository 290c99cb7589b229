//! Open files of an image: reads are slices of the mapping, mappings are its pages.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno, PAGE_SIZE, page_down, page_up};
use memory::Frame;
use platform::Access;
use rofs::ExtentKind;

use super::RofsInode;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::tmpfs::seek_regular;
use crate::mm::Mm;
use crate::mm::mappable::{FileRange, Mappable, TranslateError, Translation};
use crate::mm::saved::MappableState;
use crate::vfs::{FileDescription, FileOps, Inode, InodeKey, IoSink, Whence};

/// An open regular file.
pub struct RofsFile {
    inode: Arc<RofsInode>,
}

impl RofsFile {
    pub(super) fn new(inode: Arc<RofsInode>) -> Self {
        RofsFile { inode }
    }
}

impl FileOps for RofsFile {
    fn save(&self, file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Err(Refused::new(format!("the open file {}", file.name())))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let fs = &self.inode.fs;
        let reader = fs.reader()?;
        let end = offset.saturating_add(dst.remaining() as u64);
        let mut done = 0usize;
        for extent in reader.extents(&self.inode.inode, offset..end) {
            let extent = extent.map_err(|e| fs.corrupt(&e))?;
            let len = usize::try_from(extent.len).map_err(|_| Errno::EIO)?;
            let put = match reader.extent_bytes(&extent).map_err(|e| fs.corrupt(&e))? {
                Some(bytes) => dst.put(bytes),
                None => dst.put_zeros(len),
            };
            match put {
                Ok(n) => {
                    done += n;
                    if n < len {
                        break;
                    }
                }
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        // A page that failed during the copy was zeros: that is not what the file holds.
        fs.reader().map(|_| done)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let size = self.inode.inode.size;
        seek_regular(size, current, offset, whence, |from, data| self.find(from, data))
    }

    fn mappable(&self, _file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(self.inode.clone())
    }

    fn truncate(&self, _file: &FileDescription, _size: u64) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl RofsFile {
    /// The next data or hole from `from` on.
    fn find(&self, from: u64, data: bool) -> Result<u64, Errno> {
        let fs = &self.inode.fs;
        let size = self.inode.inode.size;
        if from >= size {
            return Err(Errno::ENXIO);
        }
        for extent in fs.reader()?.extents(&self.inode.inode, from..size) {
            let extent = extent.map_err(|e| fs.corrupt(&e))?;
            if (extent.kind == ExtentKind::Hole) != data {
                return Ok(extent.offset);
            }
        }
        if data { Err(Errno::ENXIO) } else { Ok(size) }
    }
}

impl RofsInode {
    /// The frames behind one extent that starts a page.
    fn frames(&self, extent: &rofs::Extent) -> Result<(u64, Frame), TranslateError> {
        match extent.kind {
            ExtentKind::Data { image_offset } => {
                Ok((page_down(extent.len), Frame { file: self.fs.frames.clone(), offset: image_offset }))
            }
            ExtentKind::Tail { image_offset } => {
                let reader = self.fs.reader().map_err(|_| TranslateError::Bus)?;
                if reader.tail_is_mappable(extent) {
                    return Ok((PAGE_SIZE, Frame { file: self.fs.frames.clone(), offset: image_offset }));
                }
                let bytes = reader.extent_bytes(extent).ok().flatten().ok_or(TranslateError::Bus)?;
                Ok((PAGE_SIZE, self.fs.pages.tail(self.inode.nid, bytes)?))
            }
            ExtentKind::Hole => Ok((PAGE_SIZE, self.fs.pages.zero()?)),
        }
    }
}

impl Mappable for RofsInode {
    fn translate(
        &self,
        range: FileRange,
        optional: FileRange,
        _access: Access,
    ) -> Result<Vec<Translation>, TranslateError> {
        let reader = self.fs.reader().map_err(|_| TranslateError::Bus)?;
        let end = page_up(self.inode.size).ok_or(TranslateError::Bus)?;
        if range.start >= end {
            return Err(TranslateError::Bus);
        }
        let want = optional.start.min(range.start)..optional.end.max(range.end).min(end);
        let mut found = Vec::new();
        for extent in reader.extents(&self.inode, want.start..want.end) {
            let extent = extent.map_err(|_| TranslateError::Bus)?;
            let page_start = extent.offset;
            // Whole pages of zeros outside of what was asked for are not worth a mapping each.
            let needed = page_start < range.end && page_start.saturating_add(extent.len) > range.start;
            if extent.kind == ExtentKind::Hole && !needed {
                continue;
            }
            if extent.kind == ExtentKind::Hole {
                let from = page_start.max(range.start);
                let to = page_up(page_start + extent.len).unwrap_or(from).min(range.end);
                let frame = self.fs.pages.zero()?;
                let pages = (from..to).step_by(4096);
                found.extend(pages.map(|at| piece(at, PAGE_SIZE, frame.clone())));
                continue;
            }
            let (len, frame) = self.frames(&extent)?;
            if len > 0 {
                found.push(piece(page_start, len, frame));
            }
        }
        if found.iter().any(|t| t.source.start <= range.start && range.start < t.source.end) {
            Ok(found)
        } else {
            Err(TranslateError::Bus)
        }
    }

    // The image never changes, so nobody ever needs to be told.
    fn add_mapping(&self, _mm: &Weak<Mm>, _at: AddrRange, _offset: u64, _writable: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn remove_mapping(&self, _mm: &Weak<Mm>, _at: AddrRange, _offset: u64, _writable: bool) {}

    fn placement(&self, offset: u64) -> Option<u64> {
        let reader = self.fs.reader().ok()?;
        let extent = reader.extents(&self.inode, offset..offset.checked_add(PAGE_SIZE)?).next()?.ok()?;
        match extent.kind {
            ExtentKind::Data { image_offset } if extent.offset == offset => Some(image_offset),
            _ => None,
        }
    }

    fn key(&self) -> InodeKey {
        self.attr().key
    }

    fn save(self: Arc<Self>, _saver: &mut Saver) -> Result<MappableState, Refused> {
        Ok(MappableState::Image(self.inode.nid))
    }
}

fn piece(start: u64, len: u64, frame: Frame) -> Translation {
    Translation { source: FileRange { start, end: start + len }, frame, writable: false }
}
