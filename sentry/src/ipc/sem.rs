//! Semaphore sets (`ipc/sem.c`).

pub mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Refused, Saver};
use crate::ipc::IPC_NOWAIT;
use crate::ipc::Ipc;
use crate::ipc::ids::Perm;
use crate::kernel::Kernel;
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::sync::{Level, Mutex};

/// Most semaphores in a set (`SEMMSL`).
pub const SEMMSL: usize = 32000;
/// Most sets (`SEMMNI`).
pub const SEMMNI: usize = 32000;
/// Most semaphores of all sets. Linux allows 1,024,000,000 and charges them to the memory cgroup.
pub const SEMMNS: usize = 1_000_000;
/// Most operations in a call (`SEMOPM`).
pub const SEMOPM: usize = 500;
/// Highest value (`SEMVMX`).
pub const SEMVMX: i32 = 32767;
/// `SEM_UNDO`.
pub const SEM_UNDO: u32 = 0x1000;

/// One operation: `struct sembuf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SemBuf {
    /// Which semaphore.
    pub num: u16,
    /// What is added; 0 waits for zero.
    pub op: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: u32,
}

/// A semaphore.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Sem {
    /// Value, 0..=[`SEMVMX`].
    pub value: i32,
    /// Who changed it last.
    pub pid: i32,
}

/// What changes in a set.
pub struct State {
    /// Owner and mode.
    pub perm: Perm,
    /// The semaphores.
    pub sems: Vec<Sem>,
    /// Last `semop`, seconds.
    pub otime: i64,
    /// Last change, seconds.
    pub ctime: i64,
    /// What happens to the values when a process with this undo list ends.
    undo: BTreeMap<u64, Vec<i32>>,
    /// Who waits: the semaphore, and whether for zero.
    waiters: BTreeMap<u64, (u16, bool)>,
    next_waiter: u64,
    removed: bool,
}

/// A set.
pub struct Set {
    /// Its id.
    pub id: i32,
    /// The rest.
    pub state: Mutex<State>,
    queue: WaitQueue,
}

/// Why operations wait.
enum Blocked {
    On(u16, bool),
    Not(Errno),
}

fn seconds(kernel: &Kernel) -> i64 {
    kernel.clock.realtime() / 1_000_000_000
}

impl Set {
    /// A new set of `count` semaphores, all zero.
    #[must_use]
    pub fn new(kernel: &Kernel, id: i32, count: usize, perm: Perm) -> Arc<Self> {
        let state = State {
            perm,
            sems: vec![Sem::default(); count],
            otime: 0,
            ctime: seconds(kernel),
            undo: BTreeMap::new(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
            removed: false,
        };
        Arc::new(Set { id, state: Mutex::new(Level::Leaf, state), queue: WaitQueue::new() })
    }

    /// IPC_RMID: those who wait hear of it.
    pub fn mark_removed(&self) {
        self.state.lock().removed = true;
        self.queue.wake(Events::all());
    }

    /// How many wait on semaphore `num`, for an increase or for `zero`.
    #[must_use]
    pub fn waiting(&self, num: u16, zero: bool) -> usize {
        self.state.lock().waiters.values().filter(|w| **w == (num, zero)).count()
    }

    /// Sets values (SETVAL, SETALL): what is to be undone for them is forgotten.
    pub fn set_values(&self, kernel: &Kernel, first: usize, values: &[u16], pid: i32) {
        {
            let mut state = self.state.lock();
            for (i, value) in values.iter().enumerate() {
                if let Some(sem) = state.sems.get_mut(first + i) {
                    *sem = Sem { value: i32::from(*value), pid };
                }
                for undo in state.undo.values_mut() {
                    if let Some(adjust) = undo.get_mut(first + i) {
                        *adjust = 0;
                    }
                }
            }
            state.ctime = seconds(kernel);
        }
        self.queue.wake(Events::all());
    }

    /// Does all operations or none.
    fn apply(&self, kernel: &Kernel, ops: &[SemBuf], pid: i32, undo: Option<u64>) -> Result<(), Blocked> {
        {
            let mut state = self.state.lock();
            if state.removed {
                return Err(Blocked::Not(Errno::EIDRM));
            }
            let mut values: BTreeMap<u16, i32> = BTreeMap::new();
            for op in ops {
                let now = state.sems.get(usize::from(op.num)).ok_or(Blocked::Not(Errno::EFBIG))?.value;
                let value = values.entry(op.num).or_insert(now);
                let next = *value + i32::from(op.op);
                if op.op == 0 && *value != 0 || next < 0 {
                    let nowait = op.flags & IPC_NOWAIT != 0;
                    return Err(if nowait { Blocked::Not(Errno::EAGAIN) } else { Blocked::On(op.num, op.op == 0) });
                }
                if next > SEMVMX {
                    return Err(Blocked::Not(Errno::ERANGE));
                }
                *value = next;
            }
            if let Some(id) = undo {
                state.add_undo(id, ops)?;
            }
            for op in ops {
                let value = values.get(&op.num).copied().unwrap_or(0);
                if let Some(sem) = state.sems.get_mut(usize::from(op.num)) {
                    *sem = Sem { value, pid };
                }
            }
            state.otime = seconds(kernel);
        }
        if ops.iter().any(|op| op.op != 0) {
            self.queue.wake(Events::all());
        }
        Ok(())
    }

    /// A process with undo list `undo` has ended.
    fn undo(&self, kernel: &Kernel, undo: u64, pid: i32) {
        {
            let mut state = self.state.lock();
            let Some(adjust) = state.undo.remove(&undo) else { return };
            for (sem, by) in state.sems.iter_mut().zip(adjust) {
                if by != 0 {
                    *sem = Sem { value: (sem.value + by).clamp(0, SEMVMX), pid };
                }
            }
            state.otime = seconds(kernel);
        }
        self.queue.wake(Events::all());
    }

    fn forget_waiter(&self, waiter: u64) {
        self.state.lock().waiters.remove(&waiter);
    }
}

impl State {
    /// Counts one more that waits; answers its number.
    fn count_waiter(&mut self, on: (u16, bool)) -> u64 {
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.insert(id, on);
        id
    }

    fn add_undo(&mut self, id: u64, ops: &[SemBuf]) -> Result<(), Blocked> {
        let count = self.sems.len();
        let mut adjust = self.undo.get(&id).cloned().unwrap_or_else(|| vec![0; count]);
        for op in ops.iter().filter(|op| op.flags & SEM_UNDO != 0) {
            let slot = adjust.get_mut(usize::from(op.num)).ok_or(Blocked::Not(Errno::EFBIG))?;
            *slot -= i32::from(op.op);
            if !(-SEMVMX - 1..=SEMVMX).contains(slot) {
                return Err(Blocked::Not(Errno::ERANGE));
            }
        }
        self.undo.insert(id, adjust);
        Ok(())
    }
}

/// Numbers of undo lists: names, no state.
static NEXT_LIST: AtomicU64 = AtomicU64::new(1);

/// What a process's SEM_UNDO operations are undone by; shared by CLONE_SYSVSEM. Dropping the last undoes them.
pub struct UndoList {
    kernel: Weak<Kernel>,
    ipc: Weak<Ipc>,
    id: u64,
    pid: i32,
    sets: Mutex<BTreeSet<i32>>,
}

impl UndoList {
    /// An empty list of process `pid`.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>, ipc: &Arc<Ipc>, pid: i32) -> Arc<Self> {
        Arc::new(UndoList {
            kernel: Arc::downgrade(kernel),
            ipc: Arc::downgrade(ipc),
            id: NEXT_LIST.fetch_add(1, Ordering::Relaxed),
            pid,
            sets: Mutex::new(Level::Leaf, BTreeSet::new()),
        })
    }

    /// Notes that set `set` has something to undo; answers the list's name there.
    fn note(&self, set: i32) -> u64 {
        self.sets.lock().insert(set);
        self.id
    }
}

impl Drop for UndoList {
    fn drop(&mut self) {
        let (Some(kernel), Some(ipc)) = (self.kernel.upgrade(), self.ipc.upgrade()) else { return };
        let sets = std::mem::take(&mut *self.sets.lock());
        for set in sets.into_iter().filter_map(|id| ipc.sem.lock().get(id).ok()) {
            set.undo(&kernel, self.id, self.pid);
        }
    }
}

/// `semtimedop(2)`.
pub struct SemOp {
    /// The set.
    pub set: Arc<Set>,
    /// What to do.
    pub ops: Vec<SemBuf>,
    /// Where to note what is to be undone.
    pub undo: Option<Arc<UndoList>>,
    /// When to give up, monotonic.
    pub deadline: Option<i64>,
    waiter: Option<u64>,
}

impl SemOp {
    /// The operations, not tried yet.
    #[must_use]
    pub fn new(set: Arc<Set>, ops: Vec<SemBuf>, undo: Option<Arc<UndoList>>, deadline: Option<i64>) -> Self {
        SemOp { set, ops, undo, deadline, waiter: None }
    }
}

impl Op for SemOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let undo = self.undo.as_ref().map(|u| u.note(self.set.id));
        match self.set.apply(cx.kernel(), &self.ops, cx.task.group.tgid.0, undo) {
            Ok(()) => Attempt::Done(Ok(0)),
            Err(Blocked::Not(errno)) => Attempt::Done(Err(errno)),
            Err(Blocked::On(num, zero)) => {
                let mut state = self.set.state.lock();
                match self.waiter {
                    Some(id) => {
                        let _ = state.waiters.insert(id, (num, zero));
                    }
                    None => self.waiter = Some(state.count_waiter((num, zero))),
                }
                Attempt::Pending
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.set.queue.enlist(Events::all(), cx.waiter())]
    }

    fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    /// semop(2): never restarted.
    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        Err(Errno::EINTR)
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        Ok(OpState::Sem(self.state(saver)))
    }

    fn name(&self) -> &'static str {
        "semtimedop"
    }
}

impl Drop for SemOp {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.set.forget_waiter(waiter);
        }
    }
}
