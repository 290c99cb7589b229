//! `execve(2)`: a process becomes another program (`fs/exec.c`).
//!
//! The new image is built completely before the point of no return, so that every failure leaves the old program
//! whole. Then the other threads are told to exit; the last of them wakes the caller, which commits. A caller that is
//! not the first thread takes that thread's id: the new program runs in a fresh [`Task`] and the old one ends quietly.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use platform::ArchState;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::creds::{Capabilities, Creds};
use crate::kernel::exit;
use crate::kernel::file_caps::{self, FileCaps};
use crate::kernel::limits::{Limit, resource};
use crate::kernel::op::{Attempt, Flow, Op, SyscallResult};
use crate::kernel::ptrace;
use crate::kernel::random;
use crate::kernel::signal::{AltStack, FaultContext, TaskSignals};
use crate::kernel::task::{CurrentTask, Restart, Task, TaskShared, flags};
use crate::kernel::wait::WaitGuard;
use crate::loader::{self, ExecIds, ExecRequest, LoadError, Loaded};
use crate::mm::Mm;
use crate::syscalls::fs_open::open_exec;
use crate::vfs::{FdNum, FdTable, FileDescription};

/// `SECBIT_NOROOT`, `SECBIT_KEEP_CAPS`.
const SECBIT_NOROOT: u32 = 1;
const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// Longest `comm`, without its NUL.
pub const COMM_LEN: usize = 15;

/// The credentials of `file`'s program run by `old`, and whether it is AT_SECURE (`cap_bprm_creds_from_file`).
///
/// # Errors
/// `EPERM` where the file's capabilities are to be in force at once and some of them cannot be had.
pub fn exec_creds(old: &Creds, file: &FileDescription) -> Result<(Creds, bool), Errno> {
    const S_ISUID: u32 = 0o4000;
    const S_ISGID: u32 = 0o2000;
    const S_IXGRP: u32 = 0o010;
    let mut new = old.clone();
    let may_suid = file_caps::may_suid(file);
    let attr = file.inode.as_ref().map(|i| i.attr());
    if let Some(attr) = attr.filter(|_| may_suid && !old.no_new_privs) {
        if attr.perm & S_ISUID != 0 {
            new.uid[1] = attr.uid;
        }
        if attr.perm & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
            new.gid[1] = attr.gid;
        }
    }
    (new.uid[2], new.uid[3]) = (new.uid[1], new.uid[1]);
    (new.gid[2], new.gid[3]) = (new.gid[1], new.gid[1]);
    let changed = new.euid() != old.euid() || new.egid() != old.egid();
    let caps = if may_suid { file_caps::of(file) } else { None };
    new.caps = exec_caps(old, &new, changed, caps)?;
    new.keep_caps = false;
    new.securebits &= !SECBIT_KEEP_CAPS;
    let gained = new.caps.permitted & !new.caps.ambient != 0 && new.uid[0] != 0;
    let raised = new.uid[0] != 0 && caps.is_some_and(|caps| caps.effective);
    let secure = new.uid[0] != new.euid() || new.gid[0] != new.egid() || gained || raised;
    Ok((new, secure))
}

/// capabilities(7), "Transformation of capabilities during execve".
fn exec_caps(old: &Creds, new: &Creds, changed: bool, file: Option<FileCaps>) -> Result<Capabilities, Errno> {
    let had = old.caps;
    let ambient = if changed || file.is_some() { 0 } else { had.ambient };
    let rooted = new.securebits & SECBIT_NOROOT == 0;
    let everything = had.bounding | had.inheritable;
    let own = file.map_or(0, |f| f.permitted & had.bounding | f.inheritable & had.inheritable);
    if file.is_some_and(|f| f.effective && f.permitted & !own != 0) {
        return Err(Errno::EPERM);
    }
    let (given, in_force) = match (rooted, new.uid[0], new.euid()) {
        // A set-user-id-root program with capabilities of its own gets those alone.
        (true, real, 0) if real == 0 || file.is_none() => (everything, true),
        (true, 0, _) => (everything, file.is_some_and(|f| f.effective)),
        _ => (own, file.is_some_and(|f| f.effective)),
    };
    // PR_SET_NO_NEW_PRIVS: nothing is gained.
    let given = if old.no_new_privs { given & had.permitted } else { given };
    let permitted = given | ambient;
    let effective = if in_force { permitted } else { ambient };
    Ok(Capabilities { effective, permitted, inheritable: had.inheritable, bounding: had.bounding, ambient })
}

/// The part of a path that `comm` shows.
#[must_use]
pub fn comm_of(path: &[u8]) -> Vec<u8> {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    base[..base.len().min(COMM_LEN)].to_vec()
}

/// What a ready `execve` holds.
struct Prepared {
    mm: Arc<Mm>,
    loaded: Loaded,
    creds: Arc<Creds>,
    secure: bool,
    comm: Vec<u8>,
}

/// What AT_EXECFN and a script's argument call the program (`alloc_bprm`).
fn exec_name(dir: FdNum, path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') || dir.0 == libc::AT_FDCWD {
        return path.to_vec();
    }
    let mut name = format!("/dev/fd/{}", dir.0).into_bytes();
    if !path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(path);
    }
    name
}

/// Builds the new program's address space.
fn prepare(
    cx: &mut CurrentTask<'_>,
    file: Arc<FileDescription>,
    path: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<Prepared, LoadError> {
    let kernel = cx.kernel().clone();
    let old = cx.creds();
    let mm = Mm::new(&kernel)?;
    let limits = *cx.task.group.limits.lock();
    mm.set_limits(limits.for_memory(&old));
    let mut seed = [0; 16];
    random::fill(&mut seed);
    let aslr = std::array::from_fn(|_| random::next_u64());
    let comm = comm_of(&path);
    let mut decided = Ok((Creds::clone(&old), false));
    let mut open = |path: &[u8]| open_exec(cx, FdNum(libc::AT_FDCWD), path, 0);
    let mut ids = |file: &Arc<FileDescription>| {
        decided = exec_creds(&old, file);
        let (creds, secure) = decided.as_ref().map_or((&*old, false), |(creds, secure)| (creds, *secure));
        ExecIds { uid: creds.uid[0], euid: creds.euid(), gid: creds.gid[0], egid: creds.egid(), secure }
    };
    let stack_limit = limits.get(resource::STACK).map_or(8 << 20, |l| l.soft);
    let request =
        ExecRequest { file, path, argv, envp, random: seed, aslr, stack_limit, open: &mut open, ids: &mut ids };
    let loaded = loader::load(&kernel, &mm, request)?;
    mm.premap_program();
    let (creds, secure) = decided?;
    Ok(Prepared { mm, loaded, creds: Arc::new(creds), secure, comm })
}

/// `execveat(2)`, arguments read.
///
/// # Errors
/// As the man page.
pub fn execve(
    cx: &mut CurrentTask<'_>,
    dir: FdNum,
    path: &[u8],
    flags: u32,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> SyscallResult {
    let file = open_exec(cx, dir, path, flags)?;
    let prepared = match prepare(cx, file, exec_name(dir, path), argv, envp) {
        Ok(prepared) => prepared,
        Err(LoadError::Refused(errno)) => return Err(errno),
        Err(LoadError::Fatal(errno)) => {
            log::debug!("tid {}: execve fails late ({errno:?}): SIGSEGV", cx.task.tid.0);
            exit::kill_group(&cx.task.group, libc::SIGSEGV);
            return Err(errno);
        }
    };
    dethread(cx)?;
    Ok(Flow::Block(Box::new(ExecOp { prepared: Some(prepared) })))
}

/// Makes the calling task, the only one of its process, run its first program; descriptors and handlers are as boot
/// left them.
///
/// # Errors
/// As execve(2).
pub fn exec_first(cx: &mut CurrentTask<'_>, path: &[u8], argv: Vec<Vec<u8>>, envp: Vec<Vec<u8>>) -> Result<(), Errno> {
    let dir = FdNum(libc::AT_FDCWD);
    let file = open_exec(cx, dir, path, 0)?;
    let prepared = prepare(cx, file, path.to_vec(), argv, envp).map_err(LoadError::errno)?;
    commit(cx, prepared);
    Ok(())
}

/// Tells all other threads to exit.
fn dethread(cx: &mut CurrentTask<'_>) -> Result<(), Errno> {
    let mut state = cx.task.group.state.lock();
    if state.exiting.is_some() || state.exec.is_some() {
        // Another thread was faster: this one is about to exit.
        return Err(Errno::EAGAIN);
    }
    if state.tasks.len() > 1 {
        state.exec = Some(cx.task.tid);
        // Stopped threads must be able to die.
        state.stop = None;
        for task in state.tasks.iter().filter(|t| t.tid != cx.task.tid) {
            task.raise(flags::EXIT);
        }
    }
    Ok(())
}

/// Waits until the caller is its process's only thread, then becomes the new program. Only death ends it sooner.
struct ExecOp {
    prepared: Option<Prepared>,
}

impl Op for ExecOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if cx.task.flags.load(Ordering::SeqCst) & flags::EXIT != 0 || cx.task.group.state.lock().tasks.len() > 1 {
            return Attempt::Pending;
        }
        if let Some(prepared) = self.prepared.take() {
            commit(cx, prepared);
        }
        Attempt::Done(Ok(0))
    }

    /// Nothing to enlist with: the last thread that leaves notifies the caller itself.
    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn is_killable_only(&self) -> bool {
        true
    }

    fn save(&self, _saver: &mut Saver) -> Result<OpState, Refused> {
        Err(Refused::waiting(self.name()))
    }

    fn name(&self) -> &'static str {
        "execve"
    }
}

fn commit(cx: &mut CurrentTask<'_>, prepared: Prepared) {
    let group = cx.task.group.clone();
    exit::release_memory(cx);
    close_on_exec(cx);
    let actions = Arc::new(group.signals.actions().fork());
    actions.reset_for_exec();
    group.signals.set_actions(actions);
    group.timers.clear_posix();
    group.dumpable.store(u8::from(!prepared.secure), Ordering::Relaxed);
    {
        let mut state = group.state.lock();
        state.exec = None;
        state.did_exec = true;
        state.exit_signal = libc::SIGCHLD;
    }
    if prepared.secure {
        // A set-id program does not start with an unlimited stack of the caller's choosing (`begin_new_exec`).
        let mut limits = group.limits.lock();
        if let Some(limit) = limits.get(resource::STACK).filter(|l| l.soft > 8 << 20) {
            limits.set(resource::STACK, Limit { soft: 8 << 20, hard: limit.hard });
        }
    }
    let mut arch = ArchState::new();
    (arch.regs.rip, arch.regs.rsp) = (prepared.loaded.entry, prepared.loaded.sp);
    if cx.task.is_leader() {
        become_program(cx, prepared, arch);
        if let Some(planned) = ptrace::stop::after_exec(cx, &cx.task.clone(), cx.task.tid.0) {
            ptrace::stop::plan(cx, planned);
        }
    } else {
        hand_over(cx, prepared, arch);
    }
}

fn close_on_exec(cx: &mut CurrentTask<'_>) {
    let fds = {
        let mut shared = cx.task.shared.lock();
        // A table shared with another process is no longer shared.
        let old = shared.fds.take();
        let new = old.as_ref().map(|t| if Arc::strong_count(t) > 1 { Arc::new(FdTable::fork(t)) } else { t.clone() });
        shared.fds.clone_from(&new);
        drop(shared);
        drop(old);
        new
    };
    let Some(fds) = fds else { return };
    for file in fds.remove_range(0, u32::MAX, |cloexec| cloexec) {
        crate::syscalls::fd::closed(cx, &fds, file);
    }
}

fn become_program(cx: &mut CurrentTask<'_>, prepared: Prepared, arch: ArchState) {
    let mut shared = cx.task.shared.lock();
    shared.mm = Some(prepared.mm.clone());
    shared.creds = prepared.creds;
    shared.name = prepared.comm;
    drop(shared);
    if prepared.secure {
        cx.task.death_signal.store(0, Ordering::Relaxed);
    }
    let own = &mut *cx.own;
    own.arch = arch;
    own.mm = Some(prepared.mm);
    own.altstack = AltStack::default();
    own.fault = FaultContext::default();
    own.robust_list = (0, 0);
    own.restart = Restart::None;
}

/// The caller is not the first thread: the program runs on in a task with that thread's id, and the caller ends.
fn hand_over(cx: &mut CurrentTask<'_>, prepared: Prepared, arch: ArchState) {
    let (kernel, group) = (cx.kernel().clone(), cx.task.group.clone());
    let (fds, fs) = {
        let mut shared = cx.task.shared.lock();
        (shared.fds.take(), shared.fs.take())
    };
    let shared = TaskShared { mm: Some(prepared.mm), fds, fs, creds: prepared.creds, name: prepared.comm };
    let signals = TaskSignals::with_mask(cx.task.signals.mask());
    signals.adopt_queue(cx.task.signals.take_queue());
    let (saved, slack, undo) = (cx.own.saved_sigmask.take(), cx.own.timer_slack, cx.own.sem_undo.take());
    let heir = Task::with(&kernel, group.tgid, group.clone(), arch, shared, signals, |own| {
        own.saved_sigmask = saved;
        own.timer_slack = slack;
        own.sem_undo = undo;
    });
    if let Some(tracer) = cx.task.ptrace.tracer() {
        let (seized, options) = {
            let state = cx.task.ptrace.0.lock();
            (state.seized, state.options)
        };
        let calls = cx.task.flags.load(Ordering::SeqCst) & flags::TRACE_CALLS;
        ptrace::unlink(cx.task, 0);
        ptrace::link(&heir, &tracer, seized, options);
        heir.flags.fetch_or(calls, Ordering::SeqCst);
        let planned = ptrace::stop::after_exec(cx, &heir, cx.task.tid.0);
        heir.own.try_lock().into_iter().for_each(|mut own| own.trace_own.planned.extend(planned));
        heir.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
    }
    heir.seccomp.copy_from(&cx.task.seccomp);
    let attr = *cx.task.sched_attr.lock();
    *heir.sched_attr.lock() = attr;
    heir.inherit_usage(cx.task);
    let dropped = {
        let mut tree = cx.task.pids().tree();
        let mut state = group.state.lock();
        // A kill that came meanwhile must reach the heir.
        heir.flags.fetch_or(cx.task.flags.load(Ordering::SeqCst) & flags::EXIT, Ordering::SeqCst);
        state.tasks = vec![heir.clone()];
        drop(state);
        (tree.replace_task(&heir), tree.remove_task(cx.task.tid))
    };
    if let Some(old) = dropped.0.as_ref().filter(|t| ptrace::is_traced(t)) {
        ptrace::unlink(old, 0);
    }
    drop(dropped);
    cx.own.exiting = true;
    kernel.start_task(&heir);
}
