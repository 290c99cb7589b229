//! What a restore builds from.

use std::sync::Arc;

use memory::FrameFile;

use crate::checkpoint::Id;
use crate::checkpoint::error::Unusable;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::resources::Given;
use crate::checkpoint::state::KernelState;
use crate::checkpoint::table::{In, obtain};
use crate::fs::gofer::Connection;
use crate::fs::pipe::Pipe;
use crate::fs::pipe::saved::PipeState;
use crate::fs::rofs::RofsFs;
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
use crate::kernel::container::Container;
use crate::kernel::futex::Waiter;
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
use crate::vfs::{Caller, FdTable, FileDescription, FileOps, FsContext, PathRef};

/// The tables of a kernel that is being restored.
#[allow(missing_docs, reason = "tables, named by what they hold")]
pub struct Restorer {
    pub kernel: Arc<Kernel>,
    /// The pages file.
    pub frames: Arc<FrameFile>,
    /// The root image, where there is one.
    pub image: Option<Arc<RofsFs>>,
    /// The gofer, where there is one.
    pub gofer: Option<Connection>,
    /// Host descriptors given anew.
    pub given: Given,
    pub tasks: In<Task, TaskState>,
    pub groups: In<ThreadGroup, ThreadGroupState>,
    pub actions: In<Actions, ActionsState>,
    pub vforks: In<VforkDone, VforkState>,
    pub mms: In<Mm, MmState>,
    pub objects: In<MemoryObject, ObjectState>,
    pub fd_tables: In<FdTable, FdTableState>,
    pub fs_contexts: In<FsContext, FsContextState>,
    pub files: In<FileDescription, FileState>,
    pub ops: In<dyn FileOps, OpsState>,
    pub supers: In<SuperBlock, SuperState>,
    pub mounts: In<Mount, MountState>,
    pub dentries: In<Dentry, DentryState>,
    pub tmpfs: In<TmpFs, TmpFsState>,
    pub nodes: In<Node, NodeState>,
    pub pipes: In<Pipe, PipeState>,
    pub sockets: In<UnixSocket, UnixState>,
    pub undo_lists: In<UndoList, UndoState>,
    pub mount_spaces: In<MountNs, MountNsState>,
    pub ttys: In<Tty, TtyState>,
    pub segments: In<Segment, SegmentState>,
    pub sem_sets: In<Set, SemState>,
    pub msg_queues: In<Queue, MsgState>,
    pub mqs: In<MessageQueue, MqState>,
    /// The one container.
    pub container: Arc<Container>,
    /// Its topmost mount, once that is there.
    pub top: Option<Arc<Mount>>,
    /// What is held until all links are made.
    pub kept: Vec<Arc<UnixSocket>>,
    /// What must wait until everything exists: run in order, last.
    pub later: Vec<Later>,
    /// Futex waiters and their places in their buckets.
    pub waiters: Vec<(u32, Arc<Waiter>)>,
}

/// A link that is made when all objects exist.
pub type Later = Box<dyn FnOnce(&mut Restorer) -> Result<(), Unusable>>;

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $table:ident, $object:ty, $state:ty, $build:path;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// What building it says.
        pub fn $name(&mut self, id: Id<$state>) -> Result<Arc<$object>, Unusable> {
            obtain(self, id, |r| &mut r.$table, $build)
        }
    )*};
}

impl Restorer {
    /// Tables of these states. The parts of `state` that are no tables stay in it.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "each is given once, by name")]
    pub fn new(
        kernel: &Arc<Kernel>,
        state: &mut KernelState,
        frames: Arc<FrameFile>,
        image: Option<Arc<RofsFs>>,
        gofer: Option<Connection>,
        given: Given,
        container: Arc<Container>,
    ) -> Self {
        macro_rules! table {
            ($name:ident) => {
                In::new(std::mem::take(&mut state.$name))
            };
        }
        Restorer {
            kernel: kernel.clone(),
            frames,
            image,
            gofer,
            given,
            tasks: table!(tasks),
            groups: table!(groups),
            actions: table!(actions),
            vforks: table!(vforks),
            mms: table!(mms),
            objects: table!(objects),
            fd_tables: table!(fd_tables),
            fs_contexts: table!(fs_contexts),
            files: table!(files),
            ops: table!(ops),
            supers: table!(supers),
            mounts: table!(mounts),
            dentries: table!(dentries),
            tmpfs: table!(tmpfs),
            nodes: table!(nodes),
            pipes: table!(pipes),
            sockets: table!(sockets),
            undo_lists: table!(undo_lists),
            mount_spaces: table!(mount_spaces),
            ttys: table!(ttys),
            segments: table!(segments),
            sem_sets: table!(sem_sets),
            msg_queues: table!(msg_queues),
            mqs: table!(mqs),
            container,
            top: None,
            kept: Vec::new(),
            later: Vec::new(),
            waiters: Vec::new(),
        }
    }

    getters! {
        /// A process.
        group: groups, ThreadGroup, ThreadGroupState, ThreadGroupState::restore;
        /// A task.
        task: tasks, Task, TaskState, TaskState::restore;
        /// Signal handlers.
        handlers: actions, Actions, ActionsState, ActionsState::restore;
        /// A vfork parent's wait.
        vfork: vforks, VforkDone, VforkState, VforkState::restore;
        /// An address space.
        mm: mms, Mm, MmState, MmState::restore;
        /// A memory object.
        object: objects, MemoryObject, ObjectState, ObjectState::restore;
        /// A descriptor table.
        fd_table: fd_tables, FdTable, FdTableState, FdTableState::restore;
        /// Root and working directory.
        fs_context: fs_contexts, FsContext, FsContextState, FsContextState::restore;
        /// An open file.
        file: files, FileDescription, FileState, FileState::restore;
        /// What an open file can do.
        file_ops: ops, dyn FileOps, OpsState, OpsState::restore;
        /// A mounted file system.
        super_block: supers, SuperBlock, SuperState, SuperState::restore;
        /// A mount.
        mount: mounts, Mount, MountState, MountState::restore;
        /// A name.
        dentry: dentries, Dentry, DentryState, DentryState::restore;
        /// A file system in memory.
        tmp_fs: tmpfs, TmpFs, TmpFsState, TmpFsState::restore;
        /// An inode in memory.
        node: nodes, Node, NodeState, NodeState::restore;
        /// A pipe.
        pipe: pipes, Pipe, PipeState, PipeState::restore;
        /// What System V semaphores are undone by.
        undo_list: undo_lists, UndoList, UndoState, UndoState::restore;
        /// A mount namespace.
        mount_space: mount_spaces, MountNs, MountNsState, MountNsState::restore;
        /// A terminal.
        tty: ttys, Tty, TtyState, TtyState::restore;
        /// A System V segment.
        segment: segments, Segment, SegmentState, SegmentState::restore;
        /// A set of semaphores.
        sem_set: sem_sets, Set, SemState, SemState::restore;
        /// A System V message queue.
        msg_queue: msg_queues, Queue, MsgState, MsgState::restore;
        /// A POSIX message queue.
        mq: mqs, MessageQueue, MqState, MqState::restore;
        /// A Unix socket.
        socket: sockets, UnixSocket, UnixState, UnixState::restore;
    }

    /// The image below the root.
    ///
    /// # Errors
    /// There is none.
    pub fn image(&self) -> Result<&Arc<RofsFs>, Unusable> {
        self.image.as_ref().ok_or(Unusable::Corrupt("a file of no image"))
    }

    /// Who looks names up on behalf of the restore.
    ///
    /// # Errors
    /// There is no root.
    pub fn root(&self) -> Result<PathRef, Unusable> {
        Ok(self.top.as_ref().ok_or(Unusable::Corrupt("a name before the root"))?.root_path())
    }

    /// Runs `f` with the rights of the kernel itself.
    ///
    /// # Errors
    /// There is no root.
    pub fn with_caller<T>(&self, f: impl FnOnce(&Caller<'_>) -> T) -> Result<T, Unusable> {
        let root = self.root()?;
        Ok(f(&Caller::kernel(&self.kernel.vfs, root)))
    }
}
