//! Descriptors of regular files that the gofer has donated.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::Errno;
use memory::{FileKind, FrameFile};
use nix::sys::stat::{FileStat, fstat};

use super::{GoferFs, GoferInode};
use crate::sync::{Level, Mutex};

/// Smallest mapping of a donated file, so that a growing one is seldom mapped anew.
const MIN_MAP: u64 = 1 << 20;

pub fn errno(e: nix::errno::Errno) -> Errno {
    Errno::from_raw(e as i32)
}

/// A donated descriptor, shared by all that have the file open, and its pages.
pub struct Donated {
    fs: Arc<GoferFs>,
    inode: Weak<GoferInode>,
    fd: Arc<OwnedFd>,
    /// Whether it was opened for writing too.
    pub writable: bool,
    frames: Mutex<Option<Arc<FrameFile>>>,
}

impl Donated {
    /// Takes `fd` in.
    ///
    /// # Errors
    /// `ENFILE` past the limit on descriptors.
    pub fn new(
        fs: &Arc<GoferFs>,
        inode: &Arc<GoferInode>,
        fd: Arc<OwnedFd>,
        writable: bool,
    ) -> Result<Arc<Self>, Errno> {
        fs.charge_fd()?;
        let frames = Mutex::new(Level::Leaf, None);
        Ok(Arc::new(Donated { fs: fs.clone(), inode: Arc::downgrade(inode), fd, writable, frames }))
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What the host says of the file now.
    pub fn stat(&self) -> Result<FileStat, Errno> {
        fstat(&*self.fd).map_err(errno)
    }

    pub fn size(&self) -> Result<u64, Errno> {
        Ok(self.stat()?.st_size.max(0).cast_unsigned())
    }

    /// The file's pages, as a mapping that reaches to `end` at least. Pages past the file's end may be mapped; nobody
    /// is given them.
    pub fn frames(&self, end: u64) -> Result<Arc<FrameFile>, Errno> {
        let mut frames = self.frames.lock();
        if let Some(file) = frames.as_ref().filter(|f| f.size() >= end) {
            return Ok(file.clone());
        }
        let len = end.max(MIN_MAP).checked_next_power_of_two().ok_or(Errno::EFBIG)?;
        // The mapping keeps a descriptor of its own, which stubs map too.
        let fd = self.fd.try_clone()?;
        let file = FrameFile::map(FileKind::Donated, Some(fd), len, self.writable)?;
        *frames = Some(file.clone());
        Ok(file)
    }
}

impl Drop for Donated {
    fn drop(&mut self) {
        if let (Some(inode), Ok(stat)) = (self.inode.upgrade(), self.stat()) {
            inode.note(&stat);
        }
        self.fs.uncharge_fd();
    }
}
