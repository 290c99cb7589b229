//! Waits for priority-inheriting futexes as saved state.

use std::sync::Arc;

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::LockOp;
use crate::checkpoint::{Restorer, Saver, Unusable};
use crate::kernel::futex::saved::WaiterState;
use crate::kernel::op::Op;
use crate::kernel::task::Task;

/// `LockOp`.
#[derive(Serialize, Deserialize)]
pub struct PiState {
    addr: UserAddr,
    private: bool,
    try_only: bool,
    deadline: Option<i64>,
    waiter: Option<WaiterState>,
}

impl LockOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> PiState {
        let LockOp { addr, private, try_only, deadline, waiter, kernel: _ } = self;
        let waiter = waiter.as_ref().map(|waiter| waiter.save(&saver.kernel));
        PiState { addr: *addr, private: *private, try_only: *try_only, deadline: *deadline, waiter }
    }
}

impl PiState {
    /// The call of `task`.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, task: &Arc<Task>, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let PiState { addr, private, try_only, deadline, waiter } = self;
        let waiter = waiter.map(|waiter| waiter.restore(task, restorer)).transpose()?;
        Ok(Box::new(LockOp { addr, private, try_only, deadline, waiter, kernel: restorer.kernel.clone() }))
    }
}
