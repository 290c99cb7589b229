//! POSIX message queues (`ipc/mqueue.c`).

pub mod saved;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::{Errno, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{Attempt, Op};
use crate::kernel::signal::{SigInfo, send_to_group};
use crate::kernel::task::CurrentTask;
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FileDescription, FileOps, IoSink};

/// Most queues (`fs.mqueue.queues_max`).
pub const QUEUES_MAX: usize = 256;
/// Highest priority, and one (`MQ_PRIO_MAX`).
pub const PRIO_MAX: u32 = 32768;
/// `si_code` of a notification.
const SI_MESGQ: i32 = -3;

/// Who is told of the next message.
#[derive(Clone)]
pub struct Registration {
    /// The process.
    pub group: Weak<ThreadGroup>,
    /// The signal, 0 for none, and its value.
    pub signal: (i32, u64),
    /// Who is told to have sent it.
    pub uid: u32,
}

#[derive(Default)]
struct State {
    /// Messages by priority, each in order.
    messages: BTreeMap<u32, VecDeque<Arc<[u8]>>>,
    count: usize,
    bytes: usize,
    receivers: usize,
    notify: Option<Registration>,
}

/// A queue.
pub struct MessageQueue {
    /// Most messages.
    pub max: usize,
    /// Longest message.
    pub size: usize,
    /// Owner, group, permission bits.
    pub owner: (u32, u32, u32),
    state: Mutex<State>,
    queue: WaitQueue,
}

impl MessageQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(max: usize, size: usize, owner: (u32, u32, u32)) -> Arc<Self> {
        let state = Mutex::new(Level::Leaf, State::default());
        Arc::new(MessageQueue { max, size, owner, state, queue: WaitQueue::new() })
    }

    /// Bytes that it may come to hold, as RLIMIT_MSGQUEUE counts them.
    #[must_use]
    pub fn charge(&self) -> u64 {
        // A `struct msg_msg` and a tree node a message.
        (self.max as u64).saturating_mul(self.size as u64 + 48 + 48)
    }

    /// Messages in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().count
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Registers a process for the next message, or takes the registration of `group` back.
    ///
    /// # Errors
    /// `EBUSY` where another process is registered.
    pub fn register(&self, group: &Arc<ThreadGroup>, new: Option<Registration>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let holder = state.notify.as_ref().and_then(|r| r.group.upgrade());
        match new {
            Some(_) if holder.is_some() => Err(Errno::EBUSY),
            Some(registration) => {
                state.notify = Some(registration);
                Ok(())
            }
            None => {
                if holder.is_some_and(|h| Arc::ptr_eq(&h, group)) {
                    state.notify = None;
                }
                Ok(())
            }
        }
    }

    fn push(&self, text: &Arc<[u8]>, priority: u32, sender: i32) -> bool {
        let told = {
            let mut state = self.state.lock();
            if state.count >= self.max {
                return false;
            }
            let was_empty = state.count == 0;
            state.messages.entry(priority).or_default().push_back(text.clone());
            state.count += 1;
            state.bytes += text.len();
            if was_empty && state.receivers == 0 { state.notify.take() } else { None }
        };
        self.queue.wake(Events::READABLE);
        if let Some(told) = told
            && let (Some(group), signo) = (told.group.upgrade(), told.signal.0)
            && signo != 0
        {
            let mut info = SigInfo::user(signo, SI_MESGQ, sender, told.uid);
            info.fields[8..16].copy_from_slice(&told.signal.1.to_le_bytes());
            // A full queue loses it, as in Linux.
            let _ = send_to_group(&group, info);
        }
        true
    }

    fn pop(&self) -> Option<(Arc<[u8]>, u32)> {
        let message = {
            let mut state = self.state.lock();
            let (priority, list) = state.messages.iter_mut().next_back().map(|(p, l)| (*p, l))?;
            let text = list.pop_front()?;
            if list.is_empty() {
                state.messages.remove(&priority);
            }
            state.count -= 1;
            state.bytes -= text.len();
            (text, priority)
        };
        self.queue.wake(Events::WRITABLE);
        Some(message)
    }
}

/// An open queue.
pub struct QueueFile(pub Arc<MessageQueue>);

impl FileOps for QueueFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let QueueFile(queue) = self;
        Ok(OpsState::MessageQueue(saver.mqs.id(queue)))
    }

    /// What mq_overview(7) shows of `/dev/mqueue/NAME`.
    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let text = {
            let state = self.0.state.lock();
            let (signo, pid) =
                state.notify.as_ref().map_or((0, 0), |r| (r.signal.0, r.group.upgrade().map_or(0, |g| g.tgid.0)));
            let bytes = state.bytes;
            format!("QSIZE:{bytes:<10} NOTIFY:0     SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n")
        };
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        dst.put(&text.as_bytes()[at..])
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        let count = self.0.len();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::READABLE;
        }
        if count < self.0.max {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "/dev/mqueue".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// `mq_timedsend(3)`.
pub struct SendOp {
    /// The open queue.
    pub file: Arc<FileDescription>,
    /// Its queue.
    pub queue: Arc<MessageQueue>,
    /// The message and its priority.
    pub message: (Arc<[u8]>, u32),
    /// When to give up, monotonic.
    pub deadline: Option<i64>,
}

impl Op for SendOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if self.queue.push(&self.message.0, self.message.1, cx.task.group.tgid.0) {
            return Attempt::Done(Ok(0));
        }
        if self.file.is_nonblocking() { Attempt::Done(Err(Errno::EAGAIN)) } else { Attempt::Pending }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.queue.queue.enlist(Events::WRITABLE, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ETIMEDOUT)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::MqSend(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "mq_timedsend"
    }
}

/// `mq_timedreceive(3)`.
pub struct ReceiveOp {
    /// The open queue.
    pub file: Arc<FileDescription>,
    /// Its queue.
    pub queue: Arc<MessageQueue>,
    /// Where the text and the priority go.
    pub to: (UserAddr, UserAddr),
    /// When to give up, monotonic.
    pub deadline: Option<i64>,
    /// Counted among those who wait.
    pub waiting: bool,
}

impl ReceiveOp {
    fn deliver(&self, cx: &CurrentTask<'_>, text: &[u8], priority: u32) -> Result<u64, Errno> {
        let mm = cx.mm()?;
        mm.write_bytes(self.to.0, text)?;
        if !self.to.1.is_null() {
            mm.write_obj(self.to.1, &priority)?;
        }
        Ok(text.len() as u64)
    }
}

impl Op for ReceiveOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if let Some((text, priority)) = self.queue.pop() {
            return Attempt::Done(self.deliver(cx, &text, priority));
        }
        if self.file.is_nonblocking() {
            return Attempt::Done(Err(Errno::EAGAIN));
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.queue.state.lock().receivers += 1;
        }
        Attempt::Pending
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.queue.queue.enlist(Events::READABLE, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ETIMEDOUT)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::MqReceive(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "mq_timedreceive"
    }
}

impl Drop for ReceiveOp {
    fn drop(&mut self) {
        if self.waiting {
            self.queue.state.lock().receivers -= 1;
        }
    }
}
