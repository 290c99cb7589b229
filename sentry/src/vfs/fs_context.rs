//! A task's view of the tree: root, working directory, umask (`CLONE_FS` shares it).

use std::sync::Arc;

use crate::sync::{Level, Mutex};
use crate::vfs::mount_ns::MountNs;
use crate::vfs::path::PathRef;

/// Root, working directory, umask.
pub struct FsContext {
    /// What changes.
    pub state: Mutex<FsState>,
}

/// The content of a [`FsContext`].
#[derive(Clone)]
pub struct FsState {
    /// `/`.
    pub root: PathRef,
    /// `.`.
    pub cwd: PathRef,
    /// Bits cleared from the mode of new files.
    pub umask: u32,
    /// Its mount namespace; `None` for the first.
    pub ns: Option<Arc<MountNs>>,
}

impl FsContext {
    /// A context.
    #[must_use]
    pub fn new(root: PathRef, cwd: PathRef, umask: u32) -> Self {
        FsContext { state: Mutex::new(Level::TaskShared, FsState { root, cwd, umask, ns: None }) }
    }

    /// A context that begins with this.
    #[must_use]
    pub fn of(state: FsState) -> Self {
        FsContext { state: Mutex::new(Level::TaskShared, state) }
    }

    /// A copy that changes apart.
    #[must_use]
    pub fn fork(&self) -> Self {
        FsContext { state: Mutex::new(Level::TaskShared, self.state.lock().clone()) }
    }
}
