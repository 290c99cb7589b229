//! The tables of a saved kernel. What each object is saved as stands beside the object, in a `saved` module.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Id;
use crate::checkpoint::ops::OpsState;
use crate::fs::pipe::saved::PipeState;
use crate::fs::tmpfs::saved::{NodeState, TmpFsState};
use crate::fs::tty::saved::TtyState;
use crate::ipc::saved::{MqState, MsgState, SegmentState, SemState, UndoState};
use crate::kernel::container::saved::ContainerState;
use crate::kernel::session::saved::SessionState;
use crate::kernel::signal::saved::ActionsState;
use crate::kernel::task::saved::TaskState;
use crate::kernel::thread_group::saved::{ThreadGroupState, VforkState};
use crate::mm::object::saved::ObjectState;
use crate::mm::saved::MmState;
use crate::net::unix::saved::UnixState;
use crate::vfs::InodeKey;
use crate::vfs::locks::saved::LocksState;
use crate::vfs::saved::{DentryState, FdTableState, FileState, FsContextState, MountNsState, MountState, SuperState};

/// Where the clocks stood.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClockState {
    /// Monotonic time at the save, nanoseconds.
    pub monotonic: i64,
    /// When the kernel was started, on that clock.
    pub boot: i64,
}

/// Everything but pages.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs, reason = "tables, named by what they hold")]
pub struct KernelState {
    pub clock: ClockState,
    pub container: ContainerState,
    pub vdso: Option<Id<ObjectState>>,
    pub memfds: Option<Id<TmpFsState>>,
    pub next_dev: u32,
    pub next_mount: u32,
    pub next_anon_inode: u64,
    /// All attached mounts, parents first.
    pub attached: Vec<Id<MountState>>,
    pub sessions: Vec<SessionState>,
    /// Terminals whose other side is outside.
    pub consoles: Vec<Id<TtyState>>,
    pub tasks: Vec<TaskState>,
    pub groups: Vec<ThreadGroupState>,
    pub actions: Vec<ActionsState>,
    pub vforks: Vec<VforkState>,
    pub mms: Vec<MmState>,
    pub objects: Vec<ObjectState>,
    pub fd_tables: Vec<FdTableState>,
    pub fs_contexts: Vec<FsContextState>,
    pub files: Vec<FileState>,
    pub ops: Vec<OpsState>,
    pub supers: Vec<SuperState>,
    pub mounts: Vec<MountState>,
    pub dentries: Vec<DentryState>,
    pub tmpfs: Vec<TmpFsState>,
    pub nodes: Vec<NodeState>,
    pub pipes: Vec<PipeState>,
    pub sockets: Vec<UnixState>,
    pub undo_lists: Vec<UndoState>,
    pub mount_spaces: Vec<MountNsState>,
    pub ttys: Vec<TtyState>,
    pub segments: Vec<SegmentState>,
    pub sem_sets: Vec<SemState>,
    pub msg_queues: Vec<MsgState>,
    pub mqs: Vec<MqState>,
    pub fifos: Vec<(InodeKey, Id<PipeState>)>,
    pub locks: LocksState,
}
