//! What a save collects.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::Id;
use crate::checkpoint::error::Refused;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::pages::PagePlan;
use crate::checkpoint::table::{Object, Out};
use crate::fs::pipe::Pipe;
use crate::fs::pipe::saved::PipeState;
use crate::fs::tmpfs::saved::{NodeState, TmpFsState};
use crate::fs::tmpfs::{Node, TmpFs};
use crate::fs::tty::Tty;
use crate::fs::tty::saved::TtyState;
use crate::ipc::mq::MessageQueue;
use crate::ipc::msg::Queue;
use crate::ipc::saved::{MqState, MsgState, SegmentState, SemState, UndoState};
use crate::ipc::sem::{Set, UndoList};
use crate::ipc::shm::Segment;
use crate::kernel::Kernel;
use crate::kernel::signal::Actions;
use crate::kernel::signal::saved::ActionsState;
use crate::kernel::task::Task;
use crate::kernel::task::saved::TaskState;
use crate::kernel::thread_group::saved::{ThreadGroupState, VforkState};
use crate::kernel::thread_group::{ThreadGroup, VforkDone};
use crate::mm::Mm;
use crate::mm::object::MemoryObject;
use crate::mm::object::saved::ObjectState;
use crate::mm::saved::MmState;
use crate::net::unix::UnixSocket;
use crate::net::unix::saved::UnixState;
use crate::vfs::dentry::Dentry;
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::mount_ns::MountNs;
use crate::vfs::saved::{DentryState, FdTableState, FileState, FsContextState, MountNsState, MountState, SuperState};
use crate::vfs::{FdTable, FileDescription, FileOps, FsContext};

/// The tables of a kernel that is being saved. Workers stand still meanwhile.
#[allow(missing_docs, reason = "tables, named by what they hold")]
pub struct Saver {
    pub kernel: Arc<Kernel>,
    pub tasks: Out<Task, TaskState>,
    pub groups: Out<ThreadGroup, ThreadGroupState>,
    pub actions: Out<Actions, ActionsState>,
    pub vforks: Out<VforkDone, VforkState>,
    pub mms: Out<Mm, MmState>,
    pub objects: Out<MemoryObject, ObjectState>,
    pub fd_tables: Out<FdTable, FdTableState>,
    pub fs_contexts: Out<FsContext, FsContextState>,
    pub files: Out<FileDescription, FileState>,
    pub ops: Out<dyn FileOps, OpsState>,
    pub supers: Out<SuperBlock, SuperState>,
    pub mounts: Out<Mount, MountState>,
    pub dentries: Out<Dentry, DentryState>,
    pub tmpfs: Out<TmpFs, TmpFsState>,
    pub nodes: Out<Node, NodeState>,
    pub pipes: Out<Pipe, PipeState>,
    pub sockets: Out<UnixSocket, UnixState>,
    pub undo_lists: Out<UndoList, UndoState>,
    pub mount_spaces: Out<MountNs, MountNsState>,
    pub ttys: Out<Tty, TtyState>,
    pub segments: Out<Segment, SegmentState>,
    pub sem_sets: Out<Set, SemState>,
    pub msg_queues: Out<Queue, MsgState>,
    pub mqs: Out<MessageQueue, MqState>,
    /// Where guest memory goes in the pages file.
    pub pages: PagePlan,
    /// The file systems that root dentries are the roots of.
    pub roots: HashMap<usize, Id<SuperState>>,
    /// The open files behind the operations that are to be saved: an open file tells what its operations do not know.
    pub openers: HashMap<usize, Arc<FileDescription>>,
}

impl Saver {
    /// Empty tables.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Self {
        Saver {
            kernel: kernel.clone(),
            tasks: Out::default(),
            groups: Out::default(),
            actions: Out::default(),
            vforks: Out::default(),
            mms: Out::default(),
            objects: Out::default(),
            fd_tables: Out::default(),
            fs_contexts: Out::default(),
            files: Out::default(),
            ops: Out::default(),
            supers: Out::default(),
            mounts: Out::default(),
            dentries: Out::default(),
            tmpfs: Out::default(),
            nodes: Out::default(),
            pipes: Out::default(),
            sockets: Out::default(),
            undo_lists: Out::default(),
            mount_spaces: Out::default(),
            ttys: Out::default(),
            segments: Out::default(),
            sem_sets: Out::default(),
            msg_queues: Out::default(),
            mqs: Out::default(),
            pages: PagePlan::new(kernel.memory.clone()),
            roots: HashMap::new(),
            openers: HashMap::new(),
        }
    }

    /// The operations of an open file.
    pub fn ops_of(&mut self, file: &Arc<FileDescription>) -> Id<OpsState> {
        let address = Arc::as_ptr(&file.ops).cast::<()>() as usize;
        self.openers.entry(address).or_insert_with(|| file.clone());
        self.ops.id(&file.ops)
    }

    /// Saves everything that was met and what it leads to, until nothing new is met.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn drain(&mut self) -> Result<(), Refused> {
        loop {
            let mut saved = 0;
            macro_rules! drain {
                ($($table:ident),*) => {$(
                    while let Some(object) = self.$table.unsaved() {
                        let state = object.save(self)?;
                        self.$table.push(state);
                        saved += 1;
                    }
                )*};
            }
            drain!(tasks, groups, actions, vforks, fd_tables, fs_contexts, mms, files);
            while let Some(ops) = self.ops.unsaved() {
                let address = Arc::as_ptr(&ops).cast::<()>() as usize;
                let file = self.openers.get(&address).cloned();
                let file = file.ok_or_else(|| Refused::new(ops.describe()))?;
                let state = ops.save(&file, self)?;
                self.ops.push(state);
                saved += 1;
            }
            drain!(mount_spaces, supers, mounts, dentries, tmpfs, nodes, objects, pipes, sockets, undo_lists, ttys);
            drain!(segments, sem_sets, msg_queues, mqs);
            if saved == 0 {
                return Ok(());
            }
        }
    }
}
