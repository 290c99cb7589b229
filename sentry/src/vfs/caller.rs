//! Who asks the file layer for something: identity, root, and the tree it asks about.

use std::sync::Arc;

use abi::{Errno, Timespec};
use nix::time::{ClockId, clock_gettime};

use crate::kernel::creds::Creds;
use crate::kernel::task::Task;
use crate::vfs::Vfs;
use crate::vfs::path::PathRef;

/// The one on whose behalf files are looked up and changed: a task, or the kernel itself while it boots.
pub struct Caller<'a> {
    /// The tree.
    pub vfs: &'a Vfs,
    /// The task; `None` for the kernel itself.
    pub task: Option<&'a Arc<Task>>,
    /// Who it is.
    pub creds: Arc<Creds>,
    /// Its `/`.
    pub root: PathRef,
    /// Its `.`.
    pub cwd: PathRef,
    /// Its umask.
    pub umask: u32,
}

impl<'a> Caller<'a> {
    /// A task.
    ///
    /// # Errors
    /// `ENOENT` once it has let go of its directories (it is exiting).
    pub fn of(task: &'a Arc<Task>) -> Result<Self, Errno> {
        let (fs, creds) = {
            let shared = task.shared.lock();
            (shared.fs.clone().ok_or(Errno::ENOENT)?, shared.creds.clone())
        };
        let state = fs.state.lock().clone();
        Ok(Caller {
            vfs: &task.kernel.vfs,
            task: Some(task),
            creds,
            root: state.root,
            cwd: state.cwd,
            umask: state.umask,
        })
    }

    /// The kernel itself, with all rights, rooted at `root`.
    #[must_use]
    pub fn kernel(vfs: &'a Vfs, root: PathRef) -> Self {
        Caller { vfs, task: None, creds: Arc::new(Creds::root()), cwd: root.clone(), root, umask: 0 }
    }
}

/// The time that file systems stamp inodes with: the host's coarse real time, as `current_time()` in `fs/inode.c`.
#[must_use]
pub fn now() -> Timespec {
    let time = clock_gettime(ClockId::CLOCK_REALTIME_COARSE);
    time.map_or(Timespec::default(), |t| Timespec { sec: t.tv_sec(), nsec: t.tv_nsec() })
}
