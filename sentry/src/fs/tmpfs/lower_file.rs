//! An open file of the overlay that was opened for reading while it still was as it is below.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;

use super::Node;
use super::file::seek_regular;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::mm::mappable::Mappable;
use crate::vfs::{Attr, FileDescription, FileOps, Inode, IoSink, Whence};

/// Reads the file below until somebody changes the file, and what they made of it from then on. (Linux's overlayfs
/// goes on with the file below; programs that follow a log file are better off so.)
pub struct LowerFile {
    /// The inode.
    pub node: Arc<Node>,
    /// The file below.
    pub lower: Arc<dyn FileOps>,
}

impl FileOps for LowerFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let LowerFile { node, lower: _ } = self;
        Ok(OpsState::Lower(saver.nodes.id(node)))
    }

    fn read(&self, file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        match self.node.content.get() {
            Some(content) => content.read_at(dst, offset),
            None => self.lower.read(file, dst, offset),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        match self.node.content.get() {
            Some(c) => seek_regular(c.size(), current, offset, whence, |from, data| c.seek(from, data)),
            None => self.lower.seek(file, current, offset, whence),
        }
    }

    fn mappable(&self, file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        match self.node.content.get() {
            Some(content) => Ok(content.clone()),
            None => self.lower.mappable(file),
        }
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
