//! Threads and processes: birth, death, names.

use abi::{Errno, UserAddr};

use crate::kernel::clone::{self, CloneArgs, flag};
use crate::kernel::exit;
use crate::kernel::limits::resource;
use crate::kernel::op::{Flow, SyscallResult, ok, ret};
use crate::kernel::pidfd::PidFile;
use crate::kernel::ptrace;
use crate::kernel::signal::info::NSIG;
use crate::kernel::task::{CurrentTask, Tid};
use crate::syscall_table;
use crate::vfs::FdNum;

syscall_table! {
    39 getpid();
    56 clone(flags: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) Partial("no new namespaces, no CLONE_IO effect");
    57 fork();
    58 vfork();
    60 exit(status: i32);
    110 getppid();
    186 gettid();
    218 set_tid_address(addr: u64);
    231 exit_group(status: i32);
    272 unshare(flags: u64) Partial("CLONE_FS, CLONE_FILES, CLONE_NEWNS and what a single thread shares anyway; no other namespaces");
    308 setns(fd: FdNum, kind: i32) Partial("no namespaces: EPERM, EINVAL");
    312 kcmp(pid1: i32, pid2: i32, kind: i32, idx1: u64, idx2: u64) Partial("no KCMP_EPOLL_TFD");
    434 pidfd_open(pid: i32, flags: u32);
    435 clone3(args: UserAddr, size: usize) Partial("as clone; no set_tid, no cgroup");
    438 pidfd_getfd(pidfd: FdNum, target: FdNum, flags: u32);
}

fn getpid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.task.group.tgid.0)
}

fn getppid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.task.group.parent_tgid())
}

fn gettid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.task.tid.0)
}

fn set_tid_address(cx: &mut CurrentTask<'_>, addr: u64) -> SyscallResult {
    cx.own.clear_tid = addr;
    ret(cx.task.tid.0)
}

fn exit(cx: &mut CurrentTask<'_>, status: i32) -> SyscallResult {
    let status = (status & 0xff) << 8;
    if !ptrace::stop::before_exit(cx, status, false) {
        exit::exit_current(cx, Some(status));
    }
    Ok(Flow::Resume)
}

fn exit_group(cx: &mut CurrentTask<'_>, status: i32) -> SyscallResult {
    if !ptrace::stop::before_exit(cx, (status & 0xff) << 8, true) {
        exit::exit_group(cx, status);
    }
    Ok(Flow::Resume)
}

fn fork(cx: &mut CurrentTask<'_>) -> SyscallResult {
    clone::clone(cx, &CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })
}

fn vfork(cx: &mut CurrentTask<'_>) -> SyscallResult {
    let flags = flag::VFORK | flag::VM;
    clone::clone(cx, &CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })
}

fn clone(cx: &mut CurrentTask<'_>, raw: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) -> SyscallResult {
    // The low byte is the signal; the flags are the low 32 bits.
    let flags = raw & 0xffff_ff00;
    let exit_signal = i32::try_from(raw & 0xff).unwrap_or(0);
    if flags & flag::PIDFD != 0 && flags & flag::PARENT_SETTID != 0 {
        return Err(Errno::EINVAL);
    }
    // A number that names no signal is sent to nobody.
    let exit_signal = if exit_signal > NSIG { 0 } else { exit_signal };
    clone::clone(cx, &CloneArgs { flags, exit_signal, stack, parent_tid, child_tid, pidfd: parent_tid, tls })
}

/// Sizes of `struct clone_args` as it grew; anything behind must be zero.
const CLONE_ARGS_VER0: usize = 64;
const CLONE_ARGS_VER2: usize = 88;

fn clone3(cx: &mut CurrentTask<'_>, args: UserAddr, size: usize) -> SyscallResult {
    if size > abi::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    if size < CLONE_ARGS_VER0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; size.max(CLONE_ARGS_VER2)];
    cx.mm()?.read_bytes(args, &mut raw[..size])?;
    if raw[CLONE_ARGS_VER2..].iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let field = |index: usize| {
        let bytes = raw.get(index * 8..index * 8 + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let flags = field(0);
    let known = 0xffff_ff00 | flag::NEWTIME | flag::CLEAR_SIGHAND | flag::INTO_CGROUP;
    let (stack, stack_size) = (field(5), field(6));
    // The signal has a field of its own here; DETACHED is gone.
    let bad = flags & !known != 0
        || flags & flag::DETACHED != 0
        || flags & flag::NEWTIME != 0
        || field(4) > u64::from(NSIG.unsigned_abs())
        || flags & (flag::THREAD | flag::PARENT) != 0 && field(4) != 0
        || (stack == 0) != (stack_size == 0)
        || (field(8) == 0) != (field(9) == 0)
        || field(9) > 32;
    if bad {
        return Err(Errno::EINVAL);
    }
    if field(9) != 0 {
        // Choosing ids is for CAP_CHECKPOINT_RESTORE, in a namespace that allows it.
        return Err(Errno::EPERM);
    }
    let exit_signal = i32::try_from(field(4)).map_err(|_| Errno::EINVAL)?;
    let stack = stack.checked_add(stack_size).ok_or(Errno::EINVAL)?;
    let args = CloneArgs {
        flags,
        exit_signal,
        stack,
        parent_tid: field(3),
        child_tid: field(2),
        pidfd: field(1),
        tls: field(7),
    };
    clone::clone(cx, &args)
}

fn unshare(cx: &mut CurrentTask<'_>, flags: u64) -> SyscallResult {
    let known = flag::THREAD
        | flag::FS
        | flag::SIGHAND
        | flag::VM
        | flag::FILES
        | flag::SYSVSEM
        | flag::NAMESPACES
        | flag::NEWTIME;
    if flags & !known != 0 || flags & flag::NEWTIME != 0 {
        return Err(Errno::EINVAL);
    }
    let alone = cx.task.group.state.lock().tasks.len() == 1;
    if flags & (flag::THREAD | flag::SIGHAND | flag::VM) != 0 && !alone {
        return Err(Errno::EINVAL);
    }
    clone::check_namespaces(cx, flags)?;
    let (fds, fs) = (cx.fds()?, cx.fs()?);
    let mut old = (None, None);
    let mut shared = cx.task.shared.lock();
    if flags & flag::FILES != 0 {
        old.0 = shared.fds.replace(std::sync::Arc::new(crate::vfs::FdTable::fork(&fds)));
    }
    drop(shared);
    if flags & (flag::FS | flag::NEWNS) != 0 {
        let copy = std::sync::Arc::new(fs.fork());
        if flags & flag::NEWNS != 0 {
            clone::new_mounts(cx, &copy)?;
        }
        old.1 = cx.task.shared.lock().fs.replace(copy);
    }
    drop(old);
    ok()
}

fn setns(cx: &mut CurrentTask<'_>, fd: FdNum, _kind: i32) -> SyscallResult {
    cx.fds()?.get(fd)?;
    Err(Errno::EINVAL)
}

fn pidfd_open(cx: &mut CurrentTask<'_>, pid: i32, flags: u32) -> SyscallResult {
    const PIDFD_NONBLOCK: u32 = 0o4000;
    if flags & !PIDFD_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let group = cx.task.pids().group(Tid(pid));
    // A thread that leads no process has no pidfd.
    let known = cx.task.pids().task(Tid(pid)).is_some();
    let group = group.ok_or(if known { Errno::EINVAL } else { Errno::ESRCH })?;
    let file = PidFile::open(&group, flags & PIDFD_NONBLOCK != 0);
    let fd = cx.fds()?.install(file, true, 0, cx.task.group.limit(resource::NOFILE))?;
    ret(fd.0)
}

fn pidfd_getfd(cx: &mut CurrentTask<'_>, pidfd: FdNum, target: FdNum, flags: u32) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let fds = cx.fds()?;
    let group = PidFile::group_of(&*fds.get(pidfd)?)?;
    let task = group.first_task().ok_or(Errno::ESRCH)?;
    if !may_inspect(cx, &task) {
        return Err(Errno::EPERM);
    }
    let file = task.fds().ok_or(Errno::ESRCH)?.get(target)?;
    ret(fds.install(file, true, 0, cx.task.group.limit(resource::NOFILE))?.0)
}

/// Whether the caller may look into `task` as a debugger does (`__ptrace_may_access` with real ids).
#[must_use]
pub fn may_inspect(cx: &CurrentTask<'_>, task: &crate::kernel::task::Task) -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    if task.group.tgid == cx.task.group.tgid {
        return true;
    }
    let (me, them) = (cx.creds(), task.creds());
    let same = them.uid[..3].iter().all(|u| *u == me.uid[0]) && them.gid[..3].iter().all(|g| *g == me.gid[0]);
    me.has_cap(CAP_SYS_PTRACE) || same && task.group.is_dumpable()
}

fn kcmp(cx: &mut CurrentTask<'_>, pid1: i32, pid2: i32, kind: i32, idx1: u64, idx2: u64) -> SyscallResult {
    let find = |pid| cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH);
    let (a, b) = (find(pid1)?, find(pid2)?);
    if !may_inspect(cx, &a) || !may_inspect(cx, &b) {
        return Err(Errno::EPERM);
    }
    fn key<T: ?Sized>(of: Option<std::sync::Arc<T>>) -> u64 {
        of.map_or(0, |o| std::sync::Arc::as_ptr(&o).cast::<()>() as usize as u64)
    }
    let file = |task: &crate::kernel::task::Task, index: u64| {
        let fd = i32::try_from(index).map_err(|_| Errno::EBADF)?;
        let file = task.fds().ok_or(Errno::EBADF)?.get(FdNum(fd))?;
        Ok::<_, Errno>(key(Some(file)))
    };
    let (x, y) = match kind {
        0 => (file(&a, idx1)?, file(&b, idx2)?),
        1 => (key(a.mm()), key(b.mm())),
        2 => (key(a.fds()), key(b.fds())),
        3 => (key(a.fs()), key(b.fs())),
        4 => (key(Some(a.group.signals.actions())), key(Some(b.group.signals.actions()))),
        5 | 6 => (0, 0),
        7 => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    // 0 equal, 1 less, 2 greater; the order is by identity and means nothing else.
    ret(match x.cmp(&y) {
        std::cmp::Ordering::Equal => 0u64,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    })
}
