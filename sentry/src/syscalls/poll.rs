//! poll, ppoll, select, pselect6.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr, time::Timeval};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::kernel::op::{self, Attempt, Op, SyscallResult};
use crate::kernel::signal;
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;
use crate::syscalls::deadline;
use crate::vfs::saved::FileState;
use crate::vfs::{FdNum, FileDescription};

syscall_table! {
    7 poll(fds: UserAddr, nfds: usize, timeout: i32);
    23 select(nfds: i32, readfds: UserAddr, writefds: UserAddr, exceptfds: UserAddr, timeout: UserAddr);
    270 pselect6(nfds: i32, readfds: UserAddr, writefds: UserAddr, exceptfds: UserAddr, timeout: UserAddr, sigmask: UserAddr);
    271 ppoll(fds: UserAddr, nfds: usize, timeout: UserAddr, sigmask: UserAddr, sigsetsize: usize);
}

/// Most descriptors of one call: RLIMIT_NOFILE's default ceiling.
const MAX_FDS: usize = 1 << 20;

/// `struct pollfd`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

/// Where a remaining timeout is written back.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Remaining {
    No,
    Timespec(UserAddr),
    Timeval(UserAddr),
}

/// How the answer is given.
#[derive(Clone, Serialize, Deserialize)]
enum Output {
    /// `revents` of each entry, at this array.
    Poll(UserAddr),
    /// Three bit sets, each of the given words.
    Select { sets: [UserAddr; 3], words: usize },
}

struct Entry {
    fd: i32,
    file: Option<Arc<FileDescription>>,
    events: Events,
}

/// Waiting for any of several files.
struct PollOp {
    entries: Vec<Entry>,
    output: Output,
    deadline: Option<i64>,
    remaining: Remaining,
}

#[derive(Serialize, Deserialize)]
struct EntryState {
    fd: i32,
    file: Option<Id<FileState>>,
    events: u32,
}

/// [`PollOp`] as saved state.
#[derive(Serialize, Deserialize)]
pub struct PollState {
    entries: Vec<EntryState>,
    output: Output,
    deadline: Option<i64>,
    remaining: Remaining,
}

impl PollState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let PollState { entries, output, deadline, remaining } = self;
        let bits = match &output {
            Output::Poll(_) => None,
            Output::Select { words, .. } => Some(words.saturating_mul(64)),
        };
        let fits = |fd: i32| bits.is_none_or(|bits| usize::try_from(fd).is_ok_and(|fd| fd < bits));
        if bits.is_some_and(|bits| bits > MAX_FDS) || !entries.iter().all(|e| fits(e.fd)) {
            return Err(Unusable::Corrupt("a select"));
        }
        let mut restored = Vec::with_capacity(entries.len());
        for EntryState { fd, file, events } in entries {
            let file = file.map(|id| restorer.file(id)).transpose()?;
            restored.push(Entry { fd, file, events: Events::from_bits_retain(events) });
        }
        Ok(Box::new(PollOp { entries: restored, output, deadline, remaining }))
    }
}

impl PollOp {
    fn ready(entry: &Entry) -> Events {
        match &entry.file {
            Some(file) => file.ops.poll(file).intersection(entry.events | Events::ALWAYS),
            None if entry.fd >= 0 => Events::NVAL,
            None => Events::default(),
        }
    }

    fn answer(&self, cx: &mut CurrentTask<'_>, found: &[Events]) -> Result<u64, Errno> {
        let count = match &self.output {
            Output::Poll(at) => self.answer_poll(cx, *at, found)?,
            Output::Select { sets, words } => self.answer_select(cx, sets, *words, found)?,
        };
        self.write_remaining(cx);
        Ok(count)
    }

    fn answer_poll(&self, cx: &mut CurrentTask<'_>, at: UserAddr, found: &[Events]) -> Result<u64, Errno> {
        let mm = cx.mm()?;
        let mut count = 0;
        for (index, events) in found.iter().enumerate() {
            // Only `revents` is written: the rest of the array may be read-only to nobody, but it is not ours.
            let slot = at.checked_add(index as u64 * 8 + 6).ok_or(Errno::EFAULT)?;
            mm.write_obj(slot, &((events.bits() & 0xffff) as u16))?;
            count += u64::from(!events.is_empty());
        }
        Ok(count)
    }

    fn answer_select(
        &self,
        cx: &mut CurrentTask<'_>,
        sets: &[UserAddr; 3],
        words: usize,
        found: &[Events],
    ) -> Result<u64, Errno> {
        let mut bits = [vec![0u64; words], vec![0u64; words], vec![0u64; words]];
        let mut count = 0;
        for (entry, events) in self.entries.iter().zip(found) {
            for (set, (asked, means)) in bits.iter_mut().zip(SELECT_EVENTS) {
                if entry.events.contains(asked) && events.intersects(means) {
                    let fd = entry.fd as usize;
                    set[fd / 64] |= 1 << (fd % 64);
                    count += 1;
                }
            }
        }
        let mm = cx.mm()?;
        for (at, set) in sets.iter().zip(&bits) {
            if !at.is_null() {
                mm.write_bytes(*at, set.as_slice().as_bytes())?;
            }
        }
        Ok(count)
    }

    /// A fault here is ignored, as in Linux's poll_select_finish.
    fn write_remaining(&self, cx: &mut CurrentTask<'_>) {
        let (Some(deadline), Ok(mm)) = (self.deadline, cx.mm()) else { return };
        let left = Timespec::from_nanos(deadline::left(cx, deadline));
        let _ = match self.remaining {
            Remaining::No => Ok(()),
            Remaining::Timespec(at) => mm.write_obj(at, &left),
            Remaining::Timeval(at) => mm.write_obj(at, &Timeval { sec: left.sec, usec: left.nsec / 1000 }),
        };
    }
}

/// Per set of select: the bit an entry asks with, and the readiness that counts for it (`fs/select.c`).
const SELECT_EVENTS: [(Events, Events); 3] = [
    (Events::IN, Events::IN.union(Events::RDNORM).union(Events::RDBAND).union(Events::HUP).union(Events::ERR)),
    (Events::OUT, Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::ERR)),
    (Events::PRI, Events::PRI),
];

impl Op for PollOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let found: Vec<Events> = self.entries.iter().map(Self::ready).collect();
        if found.iter().all(|e| e.is_empty()) && self.deadline.is_none_or(|d| deadline::left(cx, d) > 0) {
            return Attempt::Pending;
        }
        Attempt::Done(self.answer(cx, &found))
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        let waiter = cx.waiter();
        let queues = self.entries.iter().filter_map(|e| Some((e.file.as_ref()?.ops.wait_queue()?, e.events)));
        queues.map(|(queue, events)| queue.enlist(events, waiter.clone())).collect()
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    fn timed_out(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        let found = vec![Events::default(); self.entries.len()];
        self.answer(cx, &found)
    }

    fn interrupted(&mut self, cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        self.write_remaining(cx);
        // Only ever called when a handler runs, and then poll and select always answer EINTR (signal(7)).
        Err(Errno::EINTR)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let PollOp { entries, output, deadline, remaining } = self;
        let entry = |Entry { fd, file, events }: &Entry| EntryState {
            fd: *fd,
            file: file.as_ref().map(|file| saver.files.id(file)),
            events: events.bits(),
        };
        let entries = entries.iter().map(entry).collect();
        Ok(OpState::Poll(PollState { entries, output: output.clone(), deadline: *deadline, remaining: *remaining }))
    }

    fn name(&self) -> &'static str {
        "poll"
    }
}

fn poll_entries(cx: &CurrentTask<'_>, fds: UserAddr, nfds: usize) -> Result<Vec<Entry>, Errno> {
    if nfds > MAX_FDS {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![PollFd { fd: 0, events: 0, revents: 0 }; nfds];
    cx.mm()?.read_bytes(fds, raw.as_mut_slice().as_mut_bytes())?;
    let table = cx.fds()?;
    let entry = |p: PollFd| Entry {
        fd: p.fd,
        file: if p.fd < 0 { None } else { table.get(FdNum(p.fd)).ok() },
        events: Events::from_bits_retain(u32::from(p.events)),
    };
    Ok(raw.into_iter().map(entry).collect())
}

fn poll(cx: &mut CurrentTask<'_>, fds: UserAddr, nfds: usize, timeout: i32) -> SyscallResult {
    let entries = poll_entries(cx, fds, nfds)?;
    let deadline = deadline::from_millis(cx, timeout);
    op::start(cx, PollOp { entries, output: Output::Poll(fds), deadline, remaining: Remaining::No })
}

fn ppoll(
    cx: &mut CurrentTask<'_>,
    fds: UserAddr,
    nfds: usize,
    timeout: UserAddr,
    sigmask: UserAddr,
    sigsetsize: usize,
) -> SyscallResult {
    let deadline = deadline::from_timespec(cx, timeout)?;
    signal::set_call_mask(cx, sigmask, sigsetsize)?;
    let entries = poll_entries(cx, fds, nfds)?;
    let output = Output::Poll(fds);
    op::start(cx, PollOp { entries, output, deadline, remaining: Remaining::Timespec(timeout) })
}

fn select_op(
    cx: &CurrentTask<'_>,
    nfds: i32,
    sets: [UserAddr; 3],
    deadline: Option<i64>,
    remaining: Remaining,
) -> Result<PollOp, Errno> {
    let table = cx.fds()?;
    let highest = table.numbers().last().map_or(0, |n| n + 1);
    // Numbers past the table are ignored, as Linux does (select_estimate: max_fds).
    let nfds = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?.min((highest as usize).next_multiple_of(64).max(64));
    let words = nfds.div_ceil(64);
    let mm = cx.mm()?;
    let mut asked = vec![Events::default(); nfds];
    for (at, (bit, _)) in sets.iter().zip(SELECT_EVENTS) {
        let mut set = vec![0u64; words];
        if !at.is_null() {
            mm.read_bytes(*at, set.as_mut_slice().as_mut_bytes())?;
        }
        for (fd, events) in asked.iter_mut().enumerate().filter(|(fd, _)| set[fd / 64] >> (fd % 64) & 1 == 1) {
            let _ = fd;
            *events |= bit;
        }
    }
    let mut entries = Vec::new();
    for (fd, events) in asked.into_iter().enumerate().filter(|(_, e)| !e.is_empty()) {
        let fd = i32::try_from(fd).map_err(|_| Errno::EINVAL)?;
        let wide = SELECT_EVENTS.iter().filter(|(bit, _)| events.contains(*bit)).fold(events, |all, (_, m)| all | *m);
        entries.push(Entry { fd, file: Some(table.get(FdNum(fd))?), events: wide });
    }
    // `events` doubles as what was asked: each set's own bit is part of it only where asked.
    Ok(PollOp { entries, output: Output::Select { sets, words }, deadline, remaining })
}

fn select(
    cx: &mut CurrentTask<'_>,
    nfds: i32,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: UserAddr,
) -> SyscallResult {
    let deadline = deadline::from_timeval(cx, timeout)?;
    let op = select_op(cx, nfds, [readfds, writefds, exceptfds], deadline, Remaining::Timeval(timeout))?;
    op::start(cx, op)
}

fn pselect6(
    cx: &mut CurrentTask<'_>,
    nfds: i32,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: UserAddr,
    sigmask: UserAddr,
) -> SyscallResult {
    let deadline = deadline::from_timespec(cx, timeout)?;
    if !sigmask.is_null() {
        let [mask, size] = cx.mm()?.read_obj::<[u64; 2]>(sigmask)?;
        signal::set_call_mask(cx, UserAddr(mask), usize::try_from(size).map_err(|_| Errno::EINVAL)?)?;
    }
    let op = select_op(cx, nfds, [readfds, writefds, exceptfds], deadline, Remaining::Timespec(timeout))?;
    op::start(cx, op)
}
