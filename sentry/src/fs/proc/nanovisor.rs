//! `/proc/nanovisor`: what a program may ask of the sandbox itself.
//!
//! `checkpoint`: a write says that the program is ready. Where a checkpoint is wanted it is made now, and the write
//! returns when it is there, in the sandbox restored from it as well; where none is wanted it returns at once. A read
//! says which of the two this is: `original UUID` or `restored UUID`.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::Errno;

use super::Proc;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::service::CheckpointOp;
use crate::checkpoint::{Refused, Saver};
use crate::fs::pseudo::{PseudoFs, fixed_dir};
use crate::kernel::Kernel;
use crate::kernel::op::Op;
use crate::vfs::{
    Attr, Caller, FileDescription, FileOps, FileType, Inode, IoCursor, IoSink, OpenFlags, SetAttr, StatFs, Whence,
};

struct CheckpointNode {
    fs: Arc<PseudoFs>,
    attr: Attr,
    kernel: Weak<Kernel>,
}

/// The directory.
pub(super) fn directory(proc: &Proc) -> Arc<dyn Inode> {
    let attr = proc.fs.attr(proc.fs.new_key(), FileType::Regular, 0o600);
    let checkpoint = CheckpointNode { fs: proc.fs.clone(), attr, kernel: proc.kernel.clone() };
    fixed_dir(&proc.fs, vec![("checkpoint", Arc::new(checkpoint))])
}

impl Inode for CheckpointNode {
    fn attr(&self) -> Attr {
        self.attr
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        // `echo ready > ...` truncates first.
        let only_size = SetAttr { size: change.size, ..SetAttr::default() };
        if *change == only_size { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(CheckpointFile { kernel: self.kernel.clone() }))
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The file, open.
pub struct CheckpointFile {
    kernel: Weak<Kernel>,
}

impl CheckpointFile {
    /// As a restore opens it again.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Self {
        CheckpointFile { kernel: Arc::downgrade(kernel) }
    }
}

impl FileOps for CheckpointFile {
    fn save(&self, _file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Checkpoint)
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let text = self.kernel.upgrade().ok_or(Errno::EIO)?.checkpoints.describe();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        text.as_bytes().get(from..).map_or(Ok(0), |rest| dst.put(rest))
    }

    fn transfer_op(&self, _file: &Arc<FileDescription>, cursor: &IoCursor, write: bool) -> Option<Box<dyn Op>> {
        write.then(|| Box::new(CheckpointOp::new(cursor.remaining() as u64)) as Box<dyn Op>)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            _ => return Err(Errno::EINVAL),
        };
        base.checked_add_signed(offset).ok_or(Errno::EINVAL)
    }

    fn truncate(&self, _file: &FileDescription, _size: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
