//! Semaphore sets, undo lists and waiting operations as saved state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{NEXT_LIST, SEMMSL, SEMOPM, SEMVMX, Sem, SemBuf, SemOp, Set, State, UndoList};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::ipc::ids::Perm;
use crate::kernel::op::Op;
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};

/// [`Set`].
#[derive(Serialize, Deserialize)]
pub struct SemState {
    id: i32,
    perm: Perm,
    sems: Vec<Sem>,
    times: (i64, i64),
    /// By the number of the undo list.
    undo: BTreeMap<u64, Vec<i32>>,
    removed: bool,
}

impl Object for Set {
    type State = SemState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<SemState, Refused> {
        let Set { id, state, queue: _ } = &**self;
        let state = state.lock();
        // Who waits is counted again when it is restored.
        let State { perm, sems, otime, ctime, undo, waiters: _, next_waiter: _, removed } = &*state;
        let (sems, undo) = (sems.clone(), undo.clone());
        Ok(SemState { id: *id, perm: *perm, sems, times: (*otime, *ctime), undo, removed: *removed })
    }
}

impl SemState {
    /// The set.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<Arc<Set>, Unusable> {
        let SemState { id, perm, sems, times: (otime, ctime), undo, removed } = self;
        let values = sems.iter().all(|sem| (0..=SEMVMX).contains(&sem.value));
        let fits = |by: &Vec<i32>| by.len() == sems.len() && by.iter().all(|n| (-SEMVMX - 1..=SEMVMX).contains(n));
        if sems.len() > SEMMSL || !values || !undo.values().all(fits) {
            return Err(Unusable::Corrupt("a semaphore set"));
        }
        let state = State { perm, sems, otime, ctime, undo, waiters: BTreeMap::new(), next_waiter: 0, removed };
        Ok(Arc::new(Set { id, state: Mutex::new(Level::Leaf, state), queue: WaitQueue::new() }))
    }
}

/// [`UndoList`].
#[derive(Serialize, Deserialize)]
pub struct UndoState {
    id: u64,
    pid: i32,
    sets: BTreeSet<i32>,
}

impl Object for UndoList {
    type State = UndoState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<UndoState, Refused> {
        let UndoList { kernel: _, ipc: _, id, pid, sets } = &**self;
        let sets = sets.lock().clone();
        Ok(UndoState { id: *id, pid: *pid, sets })
    }
}

impl UndoState {
    /// The list.
    ///
    /// # Errors
    /// None.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<UndoList>, Unusable> {
        let UndoState { id, pid, sets } = self;
        NEXT_LIST.fetch_max(id.saturating_add(1), Ordering::Relaxed);
        let kernel = Arc::downgrade(&restorer.kernel);
        let ipc = Arc::downgrade(&restorer.container.ns.ipc);
        Ok(Arc::new(UndoList { kernel, ipc, id, pid, sets: Mutex::new(Level::Leaf, sets) }))
    }
}

/// [`SemOp`].
#[derive(Serialize, Deserialize)]
pub struct SemOpState {
    set: Id<SemState>,
    ops: Vec<SemBuf>,
    undo: Option<Id<UndoState>>,
    deadline: Option<i64>,
    /// The semaphore that it waits for, and whether for zero.
    waits: Option<(u16, bool)>,
}

impl SemOp {
    /// Its state.
    pub(super) fn state(&self, saver: &mut Saver) -> SemOpState {
        let SemOp { set, ops, undo, deadline, waiter } = self;
        let waits = waiter.and_then(|waiter| set.state.lock().waiters.get(&waiter).copied());
        let undo = undo.as_ref().map(|list| saver.undo_lists.id(list));
        SemOpState { set: saver.sem_sets.id(set), ops: ops.clone(), undo, deadline: *deadline, waits }
    }
}

impl SemOpState {
    /// The call.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        if self.ops.len() > SEMOPM {
            return Err(Unusable::Corrupt("a semaphore operation"));
        }
        let undo = self.undo.map(|id| restorer.undo_list(id)).transpose()?;
        let set = restorer.sem_set(self.set)?;
        let waiter = self.waits.map(|on| set.state.lock().count_waiter(on));
        let mut op = SemOp::new(set, self.ops, undo, self.deadline);
        op.waiter = waiter;
        Ok(Box::new(op))
    }
}
