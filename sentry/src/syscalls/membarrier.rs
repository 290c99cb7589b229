//! membarrier(2), and the memory policy calls of a machine with one node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, UserAddr};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::Kernel;
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;

syscall_table! {
    237 mbind(addr: u64, len: u64, mode: u32, mask: UserAddr, max: u64, flags: u32) Partial("one node: policies are checked and have no effect");
    238 set_mempolicy(mode: u32, mask: UserAddr, max: u64) Partial("one node: policies are checked and have no effect");
    239 get_mempolicy(mode: UserAddr, mask: UserAddr, max: u64, addr: u64, flags: u32) Partial("one node: always the default");
    256 migrate_pages(pid: i32, max: u64, old: UserAddr, new: UserAddr) Partial("one node: nothing moves");
    324 membarrier(cmd: i32, flags: u32, cpu: i32) Partial("no RSEQ commands");
    450 set_mempolicy_home_node(addr: u64, len: u64, node: u64, flags: u64) Partial("one node");
}

const GLOBAL: i32 = 1;
const GLOBAL_EXPEDITED: i32 = 2;
const REGISTER_GLOBAL_EXPEDITED: i32 = 4;
const PRIVATE_EXPEDITED: i32 = 8;
const REGISTER_PRIVATE_EXPEDITED: i32 = 16;
const SYNC_CORE: i32 = 32;
const REGISTER_SYNC_CORE: i32 = 64;

/// Makes all running guest code pass a barrier: whoever runs is kicked out of it, which serialises the CPU.
fn membarrier(cx: &mut CurrentTask<'_>, cmd: i32, flags: u32, _cpu: i32) -> SyscallResult {
    let known = GLOBAL
        | GLOBAL_EXPEDITED
        | REGISTER_GLOBAL_EXPEDITED
        | PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED
        | SYNC_CORE
        | REGISTER_SYNC_CORE;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let group = cx.task.group.clone();
    let registered = &group.membarrier;
    match cmd {
        0 => ret(known),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED | REGISTER_SYNC_CORE => {
            registered.fetch_or(cmd.cast_unsigned(), Ordering::Relaxed);
            ok()
        }
        PRIVATE_EXPEDITED | SYNC_CORE if registered.load(Ordering::Relaxed).cast_signed() & cmd << 1 == 0 => {
            Err(Errno::EPERM)
        }
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | SYNC_CORE => {
            let left = cx.kernel().sched.begin_barrier();
            let scheduler = cx.kernel().clone();
            op::start(cx, BarrierOp { left, scheduler })
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Waits until every worker that was in guest code has left it once: all its stores and loads before are over.
struct BarrierOp {
    left: Vec<(usize, u64)>,
    scheduler: Arc<Kernel>,
}

/// A restored task's barrier, which is passed.
#[must_use]
pub fn restored(kernel: &Arc<Kernel>) -> Box<dyn Op> {
    // Counted, because the Op counts down when it goes.
    let _ = kernel.sched.begin_barrier();
    Box::new(BarrierOp { left: Vec::new(), scheduler: kernel.clone() })
}

impl Op for BarrierOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        self.left.retain(|worker| !cx.kernel().sched.has_left(*worker));
        if self.left.is_empty() { Attempt::Done(Ok(0)) } else { Attempt::Pending }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.kernel().sched.barriers.enlist(Events::IN, cx.waiter())]
    }

    fn is_killable_only(&self) -> bool {
        true
    }

    fn save(&self, _saver: &mut Saver) -> Result<OpState, Refused> {
        // Nobody runs guest code while it is saved: the barrier is passed.
        Ok(OpState::Barrier)
    }

    fn name(&self) -> &'static str {
        "membarrier"
    }
}

impl Drop for BarrierOp {
    fn drop(&mut self) {
        self.scheduler.sched.end_barrier();
    }
}

const MPOL_DEFAULT: u32 = 0;
const MPOL_MAX: u32 = 5;
const MPOL_MODE_FLAGS: u32 = 0xe000;
/// Bits of a node mask that may be given (`MAX_NUMNODES` of common kernels).
const MAX_NODES: u64 = 1024;

/// The nodes of a guest's mask; only node 0 exists.
fn nodes(cx: &CurrentTask<'_>, mask: UserAddr, max: u64) -> Result<bool, Errno> {
    if mask.is_null() || max <= 1 {
        return Ok(false);
    }
    let bits = max - 1;
    if bits > 8 * abi::PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0u8; usize::try_from(bits.div_ceil(64) * 8).map_err(|_| Errno::EINVAL)?];
    cx.mm()?.read_bytes(mask, &mut raw)?;
    let others = raw.iter().enumerate().any(|(i, b)| if i == 0 { b & !1 != 0 } else { *b != 0 });
    if others { Err(Errno::EINVAL) } else { Ok(raw.first().is_some_and(|b| b & 1 != 0)) }
}

fn check_policy(cx: &CurrentTask<'_>, mode: u32, mask: UserAddr, max: u64) -> Result<(), Errno> {
    let kind = mode & !MPOL_MODE_FLAGS;
    if kind > MPOL_MAX {
        return Err(Errno::EINVAL);
    }
    let any = nodes(cx, mask, max)?;
    // The default and local policies have no nodes; preferring may have none; binding and interleaving need some.
    let good = match kind {
        MPOL_DEFAULT | 4 => !any,
        1 => true,
        _ => any,
    };
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

fn mbind(
    cx: &mut CurrentTask<'_>,
    addr: u64,
    _len: u64,
    mode: u32,
    mask: UserAddr,
    max: u64,
    flags: u32,
) -> SyscallResult {
    if flags & !7 != 0 || addr & abi::PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    check_policy(cx, mode, mask, max).and_then(|()| ok())
}

fn set_mempolicy(cx: &mut CurrentTask<'_>, mode: u32, mask: UserAddr, max: u64) -> SyscallResult {
    check_policy(cx, mode, mask, max).and_then(|()| ok())
}

fn get_mempolicy(
    cx: &mut CurrentTask<'_>,
    mode: UserAddr,
    mask: UserAddr,
    max: u64,
    addr: u64,
    flags: u32,
) -> SyscallResult {
    const F_NODE: u32 = 1;
    const F_ADDR: u32 = 2;
    const F_MEMS_ALLOWED: u32 = 4;
    let invalid = flags & !(F_NODE | F_ADDR | F_MEMS_ALLOWED) != 0
        || flags & F_MEMS_ALLOWED != 0 && flags & (F_NODE | F_ADDR) != 0
        || flags & F_ADDR == 0 && addr != 0
        // Asking for the node of a policy is for interleaving ones.
        || flags & (F_NODE | F_ADDR) == F_NODE;
    if invalid || !mask.is_null() && max < 1 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    if flags & F_ADDR != 0 {
        mm.read_obj::<u8>(UserAddr(addr))?;
    }
    if !mode.is_null() {
        mm.write_obj(mode, &MPOL_DEFAULT)?;
    }
    if !mask.is_null() {
        let bytes = usize::try_from(max.min(MAX_NODES).div_ceil(64) * 8).unwrap_or(8);
        let mut out = vec![0u8; bytes];
        if flags & F_MEMS_ALLOWED != 0
            && let Some(first) = out.first_mut()
        {
            *first = 1;
        }
        mm.write_bytes(mask, &out)?;
    }
    ok()
}

fn migrate_pages(cx: &mut CurrentTask<'_>, pid: i32, max: u64, old: UserAddr, new: UserAddr) -> SyscallResult {
    if pid != 0 && cx.task.pids().task(crate::kernel::task::Tid(pid)).is_none() {
        return Err(Errno::ESRCH);
    }
    nodes(cx, old, max)?;
    nodes(cx, new, max)?;
    ok()
}

fn set_mempolicy_home_node(_cx: &mut CurrentTask<'_>, _addr: u64, _len: u64, node: u64, flags: u64) -> SyscallResult {
    if flags != 0 || node != 0 { Err(Errno::EINVAL) } else { ok() }
}
