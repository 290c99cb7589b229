//! membarrier(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::Kernel;
use crate::kernel::op::{self, Attempt, Op, SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::syscall_table;

syscall_table! {
    324 membarrier(cmd: i32, flags: u32, cpu: i32) Partial("no RSEQ commands");
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
