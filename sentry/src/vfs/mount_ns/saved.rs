//! Mount namespaces as saved state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MountNs;
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::vfs::mount::saved::MountState;

/// [`MountNs`]: its topmost mount. The others are attached below it.
#[derive(Serialize, Deserialize)]
pub struct MountNsState {
    root: Id<MountState>,
}

impl Object for MountNs {
    type State = MountNsState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<MountNsState, Refused> {
        // The number is made of the root's.
        let MountNs { ino: _, table: _, root: _ } = &**self;
        Ok(MountNsState { root: self.root().met(saver) })
    }
}

impl MountNsState {
    /// The namespace.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<MountNs>, Unusable> {
        let root = restorer.mount(self.root)?;
        Ok(MountNs::new(&restorer.kernel.vfs.mounts, root))
    }
}
