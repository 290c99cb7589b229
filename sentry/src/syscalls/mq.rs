//! POSIX message queues: mq_open and its kin.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::ipc::mq::{MessageQueue, PRIO_MAX, QUEUES_MAX, QueueFile, ReceiveOp, Registration, SendOp};
use crate::kernel::creds::Creds;
use crate::kernel::limits::resource;
use crate::kernel::op::{self, SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;
use crate::vfs::{FdNum, FileDescription, OpenFlags};

syscall_table! {
    240 mq_open(name: UserStr, flags: u32, mode: u32, attr: UserAddr);
    241 mq_unlink(name: UserStr);
    242 mq_timedsend(queue: FdNum, text: UserAddr, len: usize, priority: u32, timeout: UserAddr);
    243 mq_timedreceive(queue: FdNum, text: UserAddr, len: usize, priority: UserAddr, timeout: UserAddr);
    244 mq_notify(queue: FdNum, event: UserAddr) Partial("no SIGEV_THREAD");
    245 mq_getsetattr(queue: FdNum, new: UserAddr, old: UserAddr);
}

/// `mq_flags`, `mq_maxmsg`, `mq_msgsize`, `mq_curmsgs` of `struct mq_attr`, and four reserved words.
type RawAttr = [i64; 8];

const CAP_SYS_RESOURCE: u32 = 24;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_FOWNER: u32 = 3;
/// Defaults and limits for who lacks CAP_SYS_RESOURCE (`fs.mqueue.msg_max`, `msgsize_max`), and for who has it.
const USUAL: (i64, i64) = (10, 8192);
const HARD: (i64, i64) = (65536, 16 << 20);

fn name_of(cx: &CurrentTask<'_>, name: UserStr) -> Result<Vec<u8>, Errno> {
    const NAME_MAX: usize = 255;
    let name = cx.mm()?.read_cstr(name.0, abi::PAGE_SIZE as usize)?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        name if name.contains(&b'/') => Err(Errno::EACCES),
        name if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        name => Ok(name.to_vec()),
    }
}

fn permitted(creds: &Creds, (uid, gid, mode): (u32, u32, u32), wanted: u32) -> bool {
    let granted = if creds.fsuid() == uid {
        mode >> 6
    } else if creds.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    wanted & !granted & 7 == 0 || creds.has_cap(CAP_DAC_OVERRIDE)
}

/// A new queue, as `attr` wants it.
fn make(cx: &CurrentTask<'_>, mode: u32, attr: UserAddr, charged: u64) -> Result<Arc<MessageQueue>, Errno> {
    let creds = cx.creds();
    let (max, size) = if attr.is_null() {
        USUAL
    } else {
        let raw: RawAttr = cx.mm()?.read_obj(attr)?;
        let most = if creds.has_cap(CAP_SYS_RESOURCE) { HARD } else { USUAL };
        if raw[1] <= 0 || raw[2] <= 0 || raw[1] > most.0 || raw[2] > most.1 {
            return Err(Errno::EINVAL);
        }
        (raw[1], raw[2])
    };
    let umask = cx.fs()?.state.lock().umask;
    let size_of = |n: i64| usize::try_from(n).map_err(|_| Errno::EINVAL);
    let owner = (creds.fsuid(), creds.fsgid(), mode & 0o777 & !umask);
    let queue = MessageQueue::new(size_of(max)?, size_of(size)?, owner);
    let limit = cx.task.group.limit(resource::MSGQUEUE);
    if charged.saturating_add(queue.charge()) > limit { Err(Errno::EMFILE) } else { Ok(queue) }
}

fn mq_open(cx: &mut CurrentTask<'_>, name: UserStr, flags: u32, mode: u32, attr: UserAddr) -> SyscallResult {
    let name = name_of(cx, name)?;
    let flags = OpenFlags::from_bits_truncate(flags);
    let ipc = cx.task.ns().ipc.clone();
    let (found, charged, count) = {
        let queues = ipc.mq.lock();
        (queues.get(&name).cloned(), queues.values().map(|q| q.charge()).sum(), queues.len())
    };
    let queue = match found {
        Some(_) if flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) => return Err(Errno::EEXIST),
        Some(queue) => {
            let wanted = u32::from(flags.readable()) << 2 | u32::from(flags.writable()) << 1;
            if !permitted(&cx.creds(), queue.owner, wanted) {
                return Err(Errno::EACCES);
            }
            queue
        }
        None if !flags.contains(OpenFlags::CREAT) => return Err(Errno::ENOENT),
        None if count >= QUEUES_MAX && !cx.creds().has_cap(CAP_SYS_RESOURCE) => return Err(Errno::ENOSPC),
        None => {
            let queue = make(cx, mode, attr, charged)?;
            // Two may have made it at once: the first stays.
            ipc.mq.lock().entry(name).or_insert(queue).clone()
        }
    };
    let keep = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::NONBLOCK;
    let file = FileDescription::anonymous(Arc::new(QueueFile(queue)), flags.intersection(keep));
    crate::syscalls::fd::install(cx, file, flags | OpenFlags::CLOEXEC)
}

fn mq_unlink(cx: &mut CurrentTask<'_>, name: UserStr) -> SyscallResult {
    let name = name_of(cx, name)?;
    let creds = cx.creds();
    let ipc = cx.task.ns().ipc.clone();
    let mut queues = ipc.mq.lock();
    let queue = queues.get(&name).ok_or(Errno::ENOENT)?;
    // The directory is sticky.
    if creds.fsuid() != queue.owner.0 && !creds.has_cap(CAP_FOWNER) {
        return Err(Errno::EPERM);
    }
    let gone = queues.remove(&name);
    drop(queues);
    drop(gone);
    ok()
}

fn queue_of(cx: &CurrentTask<'_>, fd: FdNum) -> Result<(Arc<FileDescription>, Arc<MessageQueue>), Errno> {
    let file = cx.fds()?.get(fd)?;
    let queue = file.ops.as_any().downcast_ref::<QueueFile>().map(|f| f.0.clone()).ok_or(Errno::EBADF)?;
    Ok((file, queue))
}

/// An absolute time of CLOCK_REALTIME, as a deadline.
fn deadline(cx: &CurrentTask<'_>, at: UserAddr) -> Result<Option<i64>, Errno> {
    if at.is_null() {
        return Ok(None);
    }
    let wanted = cx.mm()?.read_obj::<Timespec>(at)?.to_nanos()?;
    let clock = &cx.kernel().clock;
    Ok(Some(clock.monotonic().saturating_add(wanted.saturating_sub(clock.realtime()))))
}

fn mq_timedsend(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    text: UserAddr,
    len: usize,
    priority: u32,
    timeout: UserAddr,
) -> SyscallResult {
    let deadline = deadline(cx, timeout)?;
    if priority >= PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue_of(cx, fd)?;
    if !file.flags().writable() {
        return Err(Errno::EBADF);
    }
    if len > queue.size {
        return Err(Errno::EMSGSIZE);
    }
    let mut bytes = vec![0; len];
    cx.mm()?.read_bytes(text, &mut bytes)?;
    op::start(cx, SendOp { file, queue, message: (Arc::from(bytes), priority), deadline })
}

fn mq_timedreceive(
    cx: &mut CurrentTask<'_>,
    fd: FdNum,
    text: UserAddr,
    len: usize,
    priority: UserAddr,
    timeout: UserAddr,
) -> SyscallResult {
    let deadline = deadline(cx, timeout)?;
    let (file, queue) = queue_of(cx, fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF);
    }
    if len < queue.size {
        return Err(Errno::EMSGSIZE);
    }
    op::start(cx, ReceiveOp { file, queue, to: (text, priority), deadline, waiting: false })
}

fn mq_notify(cx: &mut CurrentTask<'_>, fd: FdNum, event: UserAddr) -> SyscallResult {
    const SIGEV_SIGNAL: u64 = 0;
    const SIGEV_NONE: u64 = 1;
    let group = cx.task.group.clone();
    let registration = if event.is_null() {
        None
    } else {
        let [value, rest]: [u64; 2] = cx.mm()?.read_obj(event)?;
        let (signo, how) = (rest & 0xffff_ffff, rest >> 32);
        let signo = match how {
            SIGEV_NONE => 0,
            SIGEV_SIGNAL => i32::try_from(signo).ok().filter(|s| (1..=64).contains(s)).ok_or(Errno::EINVAL)?,
            _ => return Err(Errno::EINVAL),
        };
        Some(Registration { group: Arc::downgrade(&group), signal: (signo, value), uid: cx.creds().uid[0] })
    };
    queue_of(cx, fd)?.1.register(&group, registration)?;
    ok()
}

fn mq_getsetattr(cx: &mut CurrentTask<'_>, fd: FdNum, new: UserAddr, old: UserAddr) -> SyscallResult {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let mm = cx.mm()?;
    let wanted = if new.is_null() { None } else { Some(mm.read_obj::<RawAttr>(new)?[0]) };
    if wanted.is_some_and(|flags| flags & !nonblock != 0) {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue_of(cx, fd)?;
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let flags = if file.is_nonblocking() { nonblock } else { 0 };
    let now: RawAttr = [flags, number(queue.max), number(queue.size), number(queue.len()), 0, 0, 0, 0];
    if let Some(flags) = wanted {
        let keep = file.flags().difference(OpenFlags::NONBLOCK);
        file.set_flags(if flags != 0 { keep | OpenFlags::NONBLOCK } else { keep });
    }
    if !old.is_null() {
        mm.write_obj(old, &now)?;
    }
    ok()
}
