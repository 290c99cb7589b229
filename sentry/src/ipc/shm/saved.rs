//! Segments as saved state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Segment, State};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::mm::object::saved::ObjectState;
use crate::sync::{Level, Mutex};

/// [`Segment`].
#[derive(Serialize, Deserialize)]
pub struct SegmentState {
    id: i32,
    size: u64,
    cpid: i32,
    object: Id<ObjectState>,
    state: State,
}

impl Object for Segment {
    type State = SegmentState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<SegmentState, Refused> {
        let Segment { kernel: _, ipc: _, id, size, cpid, object, state } = &**self;
        let state = *state.lock();
        Ok(SegmentState { id: *id, size: *size, cpid: *cpid, object: saver.objects.id(object), state })
    }
}

impl SegmentState {
    /// The segment.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Segment>, Unusable> {
        let SegmentState { id, size, cpid, object, state } = self;
        let object = restorer.object(object)?;
        let kernel = Arc::downgrade(&restorer.kernel);
        let ipc = Arc::downgrade(&restorer.container.ns.ipc);
        Ok(Arc::new(Segment { kernel, ipc, id, size, cpid, object, state: Mutex::new(Level::Leaf, state) }))
    }
}
