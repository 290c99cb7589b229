//! `/proc/PID/mem` and `pagemap`: the memory of a process as files.

use std::any::Any;
use std::sync::Arc;

use abi::{AddrRange, Errno, PAGE_SIZE, UserAddr};

use super::pid::{Of, may_look};
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::mm::Mm;
use crate::vfs::{Attr, Caller, FileDescription, FileOps, Inode, IoSink, IoSource, OpenFlags, SetAttr, StatFs, Whence};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mem,
    PageMap,
}

/// The file in the directory.
pub(super) struct MemoryFileNode {
    pub of: Of,
    pub attr: Attr,
    pub kind: Kind,
}

impl Inode for MemoryFileNode {
    fn attr(&self) -> Attr {
        self.attr
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let only_size = SetAttr { size: change.size, ..SetAttr::default() };
        if *change == only_size { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn open(self: Arc<Self>, caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let task = self.of.task()?;
        may_look(caller, &task)?;
        // The address space of now: after an exec the descriptor shows the old one, which is empty then.
        Ok(Arc::new(OpenMemory { mm: task.mm(), kind: self.kind }))
    }

    fn statfs(&self) -> StatFs {
        self.of.proc.fs.statfs()
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct OpenMemory {
    mm: Option<Arc<Mm>>,
    kind: Kind,
}

/// Bytes copied at a time.
const PIECE: usize = 64 << 10;

fn read_memory(mm: &Mm, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
    let (mut done, mut buf) = (0usize, vec![0u8; dst.remaining().min(PIECE)]);
    while dst.remaining() > 0 {
        let at = offset.checked_add(done as u64).ok_or(Errno::EIO)?;
        // A page at a time: what cannot be read ends the transfer there.
        let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(1);
        let n = dst.remaining().min(in_page).min(buf.len());
        let Some(piece) = buf.get_mut(..n) else { break };
        if mm.read_bytes(UserAddr(at), piece).is_err() {
            return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
        }
        done += dst.put(piece)?;
    }
    Ok(done)
}

fn write_memory(mm: &Mm, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
    let (mut done, mut buf) = (0usize, vec![0u8; src.remaining().min(PIECE)]);
    while src.remaining() > 0 {
        let at = offset.checked_add(done as u64).ok_or(Errno::EIO)?;
        let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(1);
        let n = src.remaining().min(in_page).min(buf.len());
        let Some(piece) = buf.get_mut(..n) else { break };
        let n = src.take(piece)?;
        if mm.write_bytes(UserAddr(at), piece.get(..n).unwrap_or_default()).is_err() {
            return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
        }
        done += n;
    }
    Ok(done)
}

/// One word a page: bit 63 is "present"; frame numbers are nobody's business.
fn read_page_map(mm: &Mm, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
    const PRESENT: u64 = 1 << 63;
    if !offset.is_multiple_of(8) || !dst.remaining().is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let pages = (dst.remaining() / 8).min(PIECE / 8) as u64;
    let first = offset / 8;
    let last = (platform::USER_END / PAGE_SIZE).min(first.saturating_add(pages));
    let mut out = Vec::new();
    for page in first..last {
        let at = page * PAGE_SIZE;
        let there = mm.has_frame(AddrRange::new(at, at + PAGE_SIZE));
        out.extend_from_slice(&(if there { PRESENT } else { 0 }).to_le_bytes());
    }
    dst.put(&out)
}

impl FileOps for OpenMemory {
    fn save(&self, file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Err(Refused::new(format!("the open file {}", file.name())))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let Some(mm) = &self.mm else { return Ok(0) };
        match self.kind {
            Kind::Mem => read_memory(mm, dst, offset),
            Kind::PageMap => read_page_map(mm, dst, offset),
        }
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        match (&self.mm, self.kind) {
            (Some(mm), Kind::Mem) => write_memory(mm, src, offset),
            (None, Kind::Mem) => Ok(0),
            (_, Kind::PageMap) => Err(Errno::EINVAL),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        // Addresses fill the whole range, so positions are unsigned here (mem_lseek).
        match whence {
            Whence::Set => Ok(offset.cast_unsigned()),
            Whence::Current => Ok(current.wrapping_add_signed(offset)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
