//! System V IPC and message queues as saved state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Ipc;
use super::ids::Ids;
use crate::checkpoint::{Id, Object, Out, Restorer, Saver, Unusable};
use crate::sync::Mutex;

pub use super::mq::saved::{MqReceiveState, MqSendState, MqState};
pub use super::msg::saved::{MsgReceiveState, MsgSendState, MsgState};
pub use super::sem::saved::{SemOpState, SemState, UndoState};
pub use super::shm::saved::SegmentState;

/// [`Ids`]: the next sequence number, and ids with keys.
#[derive(Serialize, Deserialize)]
struct IdsState<S> {
    seq: u16,
    entries: Vec<(i32, i32, Id<S>)>,
}

/// [`Ipc`].
#[derive(Serialize, Deserialize)]
pub struct IpcState {
    ino: u32,
    shm: IdsState<SegmentState>,
    sem: IdsState<SemState>,
    msg: IdsState<MsgState>,
    mq: Vec<(Vec<u8>, Id<MqState>)>,
}

fn save_ids<T: Object>(ids: &Mutex<Ids<T>>, table: &mut Out<T, T::State>) -> IdsState<T::State> {
    let ids = ids.lock();
    let entries = ids.keyed().map(|(id, key, object)| (id, key, table.id(object))).collect();
    IdsState { seq: ids.seq(), entries }
}

fn restore_ids<T, S>(
    state: IdsState<S>,
    ids: &Mutex<Ids<T>>,
    mut get: impl FnMut(Id<S>) -> Result<Arc<T>, Unusable>,
) -> Result<(), Unusable> {
    ids.lock().set_seq(state.seq);
    for (id, key, object) in state.entries {
        let object = get(object)?;
        if !ids.lock().insert(id, key, object) {
            return Err(Unusable::Corrupt("an IPC id"));
        }
    }
    Ok(())
}

impl Ipc {
    /// Its state.
    pub fn save(&self, saver: &mut Saver) -> IpcState {
        let Ipc { ino, shm, sem, msg, mq } = self;
        IpcState {
            ino: *ino,
            shm: save_ids(shm, &mut saver.segments),
            sem: save_ids(sem, &mut saver.sem_sets),
            msg: save_ids(msg, &mut saver.msg_queues),
            mq: mq.lock().iter().map(|(name, queue)| (name.clone(), saver.mqs.id(queue))).collect(),
        }
    }
}

impl IpcState {
    /// The number of the namespace.
    #[must_use]
    pub fn ino(&self) -> u32 {
        self.ino
    }

    /// Gives `ipc` its objects.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, ipc: &Ipc, restorer: &mut Restorer) -> Result<(), Unusable> {
        restore_ids(self.shm, &ipc.shm, |id| restorer.segment(id))?;
        restore_ids(self.sem, &ipc.sem, |id| restorer.sem_set(id))?;
        restore_ids(self.msg, &ipc.msg, |id| restorer.msg_queue(id))?;
        for (name, id) in self.mq {
            let queue = restorer.mq(id)?;
            ipc.mq.lock().insert(name, queue);
        }
        Ok(())
    }
}

/// Messages by priority, as message queues keep them.
pub(super) type Messages = BTreeMap<u32, VecDeque<Arc<[u8]>>>;
