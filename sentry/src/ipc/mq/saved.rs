//! POSIX message queues and waiting calls as saved state.

use std::sync::Arc;

use abi::UserAddr;
use serde::{Deserialize, Serialize};

use super::{MessageQueue, PRIO_MAX, ReceiveOp, Registration, SendOp, State};
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::ipc::saved::Messages;
use crate::kernel::op::Op;
use crate::kernel::thread_group::saved::ThreadGroupState;
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};
use crate::vfs::saved::FileState;

/// [`Registration`].
#[derive(Serialize, Deserialize)]
struct RegistrationState {
    group: Id<ThreadGroupState>,
    signal: (i32, u64),
    uid: u32,
}

/// [`MessageQueue`].
#[derive(Serialize, Deserialize)]
pub struct MqState {
    max: usize,
    size: usize,
    owner: (u32, u32, u32),
    /// Of rising priority, each in order.
    messages: Vec<(u32, Bytes)>,
    notify: Option<RegistrationState>,
}

impl Object for MessageQueue {
    type State = MqState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<MqState, Refused> {
        let MessageQueue { max, size, owner, state, queue: _ } = &**self;
        let state = state.lock();
        // Receivers are counted again when they are restored.
        let State { messages, count: _, bytes: _, receivers: _, notify } = &*state;
        let all =
            messages.iter().flat_map(|(priority, list)| list.iter().map(|text| (*priority, Bytes(text.to_vec()))));
        let notify = notify.as_ref().and_then(|Registration { group, signal, uid }| {
            Some(RegistrationState { group: saver.groups.id(&group.upgrade()?), signal: *signal, uid: *uid })
        });
        Ok(MqState { max: *max, size: *size, owner: *owner, messages: all.collect(), notify })
    }
}

impl MqState {
    /// The queue.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<MessageQueue>, Unusable> {
        let MqState { max, size, owner, messages, notify } = self;
        let fits = messages.iter().all(|(priority, text)| *priority < PRIO_MAX && text.0.len() <= size);
        if messages.len() > max || !fits {
            return Err(Unusable::Corrupt("a message queue"));
        }
        let (count, bytes) = (messages.len(), messages.iter().map(|(_, text)| text.0.len()).sum());
        let mut by_priority = Messages::new();
        for (priority, text) in messages {
            by_priority.entry(priority).or_default().push_back(text.0.into());
        }
        let state = State { messages: by_priority, count, bytes, receivers: 0, notify: None };
        let queue =
            Arc::new(MessageQueue { max, size, owner, state: Mutex::new(Level::Leaf, state), queue: WaitQueue::new() });
        if let Some(RegistrationState { group, signal, uid }) = notify {
            let linked = queue.clone();
            restorer.later.push(Box::new(move |restorer| {
                let group = Arc::downgrade(&restorer.group(group)?);
                linked.state.lock().notify = Some(Registration { group, signal, uid });
                Ok(())
            }));
        }
        Ok(queue)
    }
}

/// [`SendOp`].
#[derive(Serialize, Deserialize)]
pub struct MqSendState {
    file: Id<FileState>,
    queue: Id<MqState>,
    text: Bytes,
    priority: u32,
    deadline: Option<i64>,
}

impl SendOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> MqSendState {
        let SendOp { file, queue, message: (text, priority), deadline } = self;
        let (file, queue) = (saver.files.id(file), saver.mqs.id(queue));
        MqSendState { file, queue, text: Bytes(text.to_vec()), priority: *priority, deadline: *deadline }
    }
}

impl MqSendState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let MqSendState { file, queue, text, priority, deadline } = self;
        let (file, queue) = (restorer.file(file)?, restorer.mq(queue)?);
        if text.0.len() > queue.size || priority >= PRIO_MAX {
            return Err(Unusable::Corrupt("a message on its way"));
        }
        Ok(Box::new(SendOp { file, queue, message: (text.0.into(), priority), deadline }))
    }
}

/// [`ReceiveOp`].
#[derive(Serialize, Deserialize)]
pub struct MqReceiveState {
    file: Id<FileState>,
    queue: Id<MqState>,
    to: (UserAddr, UserAddr),
    deadline: Option<i64>,
    waiting: bool,
}

impl ReceiveOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> MqReceiveState {
        let ReceiveOp { file, queue, to, deadline, waiting } = self;
        let (file, queue) = (saver.files.id(file), saver.mqs.id(queue));
        MqReceiveState { file, queue, to: *to, deadline: *deadline, waiting: *waiting }
    }
}

impl MqReceiveState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let MqReceiveState { file, queue, to, deadline, waiting } = self;
        let (file, queue) = (restorer.file(file)?, restorer.mq(queue)?);
        if waiting {
            queue.state.lock().receivers += 1;
        }
        Ok(Box::new(ReceiveOp { file, queue, to, deadline, waiting }))
    }
}
