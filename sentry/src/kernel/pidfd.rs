//! Descriptors of processes (`pidfd_open(2)`).

use std::sync::Arc;

use abi::Errno;

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::{Events, WaitQueue};
use crate::vfs::{FileDescription, FileOps, OpenFlags};

/// A process as a file: readable once it has ended.
pub struct PidFile {
    group: Arc<ThreadGroup>,
}

impl PidFile {
    /// An open descriptor's worth of `group`.
    #[must_use]
    pub fn open(group: &Arc<ThreadGroup>, nonblock: bool) -> Arc<FileDescription> {
        let flags = if nonblock { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
        FileDescription::anonymous(Arc::new(PidFile { group: group.clone() }), flags)
    }

    /// What an open descriptor of `group` does.
    #[must_use]
    pub fn of(group: &Arc<ThreadGroup>) -> Arc<Self> {
        Arc::new(PidFile { group: group.clone() })
    }

    /// The process that `file` names.
    ///
    /// # Errors
    /// `EBADF` where it is no pidfd.
    pub fn group_of(file: &FileDescription) -> Result<Arc<ThreadGroup>, Errno> {
        file.ops.as_any().downcast_ref::<PidFile>().map(|p| p.group.clone()).ok_or(Errno::EBADF)
    }
}

impl FileOps for PidFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Pid(saver.groups.id(&self.group)))
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.group.is_zombie() { Events::READABLE } else { Events::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.exit_queue)
    }

    fn can_wait(&self) -> bool {
        false
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:[pidfd]".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
