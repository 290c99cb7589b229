//! Signals as saved state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::info::{NSIG, SigInfo, SigSet};
use super::queue::Counter;
use super::{Actions, PendingQueue, SigAction};
use crate::checkpoint::{Object, Refused, Restorer, Saver, Unusable};

/// [`PendingQueue`].
#[derive(Serialize, Deserialize)]
pub struct QueueState {
    set: SigSet,
    infos: Vec<SigInfo>,
}

impl PendingQueue {
    /// Its state.
    #[must_use]
    pub fn save(&self) -> QueueState {
        let (set, infos) = self.parts();
        QueueState { set, infos }
    }
}

impl QueueState {
    /// Fills an empty queue.
    pub fn restore(self, queue: &mut PendingQueue, counter: &Counter) {
        *queue = PendingQueue::from_parts(self.set, self.infos, counter);
    }
}

/// [`Actions`]: those that are not the default, by signal.
#[derive(Serialize, Deserialize)]
pub struct ActionsState(Vec<(u8, SigAction)>);

impl Object for Actions {
    type State = ActionsState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<ActionsState, Refused> {
        let all = (1..=NSIG).map(|signo| (u8::try_from(signo).unwrap_or(0), self.get(signo)));
        Ok(ActionsState(all.filter(|(_, action)| *action != SigAction::default()).collect()))
    }
}

impl ActionsState {
    /// The handlers.
    ///
    /// # Errors
    /// A signal that does not exist.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<Arc<Actions>, Unusable> {
        let actions = Actions::default();
        for (signo, action) in self.0 {
            if !(1..=NSIG).contains(&i32::from(signo)) {
                return Err(Unusable::Corrupt("a signal number"));
            }
            actions.set(i32::from(signo), action);
        }
        Ok(Arc::new(actions))
    }
}
