//! shmctl, semctl, msgctl.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::LIMITS;
use crate::ipc::cmd;
use crate::ipc::ids::{Ids, Perm, RawPerm};
use crate::ipc::msg::{self, MAX_CAPACITY, MSGMNI, Queue};
use crate::ipc::sem::{self, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX, Set};
use crate::ipc::shm::{SHM_LOCKED, SHMMAX, SHMMNI, Segment};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::sync::Mutex;

const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RESOURCE: u32 = 24;

/// `struct shmid64_ds`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ShmDs {
    perm: RawPerm,
    size: u64,
    times: [i64; 3],
    cpid: i32,
    lpid: i32,
    attached: u64,
    unused: [u64; 2],
}

/// `struct semid64_ds` of x86.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SemDs {
    perm: RawPerm,
    otime: i64,
    unused1: u64,
    ctime: i64,
    unused2: u64,
    count: u64,
    unused: [u64; 2],
}

/// `struct msqid64_ds`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MsgDs {
    perm: RawPerm,
    times: [i64; 3],
    bytes: u64,
    count: u64,
    capacity: u64,
    lspid: i32,
    lrpid: i32,
    unused: [u64; 2],
}

fn now(cx: &CurrentTask<'_>) -> i64 {
    cx.kernel().clock.realtime() / 1_000_000_000
}

/// What a STAT command looks at: an object by its id, or by its index (and then the answer is its id). The ANY forms
/// need no permission.
fn stat<T>(
    cx: &CurrentTask<'_>,
    table: &Mutex<Ids<T>>,
    id: i32,
    by_index: bool,
    any: bool,
    perm: impl FnOnce(&T) -> Perm,
) -> Result<(i32, Arc<T>), Errno> {
    let (answer, object) = {
        let ids = table.lock();
        if by_index || any { ids.at_index(id)? } else { (0, ids.get(id)?) }
    };
    if !any {
        perm(&object).check(&cx.creds(), 0o444)?;
    }
    Ok((answer, object))
}

/// Takes an object out for IPC_RMID.
fn remove<T>(
    cx: &CurrentTask<'_>,
    table: &Mutex<Ids<T>>,
    id: i32,
    perm: impl FnOnce(&T) -> Perm,
) -> Result<Arc<T>, Errno> {
    let mut ids = table.lock();
    let object = ids.get(id)?;
    perm(&object).check_owner(&cx.creds())?;
    drop(ids.remove(id));
    drop(ids);
    Ok(object)
}

pub fn shmctl(cx: &mut CurrentTask<'_>, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let ipc = cx.task.ns().ipc.clone();
    let table = &ipc.shm;
    match command {
        cmd::IPC_INFO => {
            cx.mm()?.write_obj(buf, &[SHMMAX, 1, SHMMNI as u64, SHMMNI as u64, SHMMAX, 0, 0, 0, 0])?;
            ret(table.lock().highest())
        }
        cmd::SHM_INFO => shm_info(cx, table, buf),
        cmd::IPC_STAT | cmd::SHM_STAT | cmd::SHM_STAT_ANY => {
            let (by_index, any) = (command == cmd::SHM_STAT, command == cmd::SHM_STAT_ANY);
            let (answer, segment) = stat(cx, table, id, by_index, any, |s: &Segment| s.state.lock().perm)?;
            let state = *segment.state.lock();
            let ds = ShmDs {
                perm: state.perm.raw(),
                size: segment.size,
                times: [state.atime, state.dtime, state.ctime],
                cpid: segment.cpid,
                lpid: state.lpid,
                attached: segment.attachments() as u64,
                unused: [0; 2],
            };
            cx.mm()?.write_obj(buf, &ds)?;
            ret(answer)
        }
        cmd::IPC_SET => {
            let ds = cx.mm()?.read_obj::<ShmDs>(buf)?;
            let segment = table.lock().get(id)?;
            let (creds, now) = (cx.creds(), now(cx));
            let mut state = segment.state.lock();
            state.perm.check_owner(&creds)?;
            state.perm.set(&ds.perm);
            state.ctime = now;
            ok()
        }
        cmd::IPC_RMID => {
            let segment = table.lock().get(id)?;
            let creds = cx.creds();
            segment.state.lock().perm.check_owner(&creds)?;
            segment.mark_removed();
            ok()
        }
        cmd::SHM_LOCK | cmd::SHM_UNLOCK => lock(cx, table, id, command == cmd::SHM_LOCK),
        _ => Err(Errno::EINVAL),
    }
}

fn shm_info(cx: &CurrentTask<'_>, table: &Mutex<Ids<Segment>>, buf: UserAddr) -> SyscallResult {
    let (segments, highest) = {
        let ids = table.lock();
        (ids.iter().map(|(_, s)| s.clone()).collect::<Vec<_>>(), ids.highest())
    };
    let pages = |bytes: u64| bytes.div_ceil(abi::PAGE_SIZE);
    let total: u64 = segments.iter().map(|s| pages(s.size)).sum();
    let resident: u64 = segments.iter().map(|s| pages(s.resident())).sum();
    cx.mm()?.write_obj(buf, &[segments.len() as u64, total, resident, 0, 0, 0])?;
    ret(highest)
}

/// SHM_LOCK and SHM_UNLOCK: nothing is swapped here, so only the mark changes.
fn lock(cx: &CurrentTask<'_>, table: &Mutex<Ids<Segment>>, id: i32, on: bool) -> SyscallResult {
    let segment = table.lock().get(id)?;
    let creds = cx.creds();
    let limit = cx.task.group.limit(crate::kernel::limits::resource::MEMLOCK);
    let mut state = segment.state.lock();
    if !creds.has_cap(CAP_IPC_LOCK) {
        state.perm.check_owner(&creds)?;
        if on && limit == 0 {
            return Err(Errno::EPERM);
        }
    }
    state.perm.mode = state.perm.mode & !SHM_LOCKED | if on { SHM_LOCKED } else { 0 };
    ok()
}

pub fn semctl(cx: &mut CurrentTask<'_>, id: i32, num: i32, command: i32, arg: u64) -> SyscallResult {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let ipc = cx.task.ns().ipc.clone();
    let table = &ipc.sem;
    let buf = UserAddr(arg);
    match command {
        cmd::IPC_INFO | cmd::SEM_INFO => sem_info(cx, table, command == cmd::SEM_INFO, buf),
        cmd::IPC_STAT | cmd::SEM_STAT | cmd::SEM_STAT_ANY => {
            let (by_index, any) = (command == cmd::SEM_STAT, command == cmd::SEM_STAT_ANY);
            let (answer, set) = stat(cx, table, id, by_index, any, |s: &Set| s.state.lock().perm)?;
            let ds = {
                let s = set.state.lock();
                let (perm, count) = (s.perm.raw(), s.sems.len() as u64);
                SemDs { perm, otime: s.otime, unused1: 0, ctime: s.ctime, unused2: 0, count, unused: [0; 2] }
            };
            cx.mm()?.write_obj(buf, &ds)?;
            ret(answer)
        }
        cmd::IPC_SET => {
            let ds = cx.mm()?.read_obj::<SemDs>(buf)?;
            let set = table.lock().get(id)?;
            let (creds, now) = (cx.creds(), now(cx));
            let mut state = set.state.lock();
            state.perm.check_owner(&creds)?;
            state.perm.set(&ds.perm);
            state.ctime = now;
            ok()
        }
        cmd::IPC_RMID => {
            remove(cx, table, id, |s: &Set| s.state.lock().perm)?.mark_removed();
            ok()
        }
        _ => {
            let set = table.lock().get(id)?;
            sem_values(cx, &set, num, command, arg)
        }
    }
}

fn sem_info(cx: &CurrentTask<'_>, table: &Mutex<Ids<Set>>, used: bool, buf: UserAddr) -> SyscallResult {
    let (sets, sems, highest) = {
        let ids = table.lock();
        (ids.len(), ids.iter().map(|(_, s)| s.state.lock().sems.len()).sum::<usize>(), ids.highest())
    };
    // map, mni, mns, mnu, msl, opm, ume, usz, vmx, aem of `struct seminfo`.
    let all = [SEMMNS, SEMMNI, SEMMNS, SEMMNS, SEMMSL, SEMOPM, SEMOPM];
    let mut info = [0i32; 10];
    for (slot, value) in info.iter_mut().zip(all) {
        *slot = i32::try_from(value).unwrap_or(i32::MAX);
    }
    (info[7], info[8], info[9]) = (20, SEMVMX, SEMVMX);
    if used {
        info[7] = i32::try_from(sets).unwrap_or(i32::MAX);
        info[9] = i32::try_from(sems).unwrap_or(i32::MAX);
    }
    cx.mm()?.write_obj(buf, &info)?;
    ret(highest)
}

fn sem_values(cx: &CurrentTask<'_>, set: &Set, num: i32, command: i32, arg: u64) -> SyscallResult {
    let (creds, mm, pid) = (cx.creds(), cx.mm()?, cx.task.group.tgid.0);
    let writes = matches!(command, cmd::SETVAL | cmd::SETALL);
    let count = {
        let state = set.state.lock();
        state.perm.check(&creds, if writes { 0o222 } else { 0o444 })?;
        state.sems.len()
    };
    match command {
        cmd::GETALL => {
            let values: Vec<u8> = set.state.lock().sems.iter().flat_map(|s| value(s).to_le_bytes()).collect();
            mm.write_bytes(UserAddr(arg), &values)?;
            return ok();
        }
        cmd::SETALL => {
            let mut raw = vec![0u8; count * 2];
            mm.read_bytes(UserAddr(arg), &mut raw)?;
            let values: Vec<u16> = raw.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
            if values.iter().any(|v| i32::from(*v) > SEMVMX) {
                return Err(Errno::ERANGE);
            }
            set.set_values(cx.kernel(), 0, &values, pid);
            return ok();
        }
        cmd::GETVAL | cmd::GETPID | cmd::GETNCNT | cmd::GETZCNT | cmd::SETVAL => {}
        _ => return Err(Errno::EINVAL),
    }
    let index = u16::try_from(num).ok().filter(|n| usize::from(*n) < count).ok_or(Errno::EINVAL)?;
    let sem = set.state.lock().sems.get(usize::from(index)).copied().ok_or(Errno::EINVAL)?;
    match command {
        cmd::GETVAL => ret(sem.value),
        cmd::GETPID => ret(sem.pid),
        cmd::SETVAL => {
            // An int in the union.
            let value = (arg & 0xffff_ffff) as u32;
            let value = u16::try_from(value).ok().filter(|v| i32::from(*v) <= SEMVMX).ok_or(Errno::ERANGE)?;
            set.set_values(cx.kernel(), usize::from(index), &[value], pid);
            ok()
        }
        other => ret(set.waiting(index, other == cmd::GETZCNT) as u64),
    }
}

fn value(sem: &sem::Sem) -> u16 {
    u16::try_from(sem.value).unwrap_or(0)
}

pub fn msgctl(cx: &mut CurrentTask<'_>, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let ipc = cx.task.ns().ipc.clone();
    let table = &ipc.msg;
    match command {
        cmd::IPC_INFO | cmd::MSG_INFO => msg_info(cx, table, command == cmd::MSG_INFO, buf),
        cmd::IPC_STAT | cmd::MSG_STAT | cmd::MSG_STAT_ANY => {
            let (by_index, any) = (command == cmd::MSG_STAT, command == cmd::MSG_STAT_ANY);
            let (answer, queue) = stat(cx, table, id, by_index, any, |q: &Queue| q.state.lock().perm)?;
            let ds = msg_ds(&queue.state.lock());
            cx.mm()?.write_obj(buf, &ds)?;
            ret(answer)
        }
        cmd::IPC_SET => {
            let ds = cx.mm()?.read_obj::<MsgDs>(buf)?;
            let queue = table.lock().get(id)?;
            let (creds, now) = (cx.creds(), now(cx));
            {
                let mut state = queue.state.lock();
                state.perm.check_owner(&creds)?;
                if ds.capacity > LIMITS.1 && !creds.has_cap(CAP_SYS_RESOURCE) {
                    return Err(Errno::EPERM);
                }
                state.perm.set(&ds.perm);
                (state.capacity, state.ctime) = (ds.capacity.min(MAX_CAPACITY), now);
            }
            queue.resized();
            ok()
        }
        cmd::IPC_RMID => {
            remove(cx, table, id, |q: &Queue| q.state.lock().perm)?.mark_removed();
            ok()
        }
        _ => Err(Errno::EINVAL),
    }
}

fn msg_ds(s: &msg::State) -> MsgDs {
    MsgDs {
        perm: s.perm.raw(),
        times: [s.stime, s.rtime, s.ctime],
        bytes: s.bytes,
        count: s.len() as u64,
        capacity: s.capacity,
        lspid: s.lspid,
        lrpid: s.lrpid,
        unused: [0; 2],
    }
}

fn msg_info(cx: &CurrentTask<'_>, table: &Mutex<Ids<Queue>>, used: bool, buf: UserAddr) -> SyscallResult {
    let (queues, messages, bytes, highest) = {
        let ids = table.lock();
        let sum = ids.iter().fold((0usize, 0u64), |(n, b), (_, q)| {
            let state = q.state.lock();
            (n + state.len(), b + state.bytes)
        });
        (ids.len(), sum.0, sum.1, ids.highest())
    };
    let int = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    // pool, map, max, mnb, mni, ssz, tql, and a short seg of `struct msginfo`.
    let mut info = [
        int(MSGMNI as u64 * LIMITS.1 / 1024),
        int(LIMITS.1),
        int(LIMITS.0 as u64),
        int(LIMITS.1),
        int(MSGMNI as u64),
        16,
        int(LIMITS.1),
        0xffff,
    ];
    if used {
        (info[0], info[1], info[6]) = (int(queues as u64), int(messages as u64), int(bytes));
    }
    cx.mm()?.write_obj(buf, &info)?;
    ret(highest)
}
