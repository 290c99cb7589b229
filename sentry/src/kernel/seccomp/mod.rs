//! seccomp(2): system call filters of guests.

pub mod bpf;
pub mod saved;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use abi::Errno;

use crate::kernel::creds::Creds;
use crate::kernel::exit;
use crate::kernel::op::{Flow, SyscallResult};
use crate::kernel::seccomp::bpf::{Data, Program};
use crate::kernel::signal::{self, SigInfo};
use crate::kernel::task::{CurrentTask, Task};
use crate::sync::{Level, Mutex};

/// `AUDIT_ARCH_X86_64`.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Instructions of all filters of a task, each filter counting four more (`MAX_INSNS_PER_PATH`).
const MAX_PATH: usize = (1 << 18) / 8;

/// What filters answer, without the data in the low half.
#[allow(missing_docs, reason = "named as in seccomp(2)")]
pub mod action {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// A filter and those set before it; all are asked.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    before: Option<Arc<Filter>>,
    /// Instructions of this and all before.
    total: usize,
    count: usize,
}

impl Drop for Filter {
    /// Long chains go one by one, not by recursion.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut filter) = next.and_then(Arc::into_inner) {
            next = filter.before.take();
        }
    }
}

impl Filter {
    /// `program` on top of `before`.
    ///
    /// # Errors
    /// `ENOMEM` where all of them are too long together.
    pub fn new(program: Program, before: Option<Arc<Filter>>) -> Result<Arc<Self>, Errno> {
        let total = program.len() + 4 + before.as_ref().map_or(0, |b| b.total);
        if total > MAX_PATH {
            return Err(Errno::ENOMEM);
        }
        let count = 1 + before.as_ref().map_or(0, |b| b.count);
        Ok(Arc::new(Filter { program, before, total, count }))
    }

    /// The strictest answer of all; the newest of equals.
    fn ask(&self, data: &Data) -> u32 {
        let rank = |answer: u32| (answer & 0xffff_0000).cast_signed();
        let mut strictest = self.program.run(data);
        let mut at = self.before.as_deref();
        while let Some(filter) = at {
            let answer = filter.program.run(data);
            if rank(answer) < rank(strictest) {
                strictest = answer;
            }
            at = filter.before.as_deref();
        }
        strictest
    }

    fn descends_from(filter: &Arc<Filter>, ancestor: Option<&Arc<Filter>>) -> bool {
        let Some(ancestor) = ancestor else { return true };
        let mut at = Some(filter);
        while let Some(filter) = at {
            if Arc::ptr_eq(filter, ancestor) {
                return true;
            }
            at = filter.before.as_ref();
        }
        false
    }
}

/// `SECCOMP_MODE_*` of a task and its filters.
#[derive(Debug)]
pub struct Seccomp {
    mode: AtomicU8,
    filter: Mutex<Option<Arc<Filter>>>,
}

/// Mode 0.
pub const DISABLED: u8 = 0;
/// Mode 1: read, write, exit, sigreturn.
pub const STRICT: u8 = 1;
/// Mode 2.
pub const FILTER: u8 = 2;

impl Default for Seccomp {
    fn default() -> Self {
        Seccomp { mode: AtomicU8::new(DISABLED), filter: Mutex::new(Level::Leaf, None) }
    }
}

impl Seccomp {
    /// The mode.
    #[must_use]
    pub fn mode(&self) -> u8 {
        self.mode.load(Ordering::Relaxed)
    }

    /// How many filters there are.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.filter.lock().as_ref().map_or(0, |f| f.count)
    }

    /// Takes over another task's (`clone`, `execve`, TSYNC).
    pub fn copy_from(&self, other: &Seccomp) {
        let filter = other.filter.lock().clone();
        let old = std::mem::replace(&mut *self.filter.lock(), filter);
        self.mode.store(other.mode(), Ordering::Relaxed);
        drop(old);
    }
}

/// SECCOMP_SET_MODE_STRICT.
///
/// # Errors
/// `EINVAL` with filters.
pub fn set_strict(task: &Task) -> Result<(), Errno> {
    if task.seccomp.mode() == FILTER {
        return Err(Errno::EINVAL);
    }
    task.seccomp.mode.store(STRICT, Ordering::Relaxed);
    Ok(())
}

/// SECCOMP_SET_MODE_FILTER; with `sync` for all threads. Answers the id of a thread that could not follow, or 0.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN or no_new_privs; `EINVAL` in strict mode; `ENOMEM`.
pub fn add_filter(cx: &CurrentTask<'_>, program: Program, sync: bool) -> Result<i32, Errno> {
    const CAP_SYS_ADMIN: u32 = 21;
    let creds = cx.creds();
    if !creds.no_new_privs && !creds.has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let mine = &cx.task.seccomp;
    if mine.mode() == STRICT {
        return Err(Errno::EINVAL);
    }
    let before = mine.filter.lock().clone();
    let others: Vec<Arc<Task>> = cx.task.group.tasks().into_iter().filter(|t| t.tid != cx.task.tid).collect();
    if sync {
        let follows = |task: &&Arc<Task>| match task.seccomp.mode() {
            DISABLED => true,
            STRICT => false,
            _ => {
                let theirs = task.seccomp.filter.lock().clone();
                before.as_ref().zip(theirs.as_ref()).is_some_and(|(b, t)| Filter::descends_from(b, Some(t)))
            }
        };
        if let Some(task) = others.iter().find(|t| !follows(t)) {
            return Ok(task.tid.0);
        }
    }
    let filter = Filter::new(program, before)?;
    let old = mine.filter.lock().replace(filter);
    mine.mode.store(FILTER, Ordering::Relaxed);
    drop(old);
    if sync {
        for task in &others {
            task.seccomp.copy_from(mine);
            if creds.no_new_privs {
                let mut shared = task.shared.lock();
                shared.creds = Arc::new(Creds { no_new_privs: true, ..Creds::clone(&shared.creds) });
            }
        }
    }
    Ok(0)
}

/// Puts a filter on a task that has not run yet.
///
/// # Errors
/// `ENOMEM` where it is too long.
pub fn install(task: &Task, program: Program) -> Result<(), Errno> {
    let filter = Filter::new(program, None)?;
    let old = task.seccomp.filter.lock().replace(filter);
    task.seccomp.mode.store(FILTER, Ordering::Relaxed);
    drop(old);
    Ok(())
}

/// Asks the calling task's filters about the call that it makes. `None`: go on. A TRACE answer is the caller's to act
/// on, as `Err` with the data.
pub fn check(cx: &mut CurrentTask<'_>, nr: u64, args: &[u64; 6], again: bool) -> Option<Result<SyscallResult, u16>> {
    let number = (nr & 0xffff_ffff) as u32;
    match cx.task.seccomp.mode() {
        DISABLED => return None,
        STRICT => {
            // read, write, rt_sigreturn, exit.
            if matches!(nr, 0 | 1 | 15 | 60) {
                return None;
            }
            exit::kill_group(&cx.task.group, libc::SIGKILL);
            exit::exit_current(cx, None);
            return Some(Ok(Ok(Flow::Resume)));
        }
        _ => {}
    }
    let filter = cx.task.seccomp.filter.lock().clone()?;
    let data = Data { nr: number, arch: AUDIT_ARCH_X86_64, ip: cx.own.arch.regs.rip, args: *args };
    let answer = filter.ask(&data);
    let low = (answer & 0xffff) as u16;
    match answer & 0xffff_0000 {
        action::ALLOW => None,
        action::LOG => {
            log::info!("tid {}: seccomp: system call {number} noted by a filter", cx.task.tid.0);
            None
        }
        action::ERRNO => {
            let errno = i32::from(low.min(4095));
            Some(Ok(if errno == 0 { Ok(Flow::Return(0)) } else { Err(Errno::from_raw(errno)) }))
        }
        action::TRAP => {
            trap(cx, number, low);
            Some(Ok(Ok(Flow::Resume)))
        }
        // The tracer has already been asked about this call.
        action::TRACE if again => None,
        action::TRACE => Some(Err(low)),
        // Without a listener there is nobody to ask (`seccomp_do_user_notification`).
        action::USER_NOTIF => Some(Ok(Err(Errno::ENOSYS))),
        other => {
            kill(cx, number, other == action::KILL_THREAD);
            Some(Ok(Ok(Flow::Resume)))
        }
    }
}

/// SIGSYS as seccomp sends it (`force_sig_seccomp`).
fn info(cx: &CurrentTask<'_>, nr: u32, reason: u16) -> SigInfo {
    const SYS_SECCOMP: i32 = 1;
    let mut info = SigInfo::fault(libc::SIGSYS, SYS_SECCOMP, cx.own.arch.regs.rip);
    info.errno = i32::from(reason);
    info.fields[8..12].copy_from_slice(&nr.to_le_bytes());
    info.fields[12..16].copy_from_slice(&AUDIT_ARCH_X86_64.to_le_bytes());
    info
}

fn trap(cx: &mut CurrentTask<'_>, nr: u32, reason: u16) {
    let info = info(cx, nr, reason);
    // The call has not happened: its number is back in rax.
    cx.own.arch.regs.rax = cx.own.arch.regs.orig_rax;
    signal::force(cx, info);
}

fn kill(cx: &mut CurrentTask<'_>, nr: u32, thread_only: bool) {
    log::info!("tid {}: seccomp: killed by a filter at system call {nr}", cx.task.tid.0);
    let alone = cx.task.group.state.lock().tasks.len() == 1;
    if thread_only && !alone {
        exit::exit_current(cx, Some(libc::SIGSYS));
        return;
    }
    exit::kill_group(&cx.task.group, libc::SIGSYS);
    exit::exit_current(cx, None);
}
