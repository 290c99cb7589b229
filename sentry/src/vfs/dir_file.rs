//! Open directories, and what O_PATH descriptors are.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::vfs::caller::Caller;
use crate::vfs::file::{FileDescription, FileOps, Whence};
use crate::vfs::inode::{DirEntry, Inode};
use crate::vfs::io::{IoSink, IoSource};

/// An open directory of any file system.
pub struct DirFile {
    inode: Arc<dyn Inode>,
}

impl DirFile {
    /// Opens `inode`, which must be a directory for listings to work.
    #[must_use]
    pub fn new(inode: Arc<dyn Inode>) -> Arc<Self> {
        Arc::new(DirFile { inode })
    }
}

impl FileOps for DirFile {
    fn save(&self, file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let DirFile { inode: _ } = self;
        Ok(OpsState::Directory(OpsState::path_of(file, saver)?))
    }

    fn read(&self, _file: &FileDescription, _dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn write(&self, _file: &FileDescription, _src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            Whence::End | Whence::Data | Whence::Hole => return Err(Errno::EINVAL),
        };
        let at = base.checked_add_signed(offset).ok_or(Errno::EINVAL)?;
        if i64::try_from(at).is_err() { Err(Errno::EINVAL) } else { Ok(at) }
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        Ok(())
    }

    fn list(&self, caller: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        self.inode.dir().ok_or(Errno::ENOTDIR)?.list(caller, from, emit)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A place, not an open file (`O_PATH`): every operation on the content is `EBADF`.
pub struct PathFile;

impl FileOps for PathFile {
    fn save(&self, _file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Path)
    }

    fn read(&self, _file: &FileDescription, _dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }

    fn write(&self, _file: &FileDescription, _src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }

    fn sync(&self, _file: &FileDescription) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
