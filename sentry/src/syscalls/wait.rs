//! wait4 and waitid.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::pidfd::PidFile;
use crate::kernel::reap::{self, Reaped, ThreadGroupRef, Wanted, Which};
use crate::kernel::signal::SigInfo;
use crate::kernel::task::CurrentTask;
use crate::kernel::thread_group::saved::ThreadGroupState;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::syscalls::misc::rusage_bytes;
use crate::vfs::FdNum;

syscall_table! {
    61 wait4(pid: i32, status: UserAddr, options: u32, rusage: UserAddr) Partial("__WNOTHREAD waits for all threads' children");
    247 waitid(kind: i32, id: i32, info: UserAddr, options: u32, rusage: UserAddr) Partial("__WNOTHREAD waits for all threads' children");
}

const WNOHANG: u32 = 1;
const WSTOPPED: u32 = 2;
const WEXITED: u32 = 4;
const WCONTINUED: u32 = 8;
const WNOWAIT: u32 = 0x0100_0000;
const WNOTHREAD: u32 = 0x2000_0000;
const WALL: u32 = 0x4000_0000;
const WCLONE: u32 = 0x8000_0000;

/// Where the answer goes.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Answer {
    Wait4 { status: UserAddr },
    Waitid { info: UserAddr },
}

struct WaitOp {
    which: Which,
    wanted: Wanted,
    nohang: bool,
    answer: Answer,
    rusage: UserAddr,
}

#[derive(Serialize, Deserialize)]
enum WhichState {
    Any,
    Process(i32),
    Group(i32),
    Held(Id<ThreadGroupState>),
}

/// [`WaitOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct WaitState {
    which: WhichState,
    wanted: Wanted,
    nohang: bool,
    answer: Answer,
    rusage: UserAddr,
}

impl WaitState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let WaitState { which, wanted, nohang, answer, rusage } = self;
        let which = match which {
            WhichState::Any => Which::Any,
            WhichState::Process(pid) => Which::Process(pid),
            WhichState::Group(pgid) => Which::Group(pgid),
            WhichState::Held(id) => Which::Held(Arc::new(reap::ThreadGroupRef(restorer.group(id)?))),
        };
        Ok(Box::new(WaitOp { which, wanted, nohang, answer, rusage }))
    }
}

impl WaitOp {
    fn report(&self, cx: &CurrentTask<'_>, child: &Reaped) -> Result<u64, Errno> {
        let mm = cx.mm()?;
        if !self.rusage.is_null() {
            mm.write_bytes(self.rusage, &rusage_bytes(&child.usage))?;
        }
        match self.answer {
            Answer::Wait4 { status } => {
                if !status.is_null() {
                    mm.write_obj(status, &child.raw)?;
                }
                Ok(u64::from(child.pid.unsigned_abs()))
            }
            Answer::Waitid { info } => {
                if !info.is_null() {
                    let told = SigInfo::child(libc::SIGCHLD, child.code, child.pid, child.uid, child.status, (0, 0));
                    mm.write_bytes(info, &told.to_bytes()[..128])?;
                }
                Ok(0)
            }
        }
    }

    fn nothing(&self, cx: &CurrentTask<'_>) -> Result<u64, Errno> {
        if let Answer::Waitid { info } = self.answer
            && !info.is_null()
        {
            // All zero says that no child had anything to tell.
            cx.mm()?.write_bytes(info, &SigInfo::default().to_bytes())?;
        }
        Ok(0)
    }
}

impl Op for WaitOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match reap::look(cx, &self.which, &self.wanted) {
            Err(errno) => Attempt::Done(Err(errno)),
            Ok(Some(child)) => Attempt::Done(self.report(cx, &child)),
            Ok(None) if self.nohang => Attempt::Done(self.nothing(cx)),
            Ok(None) => Attempt::Pending,
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.task.group.child_queue.enlist(Events::IN, cx.waiter())]
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let WaitOp { which, wanted, nohang, answer, rusage } = self;
        let which = match which {
            Which::Any => WhichState::Any,
            Which::Process(pid) => WhichState::Process(*pid),
            Which::Group(pgid) => WhichState::Group(*pgid),
            Which::Held(held) => WhichState::Held(saver.groups.id(&held.0)),
        };
        Ok(OpState::Wait(WaitState { which, wanted: *wanted, nohang: *nohang, answer: *answer, rusage: *rusage }))
    }

    fn name(&self) -> &'static str {
        "do_wait"
    }
}

fn wanted(options: u32) -> Wanted {
    Wanted {
        exited: options & WEXITED != 0,
        stopped: options & WSTOPPED != 0,
        continued: options & WCONTINUED != 0,
        keep: options & WNOWAIT != 0,
        all: options & WALL != 0,
        clone: options & WCLONE != 0,
    }
}

fn wait4(cx: &mut CurrentTask<'_>, pid: i32, status: UserAddr, options: u32, rusage: UserAddr) -> SyscallResult {
    if options & !(WNOHANG | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE) != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(cx.task.group.pgid()),
        p if p < 0 => Which::Group(-p),
        p => Which::Process(p),
    };
    let nohang = options & WNOHANG != 0;
    op::start(cx, WaitOp { which, wanted: wanted(options | WEXITED), nohang, answer: Answer::Wait4 { status }, rusage })
}

fn waitid(
    cx: &mut CurrentTask<'_>,
    kind: i32,
    id: i32,
    info: UserAddr,
    options: u32,
    rusage: UserAddr,
) -> SyscallResult {
    const KNOWN: u32 = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE;
    if options & !KNOWN != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return Err(Errno::EINVAL);
    }
    let mut nohang = options & WNOHANG != 0;
    let mut nonblocking_pidfd = false;
    let which = match kind {
        0 => Which::Any,
        1 if id > 0 => Which::Process(id),
        2 if id > 0 => Which::Group(id),
        2 if id == 0 => Which::Group(cx.task.group.pgid()),
        3 if id >= 0 => {
            let file = cx.fds()?.get(FdNum(id))?;
            nonblocking_pidfd = file.is_nonblocking() && !nohang;
            Which::Held(Arc::new(ThreadGroupRef(PidFile::group_of(&file)?)))
        }
        _ => return Err(Errno::EINVAL),
    };
    let wanted = wanted(options);
    if nonblocking_pidfd {
        // A non-blocking pidfd answers EAGAIN where WNOHANG answers nothing.
        if reap::look(cx, &which, &Wanted { keep: true, ..wanted })?.is_none() {
            return Err(Errno::EAGAIN);
        }
        nohang = true;
    }
    op::start(cx, WaitOp { which, wanted, nohang, answer: Answer::Waitid { info }, rusage })
}
