//! Message queues and waiting calls as saved state.

use std::sync::Arc;

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::{MAX_CAPACITY, MSGMAX, Message, Queue, ReceiveOp, SendOp, State};
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::ipc::ids::Perm;
use crate::kernel::op::Op;
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};

type Saved = (i64, Bytes);

fn save(Message { kind, text }: &Message) -> Saved {
    (*kind, Bytes(text.to_vec()))
}

fn message((kind, text): Saved) -> Result<Message, Unusable> {
    if kind < 1 || text.0.len() > MSGMAX {
        return Err(Unusable::Corrupt("a message"));
    }
    Ok(Message { kind, text: text.0.into() })
}

/// [`Queue`].
#[derive(Serialize, Deserialize)]
pub struct MsgState {
    id: i32,
    perm: Perm,
    messages: Vec<Saved>,
    capacity: u64,
    times: [i64; 3],
    last: [i32; 2],
    removed: bool,
}

impl Object for Queue {
    type State = MsgState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<MsgState, Refused> {
        let Queue { id, state, queue: _ } = &**self;
        let state = state.lock();
        let State { perm, messages, bytes: _, capacity, stime, rtime, ctime, lspid, lrpid, removed } = &*state;
        Ok(MsgState {
            id: *id,
            perm: *perm,
            messages: messages.iter().map(save).collect(),
            capacity: *capacity,
            times: [*stime, *rtime, *ctime],
            last: [*lspid, *lrpid],
            removed: *removed,
        })
    }
}

impl MsgState {
    /// The queue.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<Arc<Queue>, Unusable> {
        let MsgState { id, perm, messages, capacity, times: [stime, rtime, ctime], last: [lspid, lrpid], removed } =
            self;
        if capacity > MAX_CAPACITY {
            return Err(Unusable::Corrupt("a message queue"));
        }
        let messages = messages.into_iter().map(message).collect::<Result<std::collections::VecDeque<_>, _>>()?;
        let bytes = messages.iter().map(|m| m.text.len() as u64).sum();
        let state = State { perm, messages, bytes, capacity, stime, rtime, ctime, lspid, lrpid, removed };
        Ok(Arc::new(Queue { id, state: Mutex::new(Level::Leaf, state), queue: WaitQueue::new() }))
    }
}

/// [`SendOp`].
#[derive(Serialize, Deserialize)]
pub struct MsgSendState {
    queue: Id<MsgState>,
    message: Saved,
    flags: u32,
}

impl SendOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> MsgSendState {
        let SendOp { queue, message, flags } = self;
        MsgSendState { queue: saver.msg_queues.id(queue), message: save(message), flags: *flags }
    }
}

impl MsgSendState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let (queue, message) = (restorer.msg_queue(self.queue)?, message(self.message)?);
        Ok(Box::new(SendOp { queue, message, flags: self.flags }))
    }
}

/// [`ReceiveOp`].
#[derive(Serialize, Deserialize)]
pub struct MsgReceiveState {
    queue: Id<MsgState>,
    to: UserAddr,
    size: usize,
    wanted: i64,
    flags: u32,
}

impl ReceiveOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> MsgReceiveState {
        let ReceiveOp { queue, to, size, wanted, flags } = self;
        MsgReceiveState { queue: saver.msg_queues.id(queue), to: *to, size: *size, wanted: *wanted, flags: *flags }
    }
}

impl MsgReceiveState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let MsgReceiveState { queue, to, size, wanted, flags } = self;
        Ok(Box::new(ReceiveOp { queue: restorer.msg_queue(queue)?, to, size, wanted, flags }))
    }
}
