//! Open regular files: the descriptor is ours, so reads and writes are calls of our own.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use gofer_proto::Request;
use nix::sys::uio::pwrite;
use nix::unistd::lseek;

use super::GoferInode;
use super::donated::{Donated, errno};
use super::mapping::GoferMapping;
use crate::checkpoint::ops::OpsState;
use crate::fs::tmpfs::seek_regular;
use crate::mm::mappable::Mappable;
use crate::vfs::perm::without_set_id;
use crate::vfs::{FileDescription, FileOps, Inode, IoSink, IoSource, OpenFlags, SetAttr, Whence};

/// Bytes moved at once.
const CHUNK: usize = 128 << 10;
/// Bytes moved straight to the guest at once.
const STRAIGHT: usize = 1 << 20;
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: u32 = 1;

/// An open regular file.
pub struct GoferFile {
    pub(super) inode: Arc<GoferInode>,
    pub(super) donated: Arc<Donated>,
    /// Whether writes take set-id bits off: whoever opened it lacks CAP_FSETID.
    pub(super) strips: bool,
}

impl GoferFile {
    pub(super) fn new(inode: Arc<GoferInode>, donated: Arc<Donated>, strips: bool) -> Self {
        GoferFile { inode, donated, strips }
    }

    /// Reads what the host has in memory straight to the guest: the locks of guest memory are held meanwhile, so that
    /// nothing may wait.
    fn read_straight(&self, dst: &mut IoSink<'_>, at: u64) -> Result<Option<usize>, Errno> {
        match dst.put_with(STRAIGHT, |frame, n| self.donated.read_to(frame, n, at))? {
            Some(put) => Ok(put),
            None => self.read_through(dst, at),
        }
    }

    /// Reads by way of a buffer of ours, and waits for the disk where it must.
    fn read_through(&self, dst: &mut IoSink<'_>, at: u64) -> Result<Option<usize>, Errno> {
        let mut buf = vec![0u8; dst.remaining().min(CHUNK)];
        let got = self.donated.read(&mut buf, at, false)?.unwrap_or(0);
        dst.put(buf.get(..got).unwrap_or_default()).map(Some)
    }

    fn write_from(&self, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buf = vec![0u8; src.remaining().min(CHUNK)];
        let mut written = 0usize;
        while src.remaining() > 0 {
            let want = src.remaining().min(CHUNK);
            let Some(room) = buf.get_mut(..want) else { break };
            let taken = match src.take(room) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            };
            let mut rest = buf.get(..taken).unwrap_or_default();
            while !rest.is_empty() {
                let at = offset.checked_add(written as u64).and_then(|o| i64::try_from(o).ok()).ok_or(Errno::EFBIG)?;
                match pwrite(self.donated.fd(), rest, at) {
                    Ok(n) => {
                        written += n;
                        rest = rest.get(n..).unwrap_or_default();
                    }
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(e) => return if written > 0 { Ok(written) } else { Err(errno(e)) },
                }
            }
        }
        Ok(written)
    }
}

impl FileOps for GoferFile {
    fn save(
        &self,
        file: &FileDescription,
        saver: &mut crate::checkpoint::Saver,
    ) -> Result<OpsState, crate::checkpoint::Refused> {
        let state = self.state(&file.name())?;
        Ok(OpsState::Gofer { path: OpsState::path_of(file, saver)?, state })
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0usize;
        while dst.remaining() > 0 {
            let at = offset.checked_add(done as u64).filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::EINVAL)?;
            let patient = dst.is_patient();
            let read = if patient { self.read_straight(dst, at) } else { self.read_through(dst, at) };
            match read {
                Ok(Some(0)) => break,
                Ok(Some(n)) => done += n,
                Ok(None) if patient => {
                    dst.set_fetching(self.donated.fetch(at, dst.remaining()));
                    return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        Ok(done)
    }

    fn write(&self, file: &FileDescription, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let _one = self.inode.writing.lock();
        let append = file.flags().contains(OpenFlags::APPEND);
        let at = if append { self.donated.size()? } else { offset };
        src.restrict_at(at)?;
        let n = self.write_from(src, at)?;
        if self.strips {
            // The host does so too: we have no capability there.
            self.inode.change_attr(|a| a.perm = without_set_id(a.perm));
        }
        Ok(n)
    }

    fn append_end(&self) -> Option<u64> {
        self.donated.size().ok()
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let find = |from: u64, data: bool| {
            use nix::unistd::Whence as Host;
            let from = i64::try_from(from).map_err(|_| Errno::ENXIO)?;
            let whence = if data { Host::SeekData } else { Host::SeekHole };
            // The descriptor's own position is nobody's: reads and writes say theirs.
            lseek(self.donated.fd(), from, whence).map(i64::cast_unsigned).map_err(errno)
        };
        seek_regular(self.donated.size()?, current, offset, whence, find)
    }

    fn mappable(&self, _file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(Arc::new(GoferMapping::new(self.inode.clone(), self.donated.clone())))
    }

    fn truncate(&self, _file: &FileDescription, size: u64) -> Result<(), Errno> {
        self.inode.set_attr(&SetAttr { size: Some(size), ..SetAttr::default() })
    }

    fn allocate(&self, _file: &FileDescription, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        self.inode.ask(Request::Allocate { node: self.inode.node(), mode, offset, len })?;
        if mode & !KEEP_SIZE != 0 {
            // Content moved or went away under those who map it.
            self.inode.mappings.invalidate_from(offset);
        }
        Ok(())
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        self.inode.ask(Request::Sync { node: self.inode.node(), data_only: false }).map(|_| ())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
