//! ptrace(2), and process_vm_readv(2) and process_vm_writev(2).

mod regs;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, UserAddr};

use crate::kernel::exit;
use crate::kernel::op::{Flow, SyscallResult, ok};
use crate::kernel::ptrace::{self, Kind, Stop, link, option, tracer, unlink};
use crate::kernel::signal::{SigInfo, info::UNBLOCKABLE, send_to_task};
use crate::kernel::task::{CurrentTask, Task, TaskOwned, Tid, flags};
use crate::mm::Mm;
use crate::sync::MutexGuard;
use crate::syscall_table;
use crate::syscalls::process::may_inspect;

syscall_table! {
    101 ptrace(request: i64, pid: i32, addr: u64, data: u64) Partial("no SYSEMU, PEEKSIGINFO, SECCOMP_GET_FILTER, debug registers; a tracer is a process");
    310 process_vm_readv(pid: i32, local: UserAddr, local_count: u64, remote: UserAddr, remote_count: u64, flags: u64);
    311 process_vm_writev(pid: i32, local: UserAddr, local_count: u64, remote: UserAddr, remote_count: u64, flags: u64);
}

#[allow(missing_docs, reason = "named as in ptrace(2)")]
mod req {
    pub const TRACEME: i64 = 0;
    pub const PEEKTEXT: i64 = 1;
    pub const PEEKDATA: i64 = 2;
    pub const PEEKUSR: i64 = 3;
    pub const POKETEXT: i64 = 4;
    pub const POKEDATA: i64 = 5;
    pub const POKEUSR: i64 = 6;
    pub const CONT: i64 = 7;
    pub const KILL: i64 = 8;
    pub const SINGLESTEP: i64 = 9;
    pub const GETREGS: i64 = 12;
    pub const SETREGS: i64 = 13;
    pub const GETFPREGS: i64 = 14;
    pub const SETFPREGS: i64 = 15;
    pub const ATTACH: i64 = 16;
    pub const DETACH: i64 = 17;
    pub const OLDSETOPTIONS: i64 = 21;
    pub const SYSCALL: i64 = 24;
    pub const SETOPTIONS: i64 = 0x4200;
    pub const GETEVENTMSG: i64 = 0x4201;
    pub const GETSIGINFO: i64 = 0x4202;
    pub const SETSIGINFO: i64 = 0x4203;
    pub const GETREGSET: i64 = 0x4204;
    pub const SETREGSET: i64 = 0x4205;
    pub const SEIZE: i64 = 0x4206;
    pub const INTERRUPT: i64 = 0x4207;
    pub const LISTEN: i64 = 0x4208;
    pub const GETSIGMASK: i64 = 0x420a;
    pub const SETSIGMASK: i64 = 0x420b;
    pub const GET_SYSCALL_INFO: i64 = 0x420e;
}

fn ptrace(cx: &mut CurrentTask<'_>, request: i64, pid: i32, addr: u64, data: u64) -> SyscallResult {
    if request == req::TRACEME {
        return trace_me(cx);
    }
    let task = cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?;
    match request {
        req::ATTACH => return attach(cx, &task, None),
        req::SEIZE => {
            let options = u32::try_from(data).ok().filter(|o| o & !option::KNOWN == 0).ok_or(Errno::EIO)?;
            return if addr == 0 { attach(cx, &task, Some(options)) } else { Err(Errno::EIO) };
        }
        req::KILL | req::INTERRUPT => {
            let mine = task.ptrace.tracer().is_some_and(|t| Arc::ptr_eq(&t, &cx.task.group));
            if !mine {
                return Err(Errno::ESRCH);
            }
            return if request == req::KILL { kill(&task) } else { interrupt(&task) };
        }
        _ => {}
    }
    let stop = tracer::stopped(cx, &task)?;
    match request {
        req::CONT | req::SYSCALL | req::SINGLESTEP => {
            let mode = match request {
                req::SYSCALL => flags::TRACE_CALLS,
                req::SINGLESTEP => flags::TRACE_STEP,
                _ => 0,
            };
            tracer::resume(&task, mode, tracer::signal_number(data)?);
            ok()
        }
        req::DETACH => {
            unlink(&task, tracer::signal_number(data)?);
            ok()
        }
        req::LISTEN => tracer::listen(&task).and_then(|()| ok()),
        req::SETOPTIONS | req::OLDSETOPTIONS => {
            let options = u32::try_from(data).ok().filter(|o| o & !option::KNOWN == 0).ok_or(Errno::EINVAL)?;
            task.ptrace.0.lock().options = options;
            ok()
        }
        req::GETEVENTMSG => {
            let message = task.ptrace.0.lock().message;
            cx.mm()?.write_obj(UserAddr(data), &message)?;
            ok()
        }
        _ => look(cx, &task, &stop, (request, addr, data)),
    }
}

/// Requests that look at a stopped task, or change it.
fn look(cx: &CurrentTask<'_>, task: &Arc<Task>, stop: &Stop, (request, addr, data): (i64, u64, u64)) -> SyscallResult {
    let (mm, at) = (cx.mm()?, UserAddr(data));
    match request {
        req::PEEKTEXT | req::PEEKDATA => {
            let mut word = [0u8; 8];
            let read = task.mm().ok_or(Errno::ESRCH)?.read_forced(UserAddr(addr), &mut word);
            read.map_err(|_| Errno::EIO)?;
            mm.write_bytes(at, &word)?;
            ok()
        }
        req::POKETEXT | req::POKEDATA => {
            let wrote = task.mm().ok_or(Errno::ESRCH)?.write_forced(UserAddr(addr), &data.to_le_bytes());
            wrote.map_err(|_| Errno::EIO)?;
            ok()
        }
        req::GETSIGINFO => {
            let info = stop.info.ok_or(Errno::EINVAL)?;
            mm.write_bytes(at, &info.to_bytes())?;
            ok()
        }
        req::SETSIGINFO => {
            let raw = mm.read_obj::<[u8; 128]>(at)?;
            let mut state = task.ptrace.0.lock();
            let stop = state.stop.as_mut().filter(|s| s.info.is_some()).ok_or(Errno::EINVAL)?;
            stop.info = Some(SigInfo::from_bytes(&raw));
            ok()
        }
        req::GETSIGMASK | req::SETSIGMASK if addr != 8 => Err(Errno::EINVAL),
        req::GETSIGMASK => {
            mm.write_obj(at, &task.signals.mask())?;
            ok()
        }
        req::SETSIGMASK => {
            let mask = mm.read_obj::<u64>(at)? & !UNBLOCKABLE;
            task.signals.mask.store(mask, Ordering::SeqCst);
            ok()
        }
        _ => {
            let mut own = parked(task)?;
            regs::serve(&mm, task, &mut own, stop, (request, addr, data))
        }
    }
}

/// The own part of a stopped task. It is free unless SIGKILL set the task running again.
fn parked(task: &Arc<Task>) -> Result<MutexGuard<'_, TaskOwned>, Errno> {
    // A wake-up may have a worker look at it for a moment; SIGKILL makes it go.
    for _ in 0..10_000 {
        if let Some(own) = task.own.try_lock() {
            return Ok(own);
        }
        if task.ptrace.0.lock().stop.is_none() {
            break;
        }
        std::thread::yield_now();
    }
    Err(Errno::ESRCH)
}

fn trace_me(cx: &mut CurrentTask<'_>) -> SyscallResult {
    let parent = cx.task.group.state.lock().parent.upgrade();
    if ptrace::is_traced(cx.task) {
        return Err(Errno::EPERM);
    }
    let parent = parent.ok_or(Errno::EPERM)?;
    link(cx.task, &parent, false, 0);
    ok()
}

fn attach(cx: &mut CurrentTask<'_>, task: &Arc<Task>, seize: Option<u32>) -> SyscallResult {
    if Arc::ptr_eq(&task.group, &cx.task.group) || !may_inspect(cx, task) || ptrace::is_traced(task) {
        return Err(Errno::EPERM);
    }
    if task.mm().is_none() {
        // Exiting.
        return Err(Errno::EPERM);
    }
    link(task, &cx.task.group.clone(), seize.is_some(), seize.unwrap_or(0));
    if seize.is_none() {
        let (tgid, uid) = (cx.task.group.tgid.0, cx.creds().uid[0]);
        // SIGSTOP is not refused.
        let _ = send_to_task(task, SigInfo::user(libc::SIGSTOP, 0, tgid, uid));
    }
    // One that is stopped already shows that.
    task.notify();
    ok()
}

fn kill(task: &Arc<Task>) -> SyscallResult {
    exit::kill_group(&task.group, libc::SIGKILL);
    ok()
}

fn interrupt(task: &Arc<Task>) -> SyscallResult {
    {
        let mut state = task.ptrace.0.lock();
        if !state.seized {
            return Err(Errno::EIO);
        }
        if state.stop.is_none() || state.listening {
            state.interrupt = true;
            state.listening = false;
            task.flags.fetch_or(flags::TRACE_WORK, Ordering::SeqCst);
        }
    }
    task.notify();
    ok()
}

fn process_vm_readv(
    cx: &mut CurrentTask<'_>,
    pid: i32,
    local: UserAddr,
    local_count: u64,
    remote: UserAddr,
    remote_count: u64,
    flags: u64,
) -> SyscallResult {
    transfer(cx, pid, (local, local_count), (remote, remote_count), flags, false)
}

fn process_vm_writev(
    cx: &mut CurrentTask<'_>,
    pid: i32,
    local: UserAddr,
    local_count: u64,
    remote: UserAddr,
    remote_count: u64,
    flags: u64,
) -> SyscallResult {
    transfer(cx, pid, (local, local_count), (remote, remote_count), flags, true)
}

fn vectors(mm: &Mm, (at, count): (UserAddr, u64)) -> Result<Vec<[u64; 2]>, Errno> {
    const UIO_MAXIOV: u64 = 1024;
    if count > UIO_MAXIOV {
        return Err(Errno::EINVAL);
    }
    let mut out = Vec::new();
    let mut total = 0u64;
    for index in 0..count {
        let vector = mm.read_obj::<[u64; 2]>(at.checked_add(index * 16).ok_or(Errno::EFAULT)?)?;
        total = total.checked_add(vector[1]).filter(|t| *t <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        out.push(vector);
    }
    Ok(out)
}

fn transfer(
    cx: &mut CurrentTask<'_>,
    pid: i32,
    local: (UserAddr, u64),
    remote: (UserAddr, u64),
    flags: u64,
    write: bool,
) -> SyscallResult {
    /// Bytes moved in one call, so that it ends soon; a caller sees a short count, as at the end of memory.
    const MOST: u64 = 64 << 20;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mine = cx.mm()?;
    let (ours, mut theirs) = (vectors(&mine, local)?, vectors(&mine, remote)?);
    let task = cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?;
    if !may_inspect(cx, &task) {
        return Err(Errno::EPERM);
    }
    let other = task.mm().ok_or(Errno::ESRCH)?;
    theirs.reverse();
    let mut done = 0u64;
    for [mut at, mut left] in ours {
        while left > 0 && done < MOST {
            let Some([there, room]) = theirs.last_mut() else { return Ok(Flow::Return(done)) };
            if *room == 0 {
                theirs.pop();
                continue;
            }
            let want = left.min(*room).min(64 << 10);
            let (from, to) = if write { ((&mine, at), (&other, *there)) } else { ((&other, *there), (&mine, at)) };
            let moved = move_bytes(from, to, want);
            done += moved;
            if moved < want {
                return if done > 0 { Ok(Flow::Return(done)) } else { Err(Errno::EFAULT) };
            }
            (at, left) = (at.wrapping_add(moved), left - moved);
            (*there, *room) = (there.wrapping_add(moved), *room - moved);
        }
    }
    Ok(Flow::Return(done))
}

/// Copies between address spaces as far as possible.
fn move_bytes((from, at): (&Arc<Mm>, u64), (to, there): (&Arc<Mm>, u64), len: u64) -> u64 {
    let mut buffer = vec![0u8; usize::try_from(len).unwrap_or(0)];
    let read = from.read_partial(UserAddr(at), &mut buffer).unwrap_or(0);
    to.write_partial(UserAddr(there), &buffer[..read]).unwrap_or(0) as u64
}

/// `op` of PTRACE_GET_SYSCALL_INFO.
fn call_kind(stop: &Stop) -> u8 {
    match stop.kind {
        Kind::Entry => 1,
        Kind::Exit => 2,
        Kind::Seccomp(_) => 3,
        Kind::Signal | Kind::Event | Kind::Group => 0,
    }
}
