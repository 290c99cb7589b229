//! The file layer as saved state; each part stands beside what it saves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::vfs::fs_context::{FsContext, FsState};
use crate::vfs::path::PathRef;

pub use crate::vfs::dentry::saved::DentryState;
pub use crate::vfs::fd_table::saved::FdTableState;
pub use crate::vfs::file::saved::FileState;
pub use crate::vfs::mount::saved::{MountState, SuperState};
pub use crate::vfs::mount_ns::saved::MountNsState;

/// [`PathRef`].
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct PathState {
    mount: Id<MountState>,
    dentry: Id<DentryState>,
}

impl PathRef {
    /// Its state. The mount comes first: by it the names of its file system are known.
    pub fn save(&self, saver: &mut Saver) -> PathState {
        let PathRef { mount, dentry } = self;
        PathState { mount: mount.met(saver), dentry: dentry.met(saver) }
    }
}

impl PathState {
    /// The place.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<PathRef, Unusable> {
        Ok(PathRef { mount: restorer.mount(self.mount)?, dentry: restorer.dentry(self.dentry)? })
    }
}

/// [`FsContext`].
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct FsContextState {
    root: PathState,
    cwd: PathState,
    umask: u32,
    ns: Option<Id<MountNsState>>,
}

impl Object for FsContext {
    type State = FsContextState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<FsContextState, Refused> {
        let state = self.state.lock().clone();
        Ok(state.save(saver))
    }
}

impl FsState {
    /// Its state.
    pub fn save(&self, saver: &mut Saver) -> FsContextState {
        let FsState { root, cwd, umask, ns } = self;
        let ns = ns.as_ref().map(|ns| saver.mount_spaces.id(ns));
        FsContextState { root: root.save(saver), cwd: cwd.save(saver), umask: *umask, ns }
    }
}

impl FsContextState {
    /// The context.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<FsContext>, Unusable> {
        Ok(Arc::new(FsContext::of(self.restore_state(restorer)?)))
    }

    /// What it begins with.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore_state(self, restorer: &mut Restorer) -> Result<FsState, Unusable> {
        let (root, cwd) = (self.root.restore(restorer)?, self.cwd.restore(restorer)?);
        let ns = self.ns.map(|id| restorer.mount_space(id)).transpose()?;
        Ok(FsState { root, cwd, umask: self.umask & 0o777, ns })
    }
}
