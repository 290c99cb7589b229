//! Open regular files.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use super::{Node, touch_now};
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::mm::mappable::Mappable;
use crate::mm::object::MemoryObject;
use crate::vfs::perm::without_set_id;
use crate::vfs::{Attr, FileDescription, FileOps, Inode, IoSink, IoSource, OpenFlags, Whence, now};

/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: u32 = 1;
/// `FALLOC_FL_PUNCH_HOLE`.
const PUNCH_HOLE: u32 = 2;
/// `FALLOC_FL_ZERO_RANGE`.
const ZERO_RANGE: u32 = 16;

/// An open regular file with content of its own.
pub struct MemFile {
    node: Arc<Node>,
    /// Whether writes take set-id bits off: whoever opened it lacks CAP_FSETID.
    strips: bool,
}

impl Node {
    /// A regular file's own content.
    pub(super) fn object(&self) -> Result<&Arc<MemoryObject>, Errno> {
        self.content.get().ok_or(Errno::EIO)
    }

    /// Changes the length of a regular file.
    pub(super) fn resize(&self, size: u64) -> Result<(), Errno> {
        if self.kind != crate::vfs::FileType::Regular {
            return Err(Errno::EINVAL);
        }
        let _one = self.writing.lock();
        self.copy_up_locked(size)?;
        self.charged(0, || self.object()?.truncate(size).map(|()| 0))?;
        Ok(())
    }

    /// Runs `f`, which may add up to `room` bytes, within the file system's limit on bytes. The caller holds `writing`.
    fn charged(&self, room: u64, f: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
        let Some(limit) = self.fs.limits.size else { return f() };
        let object = self.object()?;
        let before = object.resident();
        if room > 0 && self.fs.used.load(Ordering::Relaxed).saturating_add(room) > limit.saturating_add(4095) {
            return Err(Errno::ENOSPC);
        }
        let answer = f();
        let after = object.resident();
        self.fs.used.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        answer
    }
}

impl MemFile {
    pub(super) fn new(node: Arc<Node>, strips: bool) -> Self {
        MemFile { node, strips }
    }

    /// Stamps a read as `relatime` does: where the last stamp is not newer than the last change.
    fn accessed(&self, file: &FileDescription) {
        if file.flags().contains(OpenFlags::NOATIME) {
            return;
        }
        let mut meta = self.node.meta.lock();
        if let Some(m) = meta.as_mut().filter(|m| m.atime <= m.mtime || m.atime <= m.ctime) {
            m.atime = now();
        }
    }

    fn changed(&self) {
        self.node.meta_mut(|m| {
            touch_now(&mut [&mut m.mtime, &mut m.ctime]);
            if self.strips {
                m.perm = without_set_id(m.perm);
            }
        });
    }
}

impl FileOps for MemFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let MemFile { node, strips } = self;
        Ok(OpsState::Memory { node: saver.nodes.id(node), strips: *strips })
    }

    fn read(&self, file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        self.accessed(file);
        self.node.object()?.read_at(dst, offset)
    }

    fn write(&self, file: &FileDescription, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let _one = self.node.writing.lock();
        let object = self.node.object()?;
        let at = if file.flags().contains(OpenFlags::APPEND) { object.size() } else { offset };
        src.restrict_at(at)?;
        if let Some(room) = self.node.fs.room() {
            // What lies within the file already is paid for (but for holes, which may go over a little).
            let paid = object.size().saturating_sub(at);
            let fits = src.remaining() as u64 <= room;
            if !fits && room.saturating_add(paid) == 0 {
                return Err(Errno::ENOSPC);
            }
            src.restrict(if fits { u64::MAX } else { room.saturating_add(paid) });
        }
        let n = self.node.charged(0, || object.write_at(src, at))?;
        self.changed();
        Ok(n)
    }

    fn append_end(&self) -> Option<u64> {
        self.node.content.get().map(|c| c.size())
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let object = self.node.object()?;
        seek_regular(object.size(), current, offset, whence, |from, data| object.seek(from, data))
    }

    fn mappable(&self, _file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(self.node.object()?.clone())
    }

    fn truncate(&self, _file: &FileDescription, size: u64) -> Result<(), Errno> {
        self.node.resize(size)?;
        self.changed();
        Ok(())
    }

    fn allocate(&self, _file: &FileDescription, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let _one = self.node.writing.lock();
        let object = self.node.object()?;
        match mode {
            0 | KEEP_SIZE => {
                self.node.charged(len, || object.allocate(offset, len, mode == KEEP_SIZE).map(|()| 0))?;
            }
            m if m == PUNCH_HOLE | KEEP_SIZE => {
                self.node.charged(0, || object.punch(offset, len).map(|()| 0))?;
            }
            m if m & !KEEP_SIZE == ZERO_RANGE => {
                object.punch(offset, len)?;
                self.node.charged(len, || object.allocate(offset, len, mode & KEEP_SIZE != 0).map(|()| 0))?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.changed();
        Ok(())
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        Ok(())
    }

    fn attr(&self) -> Option<Attr> {
        Some(self.node.attr())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl MemFile {
    /// The memory behind it, for seals.
    ///
    /// # Errors
    /// `EIO` where there is none, which does not happen to an open file.
    pub fn memory(&self) -> Result<&Arc<MemoryObject>, Errno> {
        self.node.object()
    }
}

/// `lseek(2)` of a regular file of `size` bytes; `find(from, data)` finds data and holes.
///
/// # Errors
/// `EINVAL` for a negative or too large position; `ENXIO`.
pub fn seek_regular(
    size: u64,
    current: u64,
    offset: i64,
    whence: Whence,
    find: impl FnOnce(u64, bool) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    let base = match whence {
        Whence::Set => 0,
        Whence::Current => current,
        Whence::End => size,
        Whence::Data | Whence::Hole => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            return find(from, whence == Whence::Data);
        }
    };
    let at = base.checked_add_signed(offset).ok_or(Errno::EINVAL)?;
    if i64::try_from(at).is_err() { Err(Errno::EINVAL) } else { Ok(at) }
}
