//! Signals: actions, masks, sending, waiting.

use std::collections::HashSet;
use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::creds::Creds;
use crate::kernel::op::{self, Attempt, Flow, Op, SyscallResult, ok, ret};
use crate::kernel::pidfd::PidFile;
use crate::kernel::signal::action::SIG_DFL;
use crate::kernel::signal::info::{NSIG, UNBLOCKABLE, code};
use crate::kernel::signal::{self, AltStack, SS_AUTODISARM, SigAction, SigInfo, SigSet, bit, frame, send};
use crate::kernel::task::{CurrentTask, Restart, Task, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::vfs::FdNum;

syscall_table! {
    13 rt_sigaction(signo: i32, act: UserAddr, old: UserAddr, size: usize);
    14 rt_sigprocmask(how: i32, set: UserAddr, old: UserAddr, size: usize);
    15 rt_sigreturn();
    34 pause();
    62 kill(pid: i32, signo: i32);
    127 rt_sigpending(set: UserAddr, size: usize);
    128 rt_sigtimedwait(set: UserAddr, info: UserAddr, timeout: UserAddr, size: usize);
    129 rt_sigqueueinfo(pid: i32, signo: i32, info: UserAddr);
    130 rt_sigsuspend(set: UserAddr, size: usize);
    131 sigaltstack(new: UserAddr, old: UserAddr);
    200 tkill(tid: i32, signo: i32);
    219 restart_syscall();
    234 tgkill(tgid: i32, tid: i32, signo: i32);
    297 rt_tgsigqueueinfo(tgid: i32, tid: i32, signo: i32, info: UserAddr);
    424 pidfd_send_signal(pidfd: FdNum, signo: i32, info: UserAddr, flags: u32);
}

/// `sizeof(sigset_t)` as the kernel has it.
const SIGSET_SIZE: usize = 8;

fn check_size(size: usize) -> Result<(), Errno> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn rt_sigaction(cx: &mut CurrentTask<'_>, signo: i32, act: UserAddr, old: UserAddr, size: usize) -> SyscallResult {
    check_size(size)?;
    let mm = cx.mm()?;
    let new = if act.is_null() { None } else { Some(mm.read_obj::<[u64; 4]>(act)?) };
    if !(1..=NSIG).contains(&signo) || new.is_some() && bit(signo) & UNBLOCKABLE != 0 {
        return Err(Errno::EINVAL);
    }
    let group = &cx.task.group;
    let actions = group.signals.actions();
    let before = match new {
        None => actions.get(signo),
        Some([handler, flags, restorer, mask]) => {
            let before = actions.set(signo, SigAction { handler, flags, restorer, mask });
            if actions.ignores(signo) {
                send::forget_ignored(group, signo);
            }
            before
        }
    };
    if !old.is_null() {
        mm.write_obj(old, &[before.handler, before.flags, before.restorer, before.mask])?;
    }
    ok()
}

fn rt_sigprocmask(cx: &mut CurrentTask<'_>, how: i32, set: UserAddr, old: UserAddr, size: usize) -> SyscallResult {
    check_size(size)?;
    let mm = cx.mm()?;
    let before = cx.task.signals.mask();
    if !set.is_null() {
        let set: u64 = mm.read_obj(set)?;
        let new = match how {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        signal::set_mask(cx, new);
    }
    if !old.is_null() {
        mm.write_obj(old, &before)?;
    }
    ok()
}

fn rt_sigreturn(cx: &mut CurrentTask<'_>) -> SyscallResult {
    if frame::pop(cx).is_err() {
        send::force(cx, SigInfo::kernel(libc::SIGSEGV));
    }
    Ok(Flow::Resume)
}

fn rt_sigpending(cx: &mut CurrentTask<'_>, set: UserAddr, size: usize) -> SyscallResult {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = signal::pending_set(cx.task) & cx.task.signals.mask();
    cx.mm()?.write_bytes(set, &pending.to_le_bytes()[..size])?;
    ok()
}

fn sigaltstack(cx: &mut CurrentTask<'_>, new: UserAddr, old: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    let before = cx.own.altstack;
    let state = before.state(cx.own.arch.regs.rsp) | before.flags & SS_AUTODISARM;
    if !new.is_null() {
        let [sp, flags, size]: [u64; 3] = mm.read_obj(new)?;
        // The flags are an int, with padding behind.
        let flags = u32::try_from(flags & 0xffff_ffff).unwrap_or(0);
        frame::set_altstack(cx, AltStack { sp, flags, size })?;
    }
    if !old.is_null() {
        mm.write_obj(old, &[before.sp, u64::from(state), before.size])?;
    }
    ok()
}

/// Waits for a handler to run.
struct SuspendOp;

impl Op for SuspendOp {
    fn attempt(&mut self, _cx: &mut CurrentTask<'_>) -> Attempt {
        Attempt::Pending
    }

    /// Signals notify the task itself.
    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::ERESTARTNOHAND)
    }

    fn save(&self, _saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Suspend)
    }

    fn name(&self) -> &'static str {
        "sigsuspend"
    }
}

fn pause(cx: &mut CurrentTask<'_>) -> SyscallResult {
    op::start(cx, SuspendOp)
}

fn rt_sigsuspend(cx: &mut CurrentTask<'_>, set: UserAddr, size: usize) -> SyscallResult {
    check_size(size)?;
    let set = cx.mm()?.read_obj(set)?;
    signal::set_temporary_mask(cx, set);
    op::start(cx, SuspendOp)
}

/// `sigsuspend` or `pause` of a restored task.
#[must_use]
pub fn restored_suspend() -> Box<dyn Op> {
    Box::new(SuspendOp)
}

/// `sigtimedwait` of a restored task.
#[must_use]
pub fn restored_sigwait(set: SigSet, info: UserAddr, deadline: Option<i64>) -> Box<dyn Op> {
    Box::new(SigWaitOp { set: set & !UNBLOCKABLE, info, deadline })
}

/// Takes a pending signal of a set.
struct SigWaitOp {
    set: SigSet,
    info: UserAddr,
    deadline: Option<i64>,
}

impl Op for SigWaitOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let Some(info) = signal::dequeue(cx.task, self.set) else { return Attempt::Pending };
        if !self.info.is_null()
            && let Err(errno) = cx.mm().and_then(|mm| mm.write_bytes(self.info, &info.to_bytes()))
        {
            return Attempt::Done(Err(errno));
        }
        Attempt::Done(Ok(u64::from(info.signo.unsigned_abs())))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.task.group.signals.arrivals().enlist(Events::IN, cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::EINTR)
    }

    fn save(&self, _saver: &mut Saver) -> Result<OpState, Refused> {
        let SigWaitOp { set, info, deadline } = self;
        Ok(OpState::SigWait { set: *set, info: *info, deadline: *deadline })
    }

    fn name(&self) -> &'static str {
        "sigtimedwait"
    }
}

fn rt_sigtimedwait(
    cx: &mut CurrentTask<'_>,
    set: UserAddr,
    info: UserAddr,
    timeout: UserAddr,
    size: usize,
) -> SyscallResult {
    check_size(size)?;
    let mm = cx.mm()?;
    let set = mm.read_obj::<u64>(set)? & !UNBLOCKABLE;
    let deadline = match timeout.is_null() {
        true => None,
        false => {
            let timeout = mm.read_obj::<Timespec>(timeout)?.to_nanos()?;
            Some(cx.kernel().clock.monotonic().saturating_add(timeout))
        }
    };
    op::start(cx, SigWaitOp { set, info, deadline })
}

fn restart_syscall(cx: &mut CurrentTask<'_>) -> SyscallResult {
    match std::mem::replace(&mut cx.own.restart, Restart::None) {
        Restart::Op(op) => Ok(Flow::Block(op)),
        Restart::None => Err(Errno::EINTR),
    }
}

/// Whether `sender` may signal `target` (kill(2), `kill_ok_by_cred`).
fn permitted(cx: &CurrentTask<'_>, target: &Task, signo: i32) -> bool {
    const CAP_KILL: u32 = 5;
    if target.group.tgid == cx.task.group.tgid {
        return true;
    }
    let (me, them): (Arc<Creds>, Arc<Creds>) = (cx.creds(), target.creds());
    let ids = [me.uid[0], me.uid[1]];
    ids.contains(&them.uid[0])
        || ids.contains(&them.uid[2])
        || me.has_cap(CAP_KILL)
        || signo == libc::SIGCONT && target.group.sid() == cx.task.group.sid()
}

fn check_signo(signo: i32) -> Result<(), Errno> {
    if (0..=NSIG).contains(&signo) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Whether `signo` is lost on the first process, which takes from others only what it has a handler for, SIGKILL and
/// SIGSTOP included (`SIGNAL_UNKILLABLE`, pid_namespaces(7)). Its own signals do reach it, unlike on Linux: the first
/// process is the user's program here, whose `abort` and `kill $$` must end it.
fn is_shielded(cx: &CurrentTask<'_>, group: &Arc<ThreadGroup>, signo: i32) -> bool {
    group.tgid == Tid(1) && !Arc::ptr_eq(group, &cx.task.group) && group.signals.actions().get(signo).handler == SIG_DFL
}

/// Sends to a process after the permission check; signal 0 only checks.
fn to_group(cx: &CurrentTask<'_>, group: &Arc<ThreadGroup>, info: SigInfo) -> Result<(), Errno> {
    let any = cx.task.pids().task(group.tgid).ok_or(Errno::ESRCH)?;
    if !permitted(cx, &any, info.signo) {
        return Err(Errno::EPERM);
    }
    if info.signo == 0 || is_shielded(cx, group, info.signo) { Ok(()) } else { send::send_to_group(group, info) }
}

fn user_info(cx: &CurrentTask<'_>, signo: i32, code: i32) -> SigInfo {
    SigInfo::user(signo, code, cx.task.group.tgid.0, cx.creds().uid[0])
}

/// Sends to several processes: success if any took it, else the last refusal.
/// Sends to all that `members` names. SIGKILL looks again until it finds nobody new: who forked meanwhile, before its own
/// signal came, must not leave a child behind (the kernel does both under one lock).
fn to_many(
    cx: &CurrentTask<'_>,
    members: impl Fn(&CurrentTask<'_>) -> Vec<Arc<ThreadGroup>>,
    info: SigInfo,
) -> SyscallResult {
    let mut answer = Err(Errno::ESRCH);
    let mut seen = HashSet::new();
    loop {
        let mut groups = members(cx);
        groups.retain(|group| seen.insert(group.tgid));
        for group in &groups {
            match to_group(cx, group, info) {
                Ok(()) => answer = Ok(Flow::Return(0)),
                Err(errno) if answer.is_err() => answer = Err(errno),
                Err(_) => {}
            }
        }
        if groups.is_empty() || info.signo != libc::SIGKILL {
            return answer;
        }
    }
}

fn kill(cx: &mut CurrentTask<'_>, pid: i32, signo: i32) -> SyscallResult {
    check_signo(signo)?;
    let info = user_info(cx, signo, code::SI_USER);
    match pid {
        i32::MIN => Err(Errno::ESRCH),
        -1 => {
            // Everybody but the first process and the caller's own.
            let others = |cx: &CurrentTask<'_>| {
                let mut groups = cx.task.pids().groups();
                groups.retain(|g| g.tgid != Tid(1) && g.tgid != cx.task.group.tgid);
                groups
            };
            to_many(cx, others, info)
        }
        p if p <= 0 => {
            let pgid = if p == 0 { cx.task.group.pgid() } else { -p };
            to_many(cx, |cx| cx.task.pids().tree().process_group(pgid), info)
        }
        p => {
            // Any thread's id names its process here.
            let task = cx.task.pids().task(Tid(p)).ok_or(Errno::ESRCH)?;
            to_group(cx, &task.group.clone(), info)?;
            ok()
        }
    }
}

/// Sends to one thread, of process `tgid` where that is given.
fn to_thread(cx: &CurrentTask<'_>, tgid: Option<i32>, tid: i32, info: SigInfo) -> SyscallResult {
    if tid <= 0 || tgid.is_some_and(|t| t <= 0) {
        return Err(Errno::EINVAL);
    }
    check_signo(info.signo)?;
    let task = cx.task.pids().task(Tid(tid)).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|t| t != task.group.tgid.0) {
        return Err(Errno::ESRCH);
    }
    if !permitted(cx, &task, info.signo) {
        return Err(Errno::EPERM);
    }
    if info.signo != 0 && !is_shielded(cx, &task.group, info.signo) {
        send::send_to_task(&task, info)?;
    }
    ok()
}

fn tkill(cx: &mut CurrentTask<'_>, tid: i32, signo: i32) -> SyscallResult {
    let info = user_info(cx, signo, code::SI_TKILL);
    to_thread(cx, None, tid, info)
}

fn tgkill(cx: &mut CurrentTask<'_>, tgid: i32, tid: i32, signo: i32) -> SyscallResult {
    let info = user_info(cx, signo, code::SI_TKILL);
    to_thread(cx, Some(tgid), tid, info)
}

/// A guest's siginfo. Only the kernel and kill may claim codes that mean a sender (`do_rt_sigqueueinfo`), except
/// towards oneself.
fn read_info(cx: &CurrentTask<'_>, addr: UserAddr, signo: i32, to_self: bool) -> Result<SigInfo, Errno> {
    let raw: [u8; 128] = cx.mm()?.read_obj(addr)?;
    let info = SigInfo { signo, ..SigInfo::from_bytes(&raw) };
    if (info.code >= 0 || info.code == code::SI_TKILL) && !to_self {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn rt_sigqueueinfo(cx: &mut CurrentTask<'_>, pid: i32, signo: i32, info: UserAddr) -> SyscallResult {
    let info = read_info(cx, info, signo, pid == cx.task.group.tgid.0)?;
    check_signo(signo)?;
    let task = cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?;
    to_group(cx, &task.group.clone(), info)?;
    ok()
}

fn rt_tgsigqueueinfo(cx: &mut CurrentTask<'_>, tgid: i32, tid: i32, signo: i32, info: UserAddr) -> SyscallResult {
    let raw = read_info(cx, info, signo, tid == cx.task.tid.0);
    if tid <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(cx, Some(tgid), tid, raw?)
}

fn pidfd_send_signal(cx: &mut CurrentTask<'_>, pidfd: FdNum, signo: i32, info: UserAddr, flags: u32) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = cx.fds()?.get(pidfd)?;
    // The directory of a process in /proc names it too (pidfd_send_signal(2)).
    let group = match crate::fs::proc::process_of(&file) {
        Some(found) => found?,
        None => PidFile::group_of(&file)?,
    };
    check_signo(signo)?;
    let info = if info.is_null() {
        user_info(cx, signo, code::SI_USER)
    } else {
        let raw: [u8; 128] = cx.mm()?.read_obj(info)?;
        if SigInfo::from_bytes(&raw).signo != signo {
            return Err(Errno::EINVAL);
        }
        read_info_from(cx, &raw, &group)?
    };
    to_group(cx, &group, info)?;
    ret(0u64)
}

fn read_info_from(cx: &CurrentTask<'_>, raw: &[u8; 128], group: &ThreadGroup) -> Result<SigInfo, Errno> {
    let info = SigInfo::from_bytes(raw);
    let claims = info.code >= 0 || info.code == code::SI_TKILL;
    if claims && group.tgid != cx.task.group.tgid { Err(Errno::EPERM) } else { Ok(info) }
}
