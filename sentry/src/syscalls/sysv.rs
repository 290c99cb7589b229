//! System V IPC: shmget and its kin.

mod control;

use std::sync::Arc;

use abi::{Errno, UserAddr};
use platform::Prot;

use crate::ipc::IPC_NOWAIT;
use crate::ipc::ids::{Found, Ids, Perm};
use crate::ipc::msg::{self, MSG_COPY, MSG_EXCEPT, MSGMAX, MSGMNI, Message, Queue, ReceiveOp, SendOp};
use crate::ipc::sem::{SEM_UNDO, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SemBuf, SemOp, Set, UndoList};
use crate::ipc::shm::{self, SHMMAX, SHMMNI, Segment};
use crate::kernel::op::{self, SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::mm::map::Place;
use crate::sync::Mutex;
use crate::syscall_table;
use crate::syscalls::deadline;

syscall_table! {
    29 shmget(key: i32, size: u64, flags: u32) Partial("no huge pages");
    30 shmat(id: i32, addr: u64, flags: u32);
    31 shmctl(id: i32, cmd: i32, buf: UserAddr);
    64 semget(key: i32, count: i32, flags: u32);
    65 semop(id: i32, ops: UserAddr, count: usize);
    66 semctl(id: i32, num: i32, cmd: i32, arg: u64);
    67 shmdt(addr: u64);
    68 msgget(key: i32, flags: u32);
    69 msgsnd(id: i32, from: UserAddr, size: usize, flags: u32);
    70 msgrcv(id: i32, to: UserAddr, size: usize, wanted: i64, flags: u32);
    71 msgctl(id: i32, cmd: i32, buf: UserAddr);
    220 semtimedop(id: i32, ops: UserAddr, count: usize, timeout: UserAddr);
}

const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100_000;

use control::{msgctl, semctl, shmctl};

/// The object with this key, or a new one that `add` makes, and its id.
fn get<T>(
    cx: &CurrentTask<'_>,
    (key, flags): (i32, u32),
    table: &Mutex<Ids<T>>,
    fits: impl FnOnce(&T) -> Result<Perm, Errno>,
    add: impl FnOnce(&mut Ids<T>, Perm) -> Result<i32, Errno>,
) -> SyscallResult {
    let creds = cx.creds();
    let mut ids = table.lock();
    match ids.find(key, flags)? {
        Found::New => ret(add(&mut ids, Perm::new(key, flags, &creds))?),
        Found::Old(id, object) => {
            drop(ids);
            fits(&object)?.check(&creds, flags)?;
            ret(id)
        }
    }
}

fn shmget(cx: &mut CurrentTask<'_>, key: i32, size: u64, flags: u32) -> SyscallResult {
    let (kernel, ipc) = (cx.kernel().clone(), cx.task.ns().ipc.clone());
    let pid = cx.task.group.tgid.0;
    let fits = |segment: &Segment| {
        if size > segment.size { Err(Errno::EINVAL) } else { Ok(segment.state.lock().perm) }
    };
    get(cx, (key, flags), &ipc.shm, fits, |ids, perm| {
        if size == 0 || size > SHMMAX {
            return Err(Errno::EINVAL);
        }
        // Larger than any address space: Linux finds no pages for it.
        if size > 1 << 47 || flags & SHM_HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        ids.add(key, SHMMNI, |id, seq| Segment::new((&kernel, &ipc), id, size, pid, Perm { seq, ..perm }))
    })
}

fn shmat(cx: &mut CurrentTask<'_>, id: i32, addr: u64, flags: u32) -> SyscallResult {
    let segment = cx.task.ns().ipc.shm.lock().get(id)?;
    let remap = flags & SHM_REMAP != 0;
    let at = if flags & SHM_RND != 0 { abi::page_down(addr) } else { addr };
    if at & abi::PAGE_MASK != 0 || remap && at == 0 {
        return Err(Errno::EINVAL);
    }
    let mut prot = if flags & SHM_RDONLY != 0 { Prot::READ } else { Prot::READ | Prot::WRITE };
    let mut wanted = if flags & SHM_RDONLY != 0 { 0o444 } else { 0o666 };
    if flags & SHM_EXEC != 0 {
        prot |= Prot::EXEC;
        wanted |= 0o111;
    }
    let creds = cx.creds();
    segment.state.lock().perm.check(&creds, wanted)?;
    let place = match (at, remap) {
        (0, _) => Place::Hint(0),
        (at, true) => Place::Fixed(at),
        (at, false) => Place::FixedNoReplace(at),
    };
    let answer = segment.attach(&*cx.mm()?, place, prot, cx.task.group.tgid.0);
    // Without SHM_REMAP an occupied place is EINVAL (shmat(2)).
    ret(answer.map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?)
}

fn shmdt(cx: &mut CurrentTask<'_>, addr: u64) -> SyscallResult {
    if addr & abi::PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    shm::detach(&*cx.mm()?, addr, cx.task.group.tgid.0, &cx.task.ns().ipc)?;
    ok()
}

fn semget(cx: &mut CurrentTask<'_>, key: i32, count: i32, flags: u32) -> SyscallResult {
    let count = usize::try_from(count).ok().filter(|n| *n <= SEMMSL).ok_or(Errno::EINVAL)?;
    let (kernel, ipc) = (cx.kernel().clone(), cx.task.ns().ipc.clone());
    let fits = |set: &Set| {
        let state = set.state.lock();
        if count > state.sems.len() { Err(Errno::EINVAL) } else { Ok(state.perm) }
    };
    get(cx, (key, flags), &ipc.sem, fits, |ids, perm| {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let all: usize = ids.iter().map(|(_, set)| set.state.lock().sems.len()).sum();
        if all + count > SEMMNS {
            return Err(Errno::ENOSPC);
        }
        ids.add(key, SEMMNI, |id, seq| Set::new(&kernel, id, count, Perm { seq, ..perm }))
    })
}

fn semop(cx: &mut CurrentTask<'_>, id: i32, ops: UserAddr, count: usize) -> SyscallResult {
    semtimedop(cx, id, ops, count, UserAddr(0))
}

/// The calling task's undo list, made where it has none.
#[must_use]
pub fn undo_list(cx: &mut CurrentTask<'_>) -> Arc<UndoList> {
    let (kernel, ipc, pid) = (&cx.task.kernel, &cx.task.ns().ipc, cx.task.group.tgid.0);
    cx.own.sem_undo.get_or_insert_with(|| UndoList::new(kernel, ipc, pid)).clone()
}

fn semtimedop(cx: &mut CurrentTask<'_>, id: i32, ops: UserAddr, count: usize, timeout: UserAddr) -> SyscallResult {
    let deadline = deadline::from_timespec(cx, timeout)?;
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > SEMOPM {
        return Err(Errno::E2BIG);
    }
    let mut raw = vec![0u8; count * 6];
    cx.mm()?.read_bytes(ops, &mut raw)?;
    let half = |b: &[u8], i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
    let decode = |b: &[u8]| SemBuf { num: half(b, 0), op: half(b, 2).cast_signed(), flags: u32::from(half(b, 4)) };
    let ops: Vec<SemBuf> = raw.chunks_exact(6).map(decode).collect();
    let set = cx.task.ns().ipc.sem.lock().get(id)?;
    let alters = ops.iter().any(|op| op.op != 0);
    let creds = cx.creds();
    {
        let state = set.state.lock();
        if ops.iter().any(|op| usize::from(op.num) >= state.sems.len()) {
            return Err(Errno::EFBIG);
        }
        state.perm.check(&creds, if alters { 0o222 } else { 0o444 })?;
    }
    let undo = ops.iter().any(|op| op.flags & SEM_UNDO != 0 && op.op != 0).then(|| undo_list(cx));
    op::start(cx, SemOp::new(set, ops, undo, deadline))
}

fn msgget(cx: &mut CurrentTask<'_>, key: i32, flags: u32) -> SyscallResult {
    let (kernel, ipc) = (cx.kernel().clone(), cx.task.ns().ipc.clone());
    let fits = |queue: &Queue| Ok(queue.state.lock().perm);
    get(cx, (key, flags), &ipc.msg, fits, |ids, perm| {
        ids.add(key, MSGMNI, |id, seq| Queue::new(&kernel, id, Perm { seq, ..perm }))
    })
}

fn msgsnd(cx: &mut CurrentTask<'_>, id: i32, from: UserAddr, size: usize, flags: u32) -> SyscallResult {
    let mm = cx.mm()?;
    let kind = mm.read_obj::<i64>(from)?;
    if size > MSGMAX || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = vec![0; size];
    mm.read_bytes(from.checked_add(8).ok_or(Errno::EFAULT)?, &mut text)?;
    let queue = cx.task.ns().ipc.msg.lock().get(id)?;
    op::start(cx, SendOp { queue, message: Message { kind, text: Arc::from(text) }, flags })
}

fn msgrcv(cx: &mut CurrentTask<'_>, id: i32, to: UserAddr, size: usize, wanted: i64, flags: u32) -> SyscallResult {
    if id < 0 || size > i64::MAX as usize {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let queue = cx.task.ns().ipc.msg.lock().get(id)?;
    op::start(cx, ReceiveOp { queue, to, size, wanted, flags })
}

/// Sizes that the INFO commands tell.
const LIMITS: (usize, u64) = (MSGMAX, msg::MSGMNB);
