//! A task as saved state.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use platform::{ArchState, FpuState, UserRegs};
use serde::{Deserialize, Serialize};

use super::{Restart, Run, SchedAttr, Task, TaskOwned, TaskShared, Tid, Waiting, flags};
use crate::checkpoint::op::OpState;
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::ipc::saved::UndoState;
use crate::kernel::creds::Creds;
use crate::kernel::seccomp::saved::SeccompState;
use crate::kernel::signal::saved::QueueState;
use crate::kernel::signal::{AltStack, FaultContext, TaskSignals};
use crate::kernel::thread_group::saved::{ThreadGroupState, VforkState};
use crate::kernel::usage::Counts;
use crate::mm::saved::MmState;
use crate::sync::{Level, Mutex};
use crate::vfs::saved::{FdTableState, FsContextState};

/// [`Task`].
#[derive(Serialize, Deserialize)]
pub struct TaskState {
    tid: i32,
    group: Id<ThreadGroupState>,
    dead: bool,
    own: OwnState,
    shared: SharedState,
    mask: u64,
    pending: QueueState,
    cpu_time: u64,
    user_time: u64,
    counts: [u64; 3],
    flags: u32,
    death_signal: i32,
    sched_attr: SchedAttr,
    seccomp: SeccompState,
    exit_status: i32,
    start_time: i64,
}

/// [`TaskOwned`].
#[derive(Serialize, Deserialize)]
struct OwnState {
    regs: UserRegs,
    fpu: Option<Bytes>,
    mm: Option<Id<MmState>>,
    waiting: Option<OpState>,
    restart: Option<OpState>,
    saved_sigmask: Option<u64>,
    clear_tid: u64,
    robust_list: (u64, u64),
    vfork_done: Option<Id<VforkState>>,
    syscall_nr: i64,
    mempolicy: (u32, u64),
    exiting: bool,
    altstack: AltStack,
    fault: FaultContext,
    sem_undo: Option<Id<UndoState>>,
    timer_slack: u64,
}

/// [`TaskShared`].
#[derive(Serialize, Deserialize)]
struct SharedState {
    mm: Option<Id<MmState>>,
    fds: Option<Id<FdTableState>>,
    fs: Option<Id<FsContextState>>,
    creds: Creds,
    name: Bytes,
}

impl Object for Task {
    type State = TaskState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<TaskState, Refused> {
        let Task {
            kernel: _,
            tid,
            group,
            run,
            own,
            shared,
            signals,
            cpu_time,
            user_time,
            counts: Counts { faults, waits, preemptions },
            // It is on no worker.
            on_cpu_since: _,
            flags,
            death_signal,
            sched_attr,
            ptrace,
            seccomp,
            exit_status,
            start_time,
            // A hint.
            last_cpu: _,
        } = &**self;
        let set = flags.load(Ordering::SeqCst);
        if set & flags::TRACE_ALL != 0 || ptrace.tracer().is_some() {
            return Err(Refused::because(format!("thread {}", tid.0), "it is being traced; detach the debugger first"));
        }
        let own = own.lock().save(saver).map_err(|e| e.within(&format!("thread {}", tid.0)))?;
        // Locks one by one: a guard in the literal would live as long as that.
        let shared = shared.lock().save(saver);
        let sched_attr = *sched_attr.lock();
        Ok(TaskState {
            tid: tid.0,
            group: saver.groups.id(group),
            dead: run.get() == Run::Dead,
            own,
            shared,
            mask: signals.mask(),
            pending: signals.change(|queue| queue.save()),
            cpu_time: cpu_time.load(Ordering::Relaxed),
            user_time: user_time.load(Ordering::Relaxed),
            counts: [faults, waits, preemptions].map(|count| count.load(Ordering::Relaxed)),
            flags: set,
            death_signal: death_signal.load(Ordering::SeqCst),
            sched_attr,
            seccomp: seccomp.save(),
            exit_status: exit_status.load(Ordering::SeqCst),
            start_time: *start_time,
        })
    }
}

impl TaskOwned {
    fn save(&self, saver: &mut Saver) -> Result<OwnState, Refused> {
        let TaskOwned {
            arch: ArchState { regs, fpu, fpu_token: _ },
            mm,
            waiting,
            restart,
            saved_sigmask,
            clear_tid,
            robust_list,
            vfork_done,
            syscall_nr,
            // A line of the log, half written.
            trace: _,
            mempolicy,
            // It yields once.
            starved: _,
            exiting,
            altstack,
            fault,
            // Nobody traces it: checked before.
            trace_own: _,
            sem_undo,
            timer_slack,
        } = self;
        // How it is enlisted, and its timer, are made again by the attempt that follows the restore.
        let waiting =
            waiting.as_ref().map(|Waiting { op, guards: _, timer: _, enlisted: _, again: _, chaos: _ }| op.save(saver));
        let restart = match restart {
            Restart::None => None,
            Restart::Op(op) => Some(op.save(saver)),
        };
        Ok(OwnState {
            regs: *regs,
            fpu: match fpu {
                FpuState::Initial => None,
                FpuState::Saved(bytes) => Some(Bytes(bytes.to_vec())),
            },
            mm: mm.as_ref().map(|mm| saver.mms.id(mm)),
            waiting: waiting.transpose()?,
            restart: restart.transpose()?,
            saved_sigmask: *saved_sigmask,
            clear_tid: *clear_tid,
            robust_list: *robust_list,
            vfork_done: vfork_done.as_ref().map(|done| saver.vforks.id(done)),
            syscall_nr: *syscall_nr,
            mempolicy: *mempolicy,
            exiting: *exiting,
            altstack: *altstack,
            fault: *fault,
            sem_undo: sem_undo.as_ref().map(|list| saver.undo_lists.id(list)),
            timer_slack: *timer_slack,
        })
    }
}

impl TaskShared {
    fn save(&self, saver: &mut Saver) -> SharedState {
        let TaskShared { mm, fds, fs, creds, name } = self;
        SharedState {
            mm: mm.as_ref().map(|mm| saver.mms.id(mm)),
            fds: fds.as_ref().map(|fds| saver.fd_tables.id(fds)),
            fs: fs.as_ref().map(|fs| saver.fs_contexts.id(fs)),
            creds: (**creds).clone(),
            name: Bytes(name.clone()),
        }
    }
}

impl TaskState {
    /// The task, parked, without what refers to other objects; that follows when all tasks exist.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Task>, Unusable> {
        let TaskState {
            tid,
            group,
            dead,
            own,
            shared,
            mask,
            pending,
            cpu_time,
            user_time,
            counts,
            flags,
            death_signal,
            sched_attr,
            seccomp,
            exit_status,
            start_time,
        } = self;
        let group = restorer.group(group)?;
        let kernel = restorer.kernel.clone();
        let fpu = own.fpu.as_ref().map_or(FpuState::Initial, |bytes| FpuState::Saved(bytes.0.clone().into()));
        if own.fpu.as_ref().is_some_and(|bytes| bytes.0.len() < 576 || bytes.0.len() > 1 << 16) {
            return Err(Unusable::Corrupt("an FPU state"));
        }
        let mut regs = own.regs;
        regs.sanitize();
        let arch = ArchState { regs, fpu, fpu_token: None };
        let empty = TaskShared {
            mm: None,
            fds: None,
            fs: None,
            creds: Arc::new(shared.creds.clone()),
            name: shared.name.0.clone(),
        };
        let signals = TaskSignals::with_mask(mask);
        signals.change(|queue| pending.restore(queue, &kernel.queued_signals));
        let fresh = Task::new(&kernel, Tid(tid), group, arch, empty, signals);
        let mut task = Arc::into_inner(fresh).ok_or(Unusable::Corrupt("a task"))?;
        task.cpu_time = cpu_time.into();
        task.user_time = user_time.into();
        let [faults, waits, preemptions] = counts.map(Into::into);
        task.counts = Counts { faults, waits, preemptions };
        task.flags = (flags & (flags::EXIT | flags::STOP | flags::STOPPED)).into();
        task.death_signal = death_signal.into();
        task.sched_attr = Mutex::new(Level::Leaf, sched_attr);
        task.seccomp = seccomp.restore()?;
        task.exit_status = exit_status.into();
        task.start_time = start_time;
        let task = Arc::new(task);
        if dead {
            task.run.die();
        }
        let linked = task.clone();
        restorer.later.push(Box::new(move |restorer| link(&linked, own, shared, restorer)));
        Ok(task)
    }
}

/// Gives the task what refers to other objects.
fn link(task: &Arc<Task>, own: OwnState, shared: SharedState, restorer: &mut Restorer) -> Result<(), Unusable> {
    let mm = shared.mm.map(|id| restorer.mm(id)).transpose()?;
    let fds = shared.fds.map(|id| restorer.fd_table(id)).transpose()?;
    let fs = shared.fs.map(|id| restorer.fs_context(id)).transpose()?;
    {
        let mut to = task.shared.lock();
        (to.mm, to.fds, to.fs) = (mm, fds, fs);
    }
    let mm = own.mm.map(|id| restorer.mm(id)).transpose()?;
    let sem_undo = own.sem_undo.map(|id| restorer.undo_list(id)).transpose()?;
    let vfork_done = own.vfork_done.map(|id| restorer.vfork(id)).transpose()?;
    {
        let mut to = task.own.lock();
        to.mm = mm;
        to.vfork_done = vfork_done;
        to.sem_undo = sem_undo;
        to.saved_sigmask = own.saved_sigmask;
        to.clear_tid = own.clear_tid;
        to.robust_list = own.robust_list;
        to.syscall_nr = own.syscall_nr;
        to.mempolicy = own.mempolicy;
        to.exiting = own.exiting;
        to.altstack = own.altstack;
        to.fault = own.fault;
        to.timer_slack = own.timer_slack;
    }
    let waiting = own.waiting.map(|op| op.restore(task, restorer)).transpose()?;
    let restart = own.restart.map(|op| op.restore(task, restorer)).transpose()?;
    let mut to = task.own.lock();
    to.waiting = waiting.map(Waiting::new);
    to.restart = restart.map_or(Restart::None, Restart::Op);
    Ok(())
}
