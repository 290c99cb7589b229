//! Waiting calls as saved state: one variant a kind of [`Op`]. What a variant holds stands beside the Op.

use std::sync::Arc;

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use crate::checkpoint::service::CheckpointOp;
use crate::checkpoint::{Id, Restorer, Unusable};
use crate::fs::pipe::fifo::OpenState;
use crate::fs::signalfd;
use crate::fs::tty::transfer::TtyTransfer;
use crate::ipc::saved::{MqReceiveState, MqSendState, MsgReceiveState, MsgSendState, SemOpState};
use crate::kernel::clone;
use crate::kernel::futex::pi::saved::PiState;
use crate::kernel::futex::wait::FutexState;
use crate::kernel::op::Op;
use crate::kernel::signal::SigSet;
use crate::kernel::task::Task;
use crate::kernel::thread_group::saved::VforkState;
use crate::syscalls::epoll::EpollWaitState;
use crate::syscalls::fs_lock::LockState;
use crate::syscalls::poll::PollState;
use crate::syscalls::read_write::TransferState;
use crate::syscalls::socket::message::saved::{ManyState, RecvState, SendState};
use crate::syscalls::socket::setup::saved::{AcceptState, ConnectState};
use crate::syscalls::splice::saved::MoveState;
use crate::syscalls::time::SleepState;
use crate::syscalls::wait::WaitState;
use crate::syscalls::{membarrier, signal};
use crate::vfs::IoCursor;
use crate::vfs::saved::FileState;

/// A call that waits.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the Ops, fields as theirs")]
pub enum OpState {
    Transfer(TransferState),
    Poll(PollState),
    Wait(WaitState),
    Suspend,
    SigWait { set: SigSet, info: UserAddr, deadline: Option<i64> },
    EpollWait(EpollWaitState),
    Sleep(SleepState),
    Futex(FutexState),
    Vfork { done: Id<VforkState>, answer: u64 },
    Barrier,
    SignalRead { file: Id<FileState>, cursor: IoCursor },
    Send(SendState),
    Recv(RecvState),
    Connect(ConnectState),
    Accept(AcceptState),
    OpenFifo(OpenState),
    Lock(LockState),
    Terminal(TtyTransfer),
    Move(MoveState),
    Many(ManyState),
    PiLock(PiState),
    Sem(SemOpState),
    MsgSend(MsgSendState),
    MsgReceive(MsgReceiveState),
    MqSend(MqSendState),
    MqReceive(MqReceiveState),
    Checkpoint { len: u64 },
}

impl OpState {
    /// The call of `task`.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, task: &Arc<Task>, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        Ok(match self {
            OpState::Transfer(state) => state.restore(restorer)?,
            OpState::Poll(state) => state.restore(restorer)?,
            OpState::Wait(state) => state.restore(restorer)?,
            OpState::Suspend => signal::restored_suspend(),
            OpState::SigWait { set, info, deadline } => signal::restored_sigwait(set, info, deadline),
            OpState::EpollWait(state) => state.restore(restorer)?,
            OpState::Sleep(state) => state.restore(restorer)?,
            OpState::Futex(state) => state.restore(task, restorer)?,
            OpState::Vfork { done, answer } => clone::restored_vfork(restorer.vfork(done)?, answer),
            OpState::Barrier => membarrier::restored(&restorer.kernel),
            OpState::SignalRead { file, cursor } => {
                let cursor = cursor.checked().ok_or(Unusable::Corrupt("a read"))?;
                signalfd::restored_read(restorer.file(file)?, cursor)
            }
            OpState::Send(state) => state.restore(restorer)?,
            OpState::Recv(state) => state.restore(restorer)?,
            OpState::Connect(state) => state.restore(restorer)?,
            OpState::Accept(state) => state.restore(restorer)?,
            OpState::OpenFifo(state) => state.restore(restorer)?,
            OpState::Lock(state) => state.restore(restorer)?,
            OpState::Terminal(state) => state.restore(task, restorer)?,
            OpState::Move(state) => state.restore(restorer)?,
            OpState::Many(state) => state.restore(restorer)?,
            OpState::PiLock(state) => state.restore(task, restorer)?,
            OpState::Sem(state) => state.restore(restorer)?,
            OpState::MsgSend(state) => state.restore(restorer)?,
            OpState::MsgReceive(state) => state.restore(restorer)?,
            OpState::MqSend(state) => state.restore(restorer)?,
            OpState::MqReceive(state) => state.restore(restorer)?,
            OpState::Checkpoint { len } => Box::new(CheckpointOp::restored(&restorer.kernel, len)),
        })
    }
}
