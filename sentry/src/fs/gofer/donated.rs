//! Descriptors of regular files that the gofer has donated.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use memory::{FileKind, Frame, FrameFile};
use nix::sys::stat::{FileStat, fstat};

use super::{GoferFs, GoferInode};
use crate::kernel::io_pool::{Content, Fetch};
use crate::sync::{Level, Mutex};

/// Smallest mapping of a donated file, so that a growing one is seldom mapped anew.
const MIN_MAP: u64 = 1 << 20;
/// Most bytes that are fetched for one wait.
const MAX_FETCH: u64 = 4 << 20;
/// Bytes that a fetch reads at once.
const BRING: usize = 256 << 10;

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
    /// The host does not say what is in memory: reads wait.
    cannot_tell: AtomicBool,
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
        Ok(Arc::new(Donated {
            fs: fs.clone(),
            inode: Arc::downgrade(inode),
            fd,
            writable,
            frames,
            cannot_tell: AtomicBool::new(false),
        }))
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads into `dst`; `cached` for what is in memory alone: then `None` is that nothing is.
    pub fn read(&self, dst: &mut [u8], at: u64, cached: bool) -> Result<Option<usize>, Errno> {
        self.told(cached, |cached| memory::copy::read_cached(self.fd.as_fd(), at, dst, cached))
    }

    /// Reads into guest memory what is in the host's.
    pub fn read_to(&self, to: &Frame, len: usize, at: u64) -> Result<Option<usize>, Errno> {
        self.told(true, |cached| to.file.read_file(to.offset, self.fd.as_fd(), at, len, cached))
    }

    /// Not all file systems can tell what is in memory.
    fn told(
        &self,
        cached: bool,
        mut read: impl FnMut(bool) -> std::io::Result<Option<usize>>,
    ) -> Result<Option<usize>, Errno> {
        let cached = cached && !self.cannot_tell.load(Ordering::Relaxed);
        match read(cached) {
            Err(e) if cached && e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.cannot_tell.store(true, Ordering::Relaxed);
                read(false).map_err(Errno::from)
            }
            other => other.map_err(Errno::from),
        }
    }

    /// Brings content into the host's memory, on a thread that may wait for it.
    pub fn fetch(self: &Arc<Self>, at: u64, len: usize) -> Arc<Fetch> {
        self.fs.io.fetch(self.clone(), at, (len as u64).min(MAX_FETCH))
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

impl Content for Donated {
    fn bring(&self, offset: u64, len: u64) {
        let mut buf = vec![0u8; BRING];
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            // Whoever waits for it reads it, and hears of errors.
            match memory::copy::read_cached(self.fd.as_fd(), at, &mut buf, false) {
                Ok(Some(n)) if n > 0 => at += n as u64,
                _ => return,
            }
        }
    }
}

impl Drop for Donated {
    fn drop(&mut self) {
        if let (Some(inode), Ok(stat)) = (self.inode.upgrade(), self.stat()) {
            inode.note(&stat);
            inode.note_change();
        }
        self.fs.uncharge_fd();
    }
}
