//! New threads and processes (`copy_process` in `kernel/fork.c`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, UserAddr};
use platform::ArchState;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::limits::resource;
use crate::kernel::op::{Attempt, Flow, Op, SyscallResult};
use crate::kernel::pidfd::PidFile;
use crate::kernel::ptrace;
use crate::kernel::signal::{self, AltStack, SigInfo, TaskSignals};
use crate::kernel::task::{CurrentTask, Task, TaskShared, Tid, flags as task_flags};
use crate::kernel::thread_group::{ThreadGroup, VforkDone};
use crate::kernel::wait::{Events, WaitGuard};
use crate::vfs::{FdNum, FdTable};

/// `CLONE_*` (`include/uapi/linux/sched.h`).
#[allow(missing_docs, reason = "named as in clone(2)")]
pub mod flag {
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const SIGHAND: u64 = 0x800;
    pub const PIDFD: u64 = 0x1000;
    pub const PTRACE: u64 = 0x2000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const NEWNS: u64 = 0x2_0000;
    pub const SYSVSEM: u64 = 0x4_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const DETACHED: u64 = 0x40_0000;
    pub const UNTRACED: u64 = 0x80_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const NEWCGROUP: u64 = 0x200_0000;
    pub const NEWUTS: u64 = 0x400_0000;
    pub const NEWIPC: u64 = 0x800_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
    pub const IO: u64 = 0x8000_0000;
    pub const NEWTIME: u64 = 0x80;
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
    /// All that make a namespace.
    pub const NAMESPACES: u64 = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET;
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// A decoded clone.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Signal to the parent at the end.
    pub exit_signal: i32,
    /// New stack pointer; 0 keeps the parent's.
    pub stack: u64,
    /// Where the parent gets the id.
    pub parent_tid: u64,
    /// Where the child gets the id, and where it is cleared.
    pub child_tid: u64,
    /// Where the parent gets the pidfd.
    pub pidfd: u64,
    /// Thread pointer.
    pub tls: u64,
}

/// Which namespaces may be made: none yet. Without CAP_SYS_ADMIN that is EPERM, else EINVAL, as on a kernel built
/// without them.
///
/// # Errors
/// As said.
pub fn check_namespaces(cx: &CurrentTask<'_>, flags: u64) -> Result<(), Errno> {
    if flags & flag::NAMESPACES == 0 {
        return Ok(());
    }
    let admin = cx.creds().has_cap(CAP_SYS_ADMIN) || flags & flag::NEWUSER != 0;
    if admin && flags & flag::NAMESPACES == flag::NEWNS {
        return Ok(());
    }
    Err(if admin { Errno::EINVAL } else { Errno::EPERM })
}

/// Gives `fs`, which nobody else uses yet, a mount namespace of its own.
///
/// # Errors
/// `ENOSPC` where there are too many mounts.
pub fn new_mounts(cx: &CurrentTask<'_>, fs: &crate::vfs::FsContext) -> Result<(), Errno> {
    let mut state = fs.state.lock().clone();
    crate::vfs::mount_ns::unshare(&cx.kernel().vfs.mounts, &mut state)?;
    let old = std::mem::replace(&mut *fs.state.lock(), state);
    drop(old);
    Ok(())
}

fn check(cx: &CurrentTask<'_>, args: &CloneArgs) -> Result<(), Errno> {
    let has = |bits: u64| args.flags & bits != 0;
    let bad = has(flag::FS) && has(flag::NEWNS | flag::NEWUSER)
        || has(flag::THREAD) && (!has(flag::SIGHAND) || has(flag::NEWUSER | flag::NEWPID))
        || has(flag::SIGHAND) && (!has(flag::VM) || has(flag::CLEAR_SIGHAND))
        || has(flag::PIDFD) && has(flag::DETACHED | flag::THREAD)
        || has(flag::PARENT) && cx.task.group.tgid == Tid(1)
        || has(flag::INTO_CGROUP);
    if bad {
        return Err(Errno::EINVAL);
    }
    check_namespaces(cx, args.flags)?;
    let creds = cx.creds();
    let limit = cx.task.group.limit(resource::NPROC);
    let privileged = creds.uid[0] == 0 || creds.has_cap(CAP_SYS_ADMIN) || creds.has_cap(CAP_SYS_RESOURCE);
    if !privileged && limit < crate::kernel::pids::TASK_LIMIT as u64 {
        let tasks = cx.task.pids().tasks();
        let mine = tasks.iter().filter(|t| t.creds().uid[0] == creds.uid[0]).count();
        if mine as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
    }
    Ok(())
}

/// Makes a task as `args` say and starts it.
///
/// # Errors
/// `EINVAL` for flags that do not go together; `EAGAIN` over a limit of tasks; `ENOMEM`.
pub fn clone(cx: &mut CurrentTask<'_>, args: &CloneArgs) -> SyscallResult {
    check(cx, args)?;
    if cx.task.container().usage.is_full() {
        // pids(5) of cgroups: `pids.max`.
        return Err(Errno::EAGAIN);
    }
    let has = |bits: u64| args.flags & bits != 0;
    let tid = cx.task.pids().allocate().ok_or(Errno::EAGAIN)?;
    let shared = copy_shared(cx, args)?;
    let child_mm = shared.mm.clone().ok_or(Errno::ESRCH)?;
    let group = copy_group(cx, args, tid);
    let signals = TaskSignals::with_mask(cx.own.saved_sigmask.unwrap_or(cx.task.signals.mask()));
    let arch = copy_arch(cx, args);
    let vfork = has(flag::VFORK).then(|| Arc::new(VforkDone::default()));
    let apart = has(flag::VM) && !has(flag::VFORK);
    let undo = has(flag::SYSVSEM).then(|| crate::syscalls::sysv::undo_list(cx));
    let child = Task::with(cx.kernel(), tid, group, arch, shared, signals, |own| {
        own.altstack = if apart { AltStack::default() } else { cx.own.altstack };
        own.clear_tid = if has(flag::CHILD_CLEARTID) { args.child_tid } else { 0 };
        own.timer_slack = cx.own.timer_slack;
        own.vfork_done.clone_from(&vfork);
        own.sem_undo.clone_from(&undo);
    });
    copy_sched(cx, &child);
    let pidfd = if has(flag::PIDFD) { Some(install_pidfd(cx, &child, args)?) } else { None };
    if let Err(errno) = enroll(cx, &child, args) {
        if let (Some(fd), Ok(fds)) = (pidfd, cx.fds()) {
            drop(fds.remove(fd));
        }
        return Err(errno);
    }
    // Bad addresses are ignored, as the kernel ignores them.
    if has(flag::CHILD_SETTID) {
        let _ = child_mm.write_obj(UserAddr(args.child_tid), &tid.0);
    }
    if has(flag::PARENT_SETTID) {
        let _ = cx.mm()?.write_obj(UserAddr(args.parent_tid), &tid.0);
    }
    let traced = trace_child(cx, args, &child);
    if !has(flag::THREAD) {
        let seconds = child.group.limit(resource::CPU);
        if seconds != u64::MAX {
            crate::kernel::timer_set::set_cpu_limit(cx.kernel(), &child.group, seconds);
        }
    }
    cx.kernel().start_task(&child);
    if let Some(event) = traced {
        ptrace::stop::plan(cx, ptrace::Planned::Event(event, u64::from(tid.0.cast_unsigned())));
    }
    let answer = u64::from(tid.0.cast_unsigned());
    match vfork {
        Some(done) => Ok(Flow::Block(Box::new(VforkOp { done, answer }))),
        None => Ok(Flow::Return(answer)),
    }
}

/// A traced task's child is traced too, where the tracer wants that (or CLONE_PTRACE says so); answers the event that the
/// parent reports.
fn trace_child(cx: &CurrentTask<'_>, args: &CloneArgs, child: &Arc<Task>) -> Option<i32> {
    use ptrace::{event, option};
    if !ptrace::is_traced(cx.task) || args.flags & flag::UNTRACED != 0 {
        return None;
    }
    let (wanted, event) = if args.flags & flag::VFORK != 0 {
        (option::TRACEVFORK, event::VFORK)
    } else if args.flags & flag::THREAD != 0 || args.exit_signal != libc::SIGCHLD {
        (option::TRACECLONE, event::CLONE)
    } else {
        (option::TRACEFORK, event::FORK)
    };
    let asked = ptrace::has_option(cx.task, wanted);
    if !asked && args.flags & flag::PTRACE == 0 {
        return None;
    }
    let (tracer, seized, options) = {
        let state = cx.task.ptrace.0.lock();
        (state.tracer.upgrade()?, state.seized, state.options)
    };
    ptrace::link(child, &tracer, seized, options);
    if seized {
        child.ptrace.0.lock().interrupt = true;
        child.flags.fetch_or(task_flags::TRACE_WORK, Ordering::SeqCst);
    } else {
        signal::force_pending(child, SigInfo::user(libc::SIGSTOP, 0, 0, 0));
    }
    asked.then_some(event)
}

fn copy_shared(cx: &mut CurrentTask<'_>, args: &CloneArgs) -> Result<TaskShared, Errno> {
    let mm = cx.mm()?;
    let mm = if args.flags & flag::VM != 0 { mm } else { mm.fork(cx.kernel())? };
    let (fds, fs) = (cx.fds()?, cx.fs()?);
    let fds = if args.flags & flag::FILES != 0 { fds } else { Arc::new(FdTable::fork(&fds)) };
    let fs = if args.flags & flag::FS != 0 { fs } else { Arc::new(fs.fork()) };
    if args.flags & flag::NEWNS != 0 {
        new_mounts(cx, &fs)?;
    }
    let (creds, name) = {
        let shared = cx.task.shared.lock();
        (shared.creds.clone(), shared.name.clone())
    };
    Ok(TaskShared { mm: Some(mm), fds: Some(fds), fs: Some(fs), creds, name })
}

fn copy_group(cx: &CurrentTask<'_>, args: &CloneArgs, tid: Tid) -> Arc<ThreadGroup> {
    let mine = &cx.task.group;
    if args.flags & flag::THREAD != 0 {
        return mine.clone();
    }
    let actions = mine.signals.actions();
    let actions = if args.flags & flag::SIGHAND != 0 { actions } else { Arc::new(actions.fork()) };
    if args.flags & flag::CLEAR_SIGHAND != 0 {
        actions.clear_handlers();
    }
    let limits = *mine.limits.lock();
    let group = ThreadGroup::with(tid, &mine.container, actions, limits);
    group.personality.store(mine.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    group.oom_score_adj.store(mine.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    group.dumpable.store(mine.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    group
}

fn copy_arch(cx: &mut CurrentTask<'_>, args: &CloneArgs) -> ArchState {
    cx.save_fpu();
    let mut regs = cx.own.arch.regs;
    (regs.rax, regs.orig_rax) = (0, u64::MAX);
    if args.stack != 0 {
        regs.rsp = args.stack;
    }
    if args.flags & flag::SETTLS != 0 {
        regs.fs_base = args.tls;
    }
    ArchState { regs, fpu: cx.own.arch.fpu.clone(), fpu_token: None }
}

fn copy_sched(cx: &CurrentTask<'_>, child: &Task) {
    let mut attr = *cx.task.sched_attr.lock();
    if attr.reset_on_fork {
        (attr.policy, attr.priority, attr.reset_on_fork) = (0, 0, false);
        attr.nice = attr.nice.max(0);
    }
    *child.sched_attr.lock() = attr;
    child.seccomp.copy_from(&cx.task.seccomp);
}

fn install_pidfd(cx: &mut CurrentTask<'_>, child: &Arc<Task>, args: &CloneArgs) -> Result<FdNum, Errno> {
    let fds = cx.fds()?;
    let file = PidFile::open(&child.group, false);
    let fd = fds.install(file, true, 0, cx.task.group.limit(resource::NOFILE))?;
    if let Err(errno) = cx.mm()?.write_obj(UserAddr(args.pidfd), &fd.0) {
        drop(fds.remove(fd));
        return Err(errno);
    }
    Ok(fd)
}

/// Makes the child part of its process and the process part of the tree.
fn enroll(cx: &CurrentTask<'_>, child: &Arc<Task>, args: &CloneArgs) -> Result<(), Errno> {
    let mine = &cx.task.group;
    let mut tree = cx.task.pids().tree();
    if cx.task.container().is_dying(&tree) {
        // The caller is about to be killed itself; as `alloc_pid` says.
        return Err(Errno::ENOMEM);
    }
    if signal::pending_set(cx.task) & signal::bit(libc::SIGKILL) != 0 {
        // Whoever killed a whole group counts on nobody being born after that. The caller never sees the answer.
        return Err(Errno::EAGAIN);
    }
    if args.flags & flag::THREAD != 0 {
        let mut state = mine.state.lock();
        if state.exiting.is_some() || state.exec.is_some() {
            // The caller dies before it could look at the answer.
            return Err(Errno::EAGAIN);
        }
        if state.stop.is_some() {
            child.flags.fetch_or(task_flags::STOP, Ordering::SeqCst);
        }
        state.tasks.push(child.clone());
        drop(state);
        tree.add(child);
        return Ok(());
    }
    let (pgid, sid, siblings_parent, own_exit_signal) = {
        let state = mine.state.lock();
        if state.exiting.is_some() {
            return Err(Errno::EAGAIN);
        }
        (state.pgid, state.sid, state.parent.upgrade(), state.exit_signal)
    };
    let as_sibling = args.flags & flag::PARENT != 0;
    let parent = if as_sibling { siblings_parent } else { Some(mine.clone()) };
    {
        let mut state = child.group.state.lock();
        state.tasks.push(child.clone());
        (state.pgid, state.sid) = (pgid, sid);
        state.parent = parent.as_ref().map(Arc::downgrade).unwrap_or_default();
        state.exit_signal = if as_sibling { own_exit_signal } else { args.exit_signal };
    }
    if let Some(parent) = parent {
        parent.state.lock().children.push(child.group.clone());
    }
    tree.add(child);
    Ok(())
}

/// A parent that waits until its `vfork` child has let go of the shared memory. Only death ends it sooner.
struct VforkOp {
    done: Arc<VforkDone>,
    answer: u64,
}

/// A restored task's wait for its `vfork` child.
#[must_use]
pub fn restored_vfork(done: Arc<VforkDone>, answer: u64) -> Box<dyn Op> {
    Box::new(VforkOp { done, answer })
}

impl Op for VforkOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if !self.done.is_done() {
            return Attempt::Pending;
        }
        ptrace::stop::plan_event(cx, ptrace::option::TRACEVFORKDONE, ptrace::event::VFORK_DONE, self.answer);
        Attempt::Done(Ok(self.answer))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.done.queue().enlist(Events::IN, cx.waiter())]
    }

    fn is_killable_only(&self) -> bool {
        true
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let VforkOp { done, answer } = self;
        Ok(OpState::Vfork { done: saver.vforks.id(done), answer: *answer })
    }

    fn name(&self) -> &'static str {
        "vfork"
    }
}
