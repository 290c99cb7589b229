//! Donated files in guest memory: shared mappings show the host's own pages, private ones show them until written.

use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno, page_down, page_up};
use gofer_proto::Request;
use memory::Frame;
use platform::Access;

use super::GoferInode;
use super::donated::Donated;
use crate::kernel::trip;
use crate::mm::Mm;
use crate::mm::mappable::{FileRange, Mappable, TranslateError, Translation};
use crate::sync::{Level, Mutex};
use crate::vfs::{Inode, InodeKey};

#[derive(Clone)]
struct Mapper {
    mm: Weak<Mm>,
    at: AddrRange,
    offset: u64,
    writable: bool,
}

/// Who maps a file.
pub struct Mappings(Mutex<Vec<Mapper>>);

impl Default for Mappings {
    fn default() -> Self {
        Mappings(Mutex::new(Level::Mappings, Vec::new()))
    }
}

impl Mappings {
    /// Takes the pages from the one that holds byte `from` on away from all who map them: the next access asks again.
    pub fn invalidate_from(&self, from: u64) {
        let from = page_down(from);
        // Without our lock: taking pages away takes those of address spaces.
        let mappers: Vec<Mapper> = self.0.lock().clone();
        for mapper in mappers {
            let skip = from.saturating_sub(mapper.offset);
            if skip >= mapper.at.len() {
                continue;
            }
            if let Some(mm) = mapper.mm.upgrade() {
                mm.invalidate_mapping(AddrRange::new(mapper.at.start + skip, mapper.at.end));
            }
        }
    }

    fn add(&self, mapper: Mapper) {
        self.0.lock().push(mapper);
    }

    fn remove(&self, gone: &Mapper) {
        let mut mappers = self.0.lock();
        let mut rest = Vec::new();
        mappers.retain(|m| {
            let same = m.mm.ptr_eq(&gone.mm) && m.writable == gone.writable && m.at.overlaps(&gone.at);
            let aligned = m.at.start.wrapping_sub(m.offset) == gone.at.start.wrapping_sub(gone.offset);
            if !(same && aligned) {
                return true;
            }
            for part in [AddrRange::new(m.at.start, gone.at.start), AddrRange::new(gone.at.end, m.at.end)] {
                if !part.is_empty() && m.at.covers(&part) {
                    rest.push(Mapper { at: part, offset: m.offset + (part.start - m.at.start), ..m.clone() });
                }
            }
            false
        });
        mappers.append(&mut rest);
    }
}

/// A file and the descriptor that was open when it was mapped, which the mapping keeps.
pub struct GoferMapping {
    inode: Arc<GoferInode>,
    donated: Arc<Donated>,
}

impl GoferMapping {
    pub(super) fn new(inode: Arc<GoferInode>, donated: Arc<Donated>) -> Self {
        GoferMapping { inode, donated }
    }
}

impl Mappable for GoferMapping {
    fn save(
        self: Arc<Self>,
        _saver: &mut crate::checkpoint::Saver,
    ) -> Result<crate::mm::saved::MappableState, crate::checkpoint::Refused> {
        // The open file that was mapped is saved, and mapped again.
        Ok(crate::mm::saved::MappableState::OfFile)
    }

    fn translate(
        &self,
        range: FileRange,
        optional: FileRange,
        access: Access,
    ) -> Result<Vec<Translation>, TranslateError> {
        // The host may have shortened the file since: its size is asked each time.
        let size = self.donated.size().map_err(|_| TranslateError::Bus)?;
        let end = page_up(size).ok_or(TranslateError::Bus)?;
        if range.start >= end {
            return Err(TranslateError::Bus);
        }
        let start = optional.start.min(range.start);
        let end = optional.end.max(range.end).min(end);
        let file = self.donated.frames(end).map_err(|_| TranslateError::NoMemory)?;
        let writable = access.write;
        if writable && !self.donated.writable {
            return Err(TranslateError::Bus);
        }
        let source = FileRange { start, end };
        Ok(vec![Translation { source, frame: Frame { file, offset: start }, writable }])
    }

    fn add_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) -> Result<(), Errno> {
        self.inode.mappings.add(Mapper { mm: mm.clone(), at, offset, writable });
        Ok(())
    }

    fn remove_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) {
        self.inode.mappings.remove(&Mapper { mm: mm.clone(), at, offset, writable });
    }

    fn key(&self) -> InodeKey {
        self.inode.attr().key
    }

    fn sync(&self, _range: FileRange) -> Result<(), Errno> {
        trip::ask(&self.inode.fs, Request::Sync { node: self.inode.node(), data_only: true }).map(|_| ())
    }
}
