//! epoll_create, epoll_ctl, epoll_wait and kin.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::epoll::{Epoll, Interest, Report};
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok};
use crate::kernel::signal;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::syscalls::deadline;
use crate::syscalls::fd::install;
use crate::vfs::saved::FileState;
use crate::vfs::{FdNum, FileDescription, OpenFlags};

syscall_table! {
    213 epoll_create(size: i32);
    232 epoll_wait(epfd: FdNum, events: UserAddr, maxevents: i32, timeout: i32);
    233 epoll_ctl(epfd: FdNum, op: i32, fd: FdNum, event: UserAddr);
    281 epoll_pwait(epfd: FdNum, events: UserAddr, maxevents: i32, timeout: i32, sigmask: UserAddr, size: usize);
    291 epoll_create1(flags: u32);
    441 epoll_pwait2(epfd: FdNum, events: UserAddr, maxevents: i32, timeout: UserAddr, sigmask: UserAddr, size: usize);
}

/// Bytes of `struct epoll_event`, which is packed on x86-64.
const EVENT_SIZE: u64 = 12;
/// Most events of one wait (`EP_MAX_EVENTS`).
const MAX_EVENTS: i32 = i32::MAX / 12;

fn epoll_create(cx: &mut CurrentTask<'_>, size: i32) -> SyscallResult {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(cx, 0)
}

fn epoll_create1(cx: &mut CurrentTask<'_>, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL);
    }
    install(cx, Epoll::open(OpenFlags::default()), flags)
}

fn epoll_ctl(cx: &mut CurrentTask<'_>, epfd: FdNum, op: i32, fd: FdNum, event: UserAddr) -> SyscallResult {
    let interest = if op == libc::EPOLL_CTL_DEL {
        Interest { events: 0, data: 0 }
    } else {
        let raw = cx.mm()?.read_obj::<[u32; 3]>(event)?;
        Interest { events: raw[0], data: u64::from(raw[1]) | u64::from(raw[2]) << 32 }
    };
    let fds = cx.fds()?;
    let (epoll_file, file) = (fds.get(epfd)?, fds.get(fd)?);
    if file.ops.wait_queue().is_none() {
        return Err(Errno::EPERM);
    }
    let epoll = Epoll::of(&epoll_file)?;
    match op {
        libc::EPOLL_CTL_ADD => epoll.add(fd, &file, interest)?,
        libc::EPOLL_CTL_MOD => epoll.modify(fd, &file, interest)?,
        libc::EPOLL_CTL_DEL => epoll.remove(fd, &file)?,
        _ => return Err(Errno::EINVAL),
    }
    ok()
}

struct WaitOp {
    epoll: Arc<Epoll>,
    /// Keeps the epoll open while we wait.
    _file: Arc<FileDescription>,
    events: UserAddr,
    max: usize,
    deadline: Option<i64>,
}

/// [`WaitOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct EpollWaitState {
    file: Id<FileState>,
    events: UserAddr,
    max: usize,
    deadline: Option<i64>,
}

impl EpollWaitState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let EpollWaitState { file, events, max, deadline } = self;
        let file = restorer.file(file)?;
        let epoll = Epoll::of(&file).map_err(Unusable::step("a wait for an epoll"))?;
        if max > MAX_EVENTS as usize {
            return Err(Unusable::Corrupt("a wait for an epoll"));
        }
        Ok(Box::new(WaitOp { epoll, _file: file, events, max, deadline }))
    }
}

impl WaitOp {
    fn answer(&self, cx: &mut CurrentTask<'_>, reports: &[Report]) -> Result<u64, Errno> {
        let mut raw = Vec::with_capacity(reports.len() * 12);
        for report in reports {
            raw.extend_from_slice(&report.events.bits().to_le_bytes());
            raw.extend_from_slice(&report.data.to_le_bytes());
        }
        cx.mm()?.write_bytes(self.events, &raw)?;
        Ok(reports.len() as u64)
    }
}

impl Op for WaitOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let reports = self.epoll.collect(self.max);
        if reports.is_empty() && self.deadline.is_none_or(|d| deadline::left(cx, d) > 0) {
            return Attempt::Pending;
        }
        Attempt::Done(self.answer(cx, &reports))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.epoll.queue().enlist(Events::READABLE, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Ok(0)
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::EINTR)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let WaitOp { epoll: _, _file, events, max, deadline } = self;
        let file = saver.files.id(_file);
        Ok(OpState::EpollWait(EpollWaitState { file, events: *events, max: *max, deadline: *deadline }))
    }

    fn name(&self) -> &'static str {
        "ep_poll"
    }
}

fn wait_op(
    cx: &CurrentTask<'_>,
    epfd: FdNum,
    events: UserAddr,
    maxevents: i32,
    deadline: Option<i64>,
) -> Result<WaitOp, Errno> {
    if maxevents <= 0 || maxevents > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let len = u64::from(maxevents.unsigned_abs()) * EVENT_SIZE;
    events.range(len).filter(|r| r.end <= platform::USER_END).ok_or(Errno::EFAULT)?;
    let file = cx.fds()?.get(epfd)?;
    let epoll = Epoll::of(&file)?;
    Ok(WaitOp { epoll, _file: file, events, max: maxevents.unsigned_abs() as usize, deadline })
}

fn epoll_wait(cx: &mut CurrentTask<'_>, epfd: FdNum, events: UserAddr, maxevents: i32, timeout: i32) -> SyscallResult {
    let deadline = deadline::from_millis(cx, timeout);
    let op = wait_op(cx, epfd, events, maxevents, deadline)?;
    op::start(cx, op)
}

fn epoll_pwait(
    cx: &mut CurrentTask<'_>,
    epfd: FdNum,
    events: UserAddr,
    maxevents: i32,
    timeout: i32,
    sigmask: UserAddr,
    size: usize,
) -> SyscallResult {
    signal::set_call_mask(cx, sigmask, size)?;
    epoll_wait(cx, epfd, events, maxevents, timeout)
}

fn epoll_pwait2(
    cx: &mut CurrentTask<'_>,
    epfd: FdNum,
    events: UserAddr,
    maxevents: i32,
    timeout: UserAddr,
    sigmask: UserAddr,
    size: usize,
) -> SyscallResult {
    let deadline = deadline::from_timespec(cx, timeout)?;
    signal::set_call_mask(cx, sigmask, size)?;
    let op = wait_op(cx, epfd, events, maxevents, deadline)?;
    op::start(cx, op)
}
