//! Memory policy: a machine of one node, on which every policy comes to the same. Arguments are checked as
//! `mm/mempolicy.c` does.

use std::ops::Range;
use std::sync::Arc;

use abi::{AddrRange, Errno, PAGE_MASK, UserAddr, page_down, page_up};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::creds::Creds;
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok, ret};
use crate::kernel::pidfd::PidFile;
use crate::kernel::task::{CurrentTask, Tid};
use crate::kernel::wait::WaitGuard;
use crate::mm::Mm;
use crate::syscall_table;
use crate::vfs::FdNum;

syscall_table! {
    237 mbind(start: u64, len: u64, mode: u32, nodes: UserAddr, max: u64, flags: u32);
    238 set_mempolicy(mode: i32, nodes: UserAddr, max: u64) Partial("not inherited by children");
    239 get_mempolicy(mode: UserAddr, nodes: UserAddr, max: u64, addr: u64, flags: u64);
    256 migrate_pages(pid: i32, max: u64, from: UserAddr, to: UserAddr);
    279 move_pages(pid: i32, count: u64, pages: UserAddr, nodes: UserAddr, status: UserAddr, flags: u32);
    440 process_madvise(pidfd: FdNum, iov: UserAddr, count: usize, advice: i32, flags: u32);
    450 set_mempolicy_home_node(addr: u64, len: u64, node: u64, flags: u64) Partial("one node");
}

const DEFAULT: u32 = 0;
const PREFERRED: u32 = 1;
const BIND: u32 = 2;
const INTERLEAVE: u32 = 3;
const LOCAL: u32 = 4;
const PREFERRED_MANY: u32 = 5;
const F_NUMA_BALANCING: u32 = 1 << 13;
const F_RELATIVE_NODES: u32 = 1 << 14;
const F_STATIC_NODES: u32 = 1 << 15;
const MODE_FLAGS: u32 = F_NUMA_BALANCING | F_RELATIVE_NODES | F_STATIC_NODES;
/// MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL.
const MF_VALID: u32 = 7;
const MF_MOVE_ALL: u32 = 4;
const CAP_SYS_NICE: u32 = 23;
/// The nodes that there are: node 0.
const NODES: u64 = 1;
/// Highest number of nodes a mask may have bits for (`MAX_NUMNODES`).
const MAX_NODES: u64 = 1024;

/// A node mask of `max - 1` bits, its first word (`get_nodes`).
fn read_nodes(cx: &CurrentTask<'_>, at: UserAddr, max: u64) -> Result<u64, Errno> {
    let bits = max.saturating_sub(1);
    if bits == 0 || at.is_null() {
        return Ok(0);
    }
    if bits > 8 * abi::PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let words = usize::try_from(bits.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
    let mut raw = vec![0u8; words * 8];
    cx.mm()?.read_bytes(at, &mut raw)?;
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
    let mut all: Vec<u64> = raw.chunks_exact(8).map(word).collect();
    if !bits.is_multiple_of(64)
        && let Some(last) = all.last_mut()
    {
        *last &= (1 << (bits % 64)) - 1;
    }
    if all.iter().skip((MAX_NODES / 64) as usize).any(|w| *w != 0) {
        return Err(Errno::EINVAL);
    }
    let beyond = all.iter().skip(1).any(|w| *w != 0);
    // Nodes that do not exist count as given, and as none of ours.
    Ok(all.first().copied().unwrap_or(0) | u64::from(beyond) << 63)
}

/// Checks a mode with its nodes (`sanitize_mpol_flags`, `mpol_new`, `mpol_set_nodemask`).
fn check_policy(mode: u32, nodes: u64) -> Result<(), Errno> {
    let (kind, flags) = (mode & !MODE_FLAGS, mode & MODE_FLAGS);
    if kind > PREFERRED_MANY || flags & F_STATIC_NODES != 0 && flags & F_RELATIVE_NODES != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & F_NUMA_BALANCING != 0 && kind != BIND {
        return Err(Errno::EINVAL);
    }
    let fits = match kind {
        DEFAULT => nodes == 0,
        PREFERRED if nodes == 0 => flags & (F_STATIC_NODES | F_RELATIVE_NODES) == 0,
        LOCAL => nodes == 0 && flags & (F_STATIC_NODES | F_RELATIVE_NODES) == 0,
        BIND | INTERLEAVE | PREFERRED | PREFERRED_MANY => {
            nodes & NODES != 0 || flags & F_RELATIVE_NODES != 0 && nodes != 0
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

fn mbind(
    cx: &mut CurrentTask<'_>,
    start: u64,
    len: u64,
    mode: u32,
    nodes: UserAddr,
    max: u64,
    flags: u32,
) -> SyscallResult {
    let nodes = read_nodes(cx, nodes, max)?;
    if flags & !MF_VALID != 0 || start & PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MF_MOVE_ALL != 0 && !cx.creds().has_cap(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let end = page_up(len).and_then(|l| start.checked_add(l)).ok_or(Errno::EINVAL)?;
    if end == start {
        return ok();
    }
    check_policy(mode, nodes)?;
    if !cx.mm()?.is_mapped(AddrRange::new(start, end)) {
        return Err(Errno::EFAULT);
    }
    ok()
}

fn set_mempolicy(cx: &mut CurrentTask<'_>, mode: i32, nodes: UserAddr, max: u64) -> SyscallResult {
    let mode = mode.cast_unsigned();
    let nodes = read_nodes(cx, nodes, max)?;
    check_policy(mode, nodes)?;
    cx.own.mempolicy = (mode, nodes & NODES);
    ok()
}

fn get_mempolicy(
    cx: &mut CurrentTask<'_>,
    mode: UserAddr,
    nodes: UserAddr,
    max: u64,
    addr: u64,
    flags: u64,
) -> SyscallResult {
    const F_NODE: u64 = 1;
    const F_ADDR: u64 = 2;
    const F_MEMS_ALLOWED: u64 = 4;
    if flags & !7 != 0 || !nodes.is_null() && max < 1 {
        return Err(Errno::EINVAL);
    }
    let by_address = flags & F_ADDR != 0;
    let (kind, set) = if flags & F_MEMS_ALLOWED != 0 {
        if flags & (F_NODE | F_ADDR) != 0 {
            return Err(Errno::EINVAL);
        }
        (0, NODES)
    } else if by_address {
        let page = page_down(addr);
        if !cx.mm()?.is_mapped(AddrRange::new(page, page.saturating_add(abi::PAGE_SIZE))) {
            return Err(Errno::EFAULT);
        }
        (0, 0)
    } else if addr != 0 {
        return Err(Errno::EINVAL);
    } else if flags & F_NODE != 0 {
        if cx.own.mempolicy.0 & !MODE_FLAGS != INTERLEAVE {
            return Err(Errno::EINVAL);
        }
        (0, cx.own.mempolicy.1)
    } else {
        cx.own.mempolicy
    };
    let mm = cx.mm()?;
    if !mode.is_null() {
        mm.write_obj(mode, &kind)?;
    }
    if !nodes.is_null() {
        let bytes = (max - 1).div_ceil(64) * 8;
        if bytes > abi::PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        let mut raw = vec![0u8; usize::try_from(bytes).map_err(|_| Errno::EINVAL)?];
        if let Some(first) = raw.first_chunk_mut::<8>() {
            *first = set.to_le_bytes();
        }
        mm.write_bytes(nodes, &raw)?;
    }
    ok()
}

/// The address space of `pid`, which the caller may look into; 0 is the caller.
fn target(cx: &CurrentTask<'_>, pid: i32) -> Result<Arc<Mm>, Errno> {
    if pid == 0 {
        return cx.mm();
    }
    let task = cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?;
    if !may_touch(&cx.creds(), &task.creds()) {
        return Err(Errno::EPERM);
    }
    task.mm().ok_or(Errno::EINVAL)
}

fn may_touch(me: &Creds, other: &Creds) -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    me.uid[0] == other.uid[0] && me.uid[0] == other.uid[2] || me.has_cap(CAP_SYS_PTRACE)
}

fn migrate_pages(cx: &mut CurrentTask<'_>, pid: i32, max: u64, from: UserAddr, to: UserAddr) -> SyscallResult {
    read_nodes(cx, from, max)?;
    let to = read_nodes(cx, to, max)?;
    target(cx, pid)?;
    // Every page is where it can be.
    if to & NODES == 0 { Err(Errno::EINVAL) } else { ok() }
}

fn move_pages(
    cx: &mut CurrentTask<'_>,
    pid: i32,
    count: u64,
    pages: UserAddr,
    nodes: UserAddr,
    status: UserAddr,
    flags: u32,
) -> SyscallResult {
    if flags & !(MF_VALID & !1) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MF_MOVE_ALL != 0 && !cx.creds().has_cap(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let other = target(cx, pid)?;
    op::start(cx, MovePages { mm: cx.mm()?, other, left: 0..count, pages, nodes, status })
}

/// `move_pages(2)`: as many pages as the caller has an array for.
struct MovePages {
    mm: Arc<Mm>,
    other: Arc<Mm>,
    left: Range<u64>,
    pages: UserAddr,
    nodes: UserAddr,
    status: UserAddr,
}

impl MovePages {
    fn tell(&self, index: u64) -> Result<(), Errno> {
        let at = |base: UserAddr, size: u64| {
            index.checked_mul(size).and_then(|by| base.checked_add(by)).ok_or(Errno::EFAULT)
        };
        let page = page_down(self.mm.read_obj::<u64>(at(self.pages, 8)?)?);
        if !self.nodes.is_null() && self.mm.read_obj::<i32>(at(self.nodes, 4)?)? != 0 {
            return Err(Errno::ENODEV);
        }
        let range = AddrRange::new(page, page.saturating_add(abi::PAGE_SIZE));
        let answer = match self.other.mincore(range) {
            Ok(seen) if seen.first().is_some_and(|b| *b & 1 != 0) => 0,
            Ok(_) => -Errno::ENOENT.raw(),
            Err(_) => -Errno::EFAULT.raw(),
        };
        self.mm.write_obj(at(self.status, 4)?, &answer)
    }
}

impl Op for MovePages {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        while let Some(index) = self.left.next() {
            if let Err(errno) = self.tell(index) {
                return Attempt::Done(Err(errno));
            }
            if cx.is_wanted_elsewhere() {
                return Attempt::Again;
            }
        }
        Attempt::Done(Ok(0))
    }

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
        "move_pages"
    }
}

fn process_madvise(
    cx: &mut CurrentTask<'_>,
    pidfd: FdNum,
    iov: UserAddr,
    count: usize,
    advice: i32,
    flags: u32,
) -> SyscallResult {
    const MADV_COLD: i32 = 20;
    const MADV_PAGEOUT: i32 = 21;
    if flags != 0 || count > 1024 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    let mut ranges = Vec::new();
    for index in 0..count as u64 {
        let [base, len] = mm.read_obj::<[u64; 2]>(iov.checked_add(index * 16).ok_or(Errno::EFAULT)?)?;
        ranges.push((base, len));
    }
    let group = PidFile::group_of(&*cx.fds()?.get(pidfd)?)?;
    if ![MADV_COLD, MADV_PAGEOUT, libc::MADV_WILLNEED].contains(&advice) {
        return Err(Errno::EINVAL);
    }
    let task = group.first_task().ok_or(Errno::ESRCH)?;
    if !may_touch(&cx.creds(), &task.creds()) {
        return Err(Errno::EPERM);
    }
    let other = task.mm().ok_or(Errno::ESRCH)?;
    let mut done = 0u64;
    for (base, len) in ranges {
        let end = page_up(len).and_then(|l| base.checked_add(l)).filter(|_| base & PAGE_MASK == 0);
        let end = end.ok_or(Errno::EINVAL)?;
        if base < end && !other.is_mapped(AddrRange::new(base, end)) {
            return if done > 0 { ret(done) } else { Err(Errno::ENOMEM) };
        }
        done += len;
    }
    ret(done)
}

fn set_mempolicy_home_node(_cx: &mut CurrentTask<'_>, _addr: u64, _len: u64, node: u64, flags: u64) -> SyscallResult {
    if flags != 0 || node != 0 { Err(Errno::EINVAL) } else { ok() }
}
