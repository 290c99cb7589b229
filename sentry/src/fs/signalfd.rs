//! `signalfd(2)`: pending signals to read.
//!
//! A read takes signals of whoever reads. Readiness is that of the process that made the descriptor: a file's `poll`
//! does not know who asks, and handing a signalfd to another process to poll is not done.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::checkpoint::op::OpState;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{Attempt, Op};
use crate::kernel::signal::{self, SigInfo, SigSet, info};
use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FileDescription, FileOps, IoCursor, IoSink, OpenFlags};

/// Bytes of `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// A signalfd.
pub struct SignalFd {
    wanted: Mutex<SigSet>,
    group: Weak<ThreadGroup>,
    arrivals: WaitQueue,
}

impl SignalFd {
    /// One for `wanted`, as an open file.
    #[must_use]
    pub fn open(task: &Task, wanted: SigSet, flags: OpenFlags) -> Arc<FileDescription> {
        let arrivals = task.group.signals.arrivals().clone();
        let wanted = Mutex::new(Level::Leaf, wanted & !info::UNBLOCKABLE);
        let file = SignalFd { wanted, group: Arc::downgrade(&task.group), arrivals };
        FileDescription::anonymous(Arc::new(file), flags | OpenFlags::RDWR)
    }

    /// One as it was saved; `group` may have gone.
    #[must_use]
    pub fn restored(wanted: SigSet, group: Option<&Arc<ThreadGroup>>) -> Arc<Self> {
        let arrivals = group.map_or_else(WaitQueue::new, |group| group.signals.arrivals().clone());
        let group = group.map(Arc::downgrade).unwrap_or_default();
        Arc::new(SignalFd { wanted: Mutex::new(Level::Leaf, wanted & !info::UNBLOCKABLE), group, arrivals })
    }

    /// The signals it takes.
    #[must_use]
    pub fn wanted(&self) -> SigSet {
        *self.wanted.lock()
    }

    /// Makes it take others.
    pub fn set_wanted(&self, wanted: SigSet) {
        *self.wanted.lock() = wanted & !info::UNBLOCKABLE;
        self.arrivals.wake(Events::READABLE);
    }
}

impl FileOps for SignalFd {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let SignalFd { wanted, group, arrivals: _ } = self;
        let group = group.upgrade().map(|group| saver.groups.id(&group));
        Ok(OpsState::Signal { wanted: *wanted.lock(), group })
    }

    fn transfer_op(&self, file: &Arc<FileDescription>, cursor: &IoCursor, write: bool) -> Option<Box<dyn Op>> {
        (!write).then(|| Box::new(ReadOp { file: file.clone(), cursor: cursor.clone() }) as Box<dyn Op>)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        let Some(group) = self.group.upgrade() else { return Events::default() };
        let pending = group.tasks().iter().fold(0, |set, task| set | signal::pending_set(task));
        if pending & self.wanted() != 0 { Events::READABLE } else { Events::default() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.arrivals)
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:[signalfd]".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

struct ReadOp {
    file: Arc<FileDescription>,
    cursor: IoCursor,
}

impl ReadOp {
    fn step(&mut self, cx: &mut CurrentTask<'_>) -> Result<usize, Errno> {
        let fd = self.file.ops.as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?;
        if self.cursor.remaining() + self.cursor.done() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mm = cx.mm()?;
        let wanted = fd.wanted();
        while self.cursor.remaining() >= RECORD {
            let Some(info) = signal::dequeue(cx.task, wanted) else { break };
            let put = IoSink::guest(&mm, &mut self.cursor).put(&record(&info));
            // As on Linux, a signal that cannot be stored is lost.
            if put != Ok(RECORD) {
                return Err(Errno::EFAULT);
            }
        }
        if self.cursor.done() > 0 { Ok(self.cursor.done()) } else { Err(Errno::EAGAIN) }
    }
}

/// A restored task's read.
#[must_use]
pub fn restored_read(file: Arc<FileDescription>, cursor: IoCursor) -> Box<dyn Op> {
    Box::new(ReadOp { file, cursor })
}

impl Op for ReadOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.step(cx) {
            Ok(n) => Attempt::Done(Ok(n as u64)),
            Err(Errno::EAGAIN) if !self.file.is_nonblocking() => Attempt::Pending,
            Err(e) => Attempt::Done(Err(e)),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.task.group.signals.arrivals().enlist(Events::READABLE, cx.waiter())]
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let ReadOp { file, cursor } = self;
        Ok(OpState::SignalRead { file: saver.files.id(file), cursor: cursor.clone() })
    }

    fn name(&self) -> &'static str {
        "signalfd_read"
    }
}

/// Which part of `siginfo_t` a signal uses (`siginfo_layout`).
enum Layout {
    User,
    Queue,
    Timer,
    Poll,
    Fault,
    Child,
}

fn layout(info: &SigInfo) -> Layout {
    const SI_SIGIO: i32 = -5;
    match (info.code, info.signo) {
        (info::code::SI_TIMER, _) => Layout::Timer,
        (SI_SIGIO, _) => Layout::Poll,
        (code, _) if code == info::code::SI_USER || code == info::code::SI_KERNEL => Layout::User,
        (info::code::SI_TKILL, _) => Layout::Queue,
        (code, _) if code < 0 => Layout::Queue,
        (_, libc::SIGCHLD) => Layout::Child,
        (_, libc::SIGIO) => Layout::Poll,
        (_, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP) => Layout::Fault,
        _ => Layout::User,
    }
}

/// `struct signalfd_siginfo` (`include/uapi/linux/signalfd.h`).
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut raw = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &info.signo.to_le_bytes());
    put(4, &info.errno.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    let value = info.long(8).to_le_bytes();
    let ids = |put: &mut dyn FnMut(usize, &[u8])| {
        put(12, &info.pid().to_le_bytes());
        put(16, &info.uid().to_le_bytes());
    };
    match layout(info) {
        Layout::User => ids(&mut put),
        Layout::Queue => {
            ids(&mut put);
            put(44, &value[..4]);
            put(48, &value);
        }
        Layout::Timer => {
            put(24, &info.pid().to_le_bytes());
            put(32, &info.uid().to_le_bytes());
            put(44, &value[..4]);
            put(48, &value);
        }
        Layout::Poll => {
            put(28, &info.long(0).to_le_bytes()[..4]);
            put(20, &value[..4]);
        }
        Layout::Fault => put(72, &info.long(0).to_le_bytes()),
        Layout::Child => {
            ids(&mut put);
            put(40, &info.status().to_le_bytes());
            put(56, &info.long(16).to_le_bytes());
            put(64, &info.long(24).to_le_bytes());
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_the_kind_of_signal() {
        let word = |raw: &[u8; RECORD], at: usize| i32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let child = record(&SigInfo::child(libc::SIGCHLD, info::code::CLD_EXITED, 7, 9, 3, (1, 2)));
        assert_eq!((word(&child, 0), word(&child, 12), word(&child, 16), word(&child, 40)), (libc::SIGCHLD, 7, 9, 3));
        let timer = record(&SigInfo::timer(libc::SIGALRM, 5, 2, 0x1_0000_0003));
        assert_eq!((word(&timer, 24), word(&timer, 32), word(&timer, 44), word(&timer, 52)), (5, 2, 3, 1));
    }
}
