//! Message queues (`ipc/msg.c`).

pub mod saved;

use std::collections::VecDeque;
use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::ipc::IPC_NOWAIT;
use crate::ipc::ids::Perm;
use crate::kernel::Kernel;
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::sync::{Level, Mutex};

/// Longest message (`MSGMAX`).
pub const MSGMAX: usize = 8192;
/// A queue's capacity, bytes (`MSGMNB`).
pub const MSGMNB: u64 = 16384;
/// Most queues. Linux allows 32,000 and charges them to the memory cgroup.
pub const MSGMNI: usize = 1024;
/// Highest capacity that IPC_SET may give, for the same reason.
pub const MAX_CAPACITY: u64 = 1 << 20;
/// `MSG_NOERROR`.
pub const MSG_NOERROR: u32 = 0o10000;
/// `MSG_EXCEPT`.
pub const MSG_EXCEPT: u32 = 0o20000;
/// `MSG_COPY`.
pub const MSG_COPY: u32 = 0o40000;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Type, positive.
    pub kind: i64,
    /// Text.
    pub text: Arc<[u8]>,
}

/// What changes in a queue.
#[derive(Default)]
pub struct State {
    /// Owner and mode.
    pub perm: Perm,
    messages: VecDeque<Message>,
    /// Bytes in it.
    pub bytes: u64,
    /// Its capacity.
    pub capacity: u64,
    /// Last `msgsnd`, seconds.
    pub stime: i64,
    /// Last `msgrcv`.
    pub rtime: i64,
    /// Last change.
    pub ctime: i64,
    /// Who sent last.
    pub lspid: i32,
    /// Who received last.
    pub lrpid: i32,
    removed: bool,
}

impl State {
    /// Messages in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// A queue.
pub struct Queue {
    /// Its id.
    pub id: i32,
    /// The rest.
    pub state: Mutex<State>,
    queue: WaitQueue,
}

fn seconds(kernel: &Kernel) -> i64 {
    kernel.clock.realtime() / 1_000_000_000
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(kernel: &Kernel, id: i32, perm: Perm) -> Arc<Self> {
        let state = State { perm, capacity: MSGMNB, ctime: seconds(kernel), ..State::default() };
        Arc::new(Queue { id, state: Mutex::new(Level::Leaf, state), queue: WaitQueue::new() })
    }

    /// IPC_RMID: those who wait hear of it.
    pub fn mark_removed(&self) {
        self.state.lock().removed = true;
        self.queue.wake(Events::all());
    }

    /// Its capacity has changed.
    pub fn resized(&self) {
        self.queue.wake(Events::all());
    }
}

/// `msgsnd(2)`.
pub struct SendOp {
    /// Where to.
    pub queue: Arc<Queue>,
    /// What.
    pub message: Message,
    /// `IPC_NOWAIT`.
    pub flags: u32,
}

impl SendOp {
    fn step(&self, cx: &CurrentTask<'_>) -> Result<Option<u64>, Errno> {
        {
            let creds = cx.creds();
            let mut state = self.queue.state.lock();
            if state.removed {
                return Err(Errno::EIDRM);
            }
            state.perm.check(&creds, 0o222)?;
            let len = self.message.text.len() as u64;
            if state.bytes + len > state.capacity || state.len() as u64 + 1 > state.capacity {
                return if self.flags & IPC_NOWAIT != 0 { Err(Errno::EAGAIN) } else { Ok(None) };
            }
            state.bytes += len;
            state.messages.push_back(self.message.clone());
            state.lspid = cx.task.group.tgid.0;
            state.stime = seconds(cx.kernel());
        }
        self.queue.queue.wake(Events::READABLE);
        Ok(Some(0))
    }
}

impl Op for SendOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        self.step(cx).transpose().map_or(Attempt::Pending, Attempt::Done)
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.queue.queue.enlist(Events::WRITABLE, cx.waiter())]
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ERESTARTNOHAND)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::MsgSend(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "msgsnd"
    }
}

/// `msgrcv(2)`.
pub struct ReceiveOp {
    /// Where from.
    pub queue: Arc<Queue>,
    /// `struct msgbuf`.
    pub to: UserAddr,
    /// Room for text.
    pub size: usize,
    /// Which: 0 the first, positive that type, negative the lowest up to it; an index with MSG_COPY.
    pub wanted: i64,
    /// `IPC_NOWAIT`, `MSG_*`.
    pub flags: u32,
}

impl ReceiveOp {
    fn choose(&self, messages: &VecDeque<Message>) -> Option<usize> {
        let wanted = self.wanted;
        if self.flags & MSG_COPY != 0 {
            return usize::try_from(wanted).ok().filter(|i| *i < messages.len());
        }
        match wanted {
            0 => (!messages.is_empty()).then_some(0),
            w if w > 0 && self.flags & MSG_EXCEPT != 0 => messages.iter().position(|m| m.kind != w),
            w if w > 0 => messages.iter().position(|m| m.kind == w),
            w => {
                let most = w.checked_neg().unwrap_or(i64::MAX);
                let fits = messages.iter().enumerate().filter(|(_, m)| m.kind <= most);
                fits.min_by_key(|(i, m)| (m.kind, *i)).map(|(i, _)| i)
            }
        }
    }

    fn step(&self, cx: &CurrentTask<'_>) -> Result<Option<u64>, Errno> {
        let mm = cx.mm()?;
        let message = {
            let creds = cx.creds();
            let mut state = self.queue.state.lock();
            if state.removed {
                return Err(Errno::EIDRM);
            }
            state.perm.check(&creds, 0o444)?;
            let Some(at) = self.choose(&state.messages) else {
                return if self.flags & IPC_NOWAIT != 0 { Err(Errno::ENOMSG) } else { Ok(None) };
            };
            let too_long = state.messages.get(at).is_some_and(|m| m.text.len() > self.size);
            if too_long && self.flags & MSG_NOERROR == 0 {
                return Err(Errno::E2BIG);
            }
            if self.flags & MSG_COPY != 0 {
                state.messages.get(at).cloned().ok_or(Errno::ENOMSG)?
            } else {
                let message = state.messages.remove(at).ok_or(Errno::ENOMSG)?;
                state.bytes -= message.text.len() as u64;
                state.lrpid = cx.task.group.tgid.0;
                state.rtime = seconds(cx.kernel());
                message
            }
        };
        if self.flags & MSG_COPY == 0 {
            self.queue.queue.wake(Events::WRITABLE);
        }
        // As in Linux, a message is gone even where its reader gave a bad address.
        let text = &message.text[..message.text.len().min(self.size)];
        mm.write_obj(self.to, &message.kind)?;
        mm.write_bytes(self.to.checked_add(8).ok_or(Errno::EFAULT)?, text)?;
        Ok(Some(text.len() as u64))
    }
}

impl Op for ReceiveOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        self.step(cx).transpose().map_or(Attempt::Pending, Attempt::Done)
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.queue.queue.enlist(Events::READABLE, cx.waiter())]
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ERESTARTNOHAND)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::MsgReceive(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "msgrcv"
    }
}
