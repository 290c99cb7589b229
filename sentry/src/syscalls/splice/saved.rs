//! Transfers under way as saved state.

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::{MoveOp, Side, TeeOp};
use crate::checkpoint::{Id, Restorer, Saver, Unusable};
use crate::kernel::op::Op;

use crate::vfs::io::MAX_RW_COUNT;
use crate::vfs::saved::FileState;

#[derive(Serialize, Deserialize)]
struct SideState {
    file: Id<FileState>,
    offset: Option<(u64, UserAddr)>,
}

/// `MoveOp`, of `tee` as well.
#[derive(Serialize, Deserialize)]
pub struct MoveState {
    from: SideState,
    to: SideState,
    left: usize,
    done: usize,
    eager: bool,
    nonblocking: (bool, bool),
    copy: bool,
    file_limit: u64,
}

impl Side {
    fn state(&self, saver: &mut Saver) -> SideState {
        let Side { file, offset } = self;
        SideState { file: saver.files.id(file), offset: *offset }
    }
}

impl SideState {
    fn restore(self, restorer: &mut Restorer) -> Result<Side, Unusable> {
        Ok(Side { file: restorer.file(self.file)?, offset: self.offset })
    }
}

impl MoveOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> MoveState {
        let MoveOp { from, to, left, done, eager, nonblocking_from, nonblocking_to, copy, file_limit } = self;
        MoveState {
            from: from.state(saver),
            to: to.state(saver),
            left: *left,
            done: *done,
            eager: *eager,
            nonblocking: (*nonblocking_from, *nonblocking_to),
            copy: *copy,
            file_limit: *file_limit,
        }
    }
}

impl MoveState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let MoveState { from, to, left, done, eager, nonblocking, copy, file_limit } = self;
        if left > MAX_RW_COUNT || done > MAX_RW_COUNT {
            return Err(Unusable::Corrupt("a transfer"));
        }
        let (from, to) = (from.restore(restorer)?, to.restore(restorer)?);
        let (nonblocking_from, nonblocking_to) = nonblocking;
        let op = MoveOp { from, to, left, done, eager, nonblocking_from, nonblocking_to, copy, file_limit };
        Ok(if copy { Box::new(TeeOp(op)) } else { Box::new(op) })
    }
}
