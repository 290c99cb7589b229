//! A file that is no more: what an open place in the directory of a process leads to once the process has gone.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;

use crate::vfs::anon::default_attr;
use crate::vfs::{Attr, Caller, FileOps, Inode, OpenFlags, StatFs};

/// Nothing: every use is `ESRCH`.
pub struct Gone;

impl Inode for Gone {
    fn attr(&self) -> Attr {
        Attr { nlink: 0, ..default_attr() }
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ESRCH)
    }

    fn statfs(&self) -> StatFs {
        StatFs::default()
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
