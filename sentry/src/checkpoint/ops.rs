//! What an open file can do, as saved state: one variant a kind of file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Bytes, Id, Refused, Restorer, Saver, Unusable};
use crate::fs::epoll::saved::EpollState;
use crate::fs::eventfd::EventFd;
use crate::fs::gofer::saved::GoferFileState;
use crate::fs::inotify::saved::InotifyState;
use crate::fs::pipe::saved::PipeEndState;
use crate::fs::pseudo::OpenPseudo;
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::TimerFdState;
use crate::fs::tmpfs::saved::NodeState;
use crate::fs::tty::saved::TtyState;
use crate::fs::tty::{MasterFile, SlaveFile};
use crate::ipc::mq::QueueFile;
use crate::ipc::saved::MqState;
use crate::kernel::pidfd::PidFile;
use crate::kernel::thread_group::saved::ThreadGroupState;
use crate::net::file::SocketFileState;
use crate::vfs::anon::default_attr;
use crate::vfs::dir_file::{DirFile, PathFile};
use crate::vfs::saved::PathState;
use crate::vfs::{Attr, FileDescription, FileOps, FileType, OpenFlags};

/// The operations of an open file.
#[derive(Serialize, Deserialize)]
pub enum OpsState {
    /// O_PATH.
    Path,
    /// A directory.
    Directory(PathState),
    /// A regular file in memory.
    Memory {
        /// The inode.
        node: Id<NodeState>,
        /// Whether writes take set-id bits off.
        strips: bool,
    },
    /// A file of the image.
    Lower(Id<NodeState>),
    /// A file that the kernel makes up.
    Pseudo {
        /// Where.
        path: PathState,
        /// What was read of it.
        text: Option<Bytes>,
    },
    /// A device, opened again by its number.
    Device {
        /// Number.
        rdev: u64,
        /// How it is open.
        flags: u32,
    },
    /// An end of a pipe.
    Pipe(PipeEndState),
    /// eventfd.
    Event {
        /// Its count.
        count: u64,
        /// EFD_SEMAPHORE.
        semaphore: bool,
    },
    /// epoll.
    Epoll(EpollState),
    /// timerfd.
    Timer(TimerFdState),
    /// signalfd.
    Signal {
        /// Signals it takes.
        wanted: u64,
        /// Whose readiness it tells.
        group: Option<Id<ThreadGroupState>>,
    },
    /// pidfd.
    Pid(Id<ThreadGroupState>),
    /// A Unix socket.
    Unix(SocketFileState),
    /// A terminal.
    Terminal {
        /// Which.
        tty: Id<TtyState>,
        /// Hang-ups that it had seen when this was opened.
        hangups: u32,
    },
    /// A regular file of a host directory.
    Gofer {
        /// Where.
        path: PathState,
        /// How it is open.
        state: GoferFileState,
    },
    /// A POSIX message queue.
    MessageQueue(Id<MqState>),
    /// inotify.
    Inotify(InotifyState),
    /// The other side of a pty.
    PtyMaster(Id<TtyState>),
    /// A host stream, by name.
    Host(String),
    /// What `/proc/nanovisor/checkpoint` is.
    Checkpoint,
}

impl OpsState {
    /// The place of an open file that must have one.
    ///
    /// # Errors
    /// It has none.
    pub fn path_of(file: &FileDescription, saver: &mut Saver) -> Result<PathState, Refused> {
        match &file.path {
            Some(path) => Ok(path.save(saver)),
            None => Err(Refused::new(format!("the open file {}", file.name()))),
        }
    }

    /// A device that keeps nothing of its own.
    ///
    /// # Errors
    /// It has no inode.
    pub fn device(file: &FileDescription) -> Result<OpsState, Refused> {
        let inode = file.inode.as_ref().ok_or_else(|| Refused::new(format!("the device {}", file.name())))?;
        Ok(OpsState::Device { rdev: inode.attr().rdev, flags: file.flags().bits() })
    }

    /// The operations.
    ///
    /// # Errors
    /// Corrupt state; a file that cannot be opened again.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<dyn FileOps>, Unusable> {
        let kernel = restorer.kernel.clone();
        Ok(match self {
            OpsState::Path => Arc::new(PathFile),
            OpsState::Directory(path) => DirFile::new(path.restore(restorer)?.inode().clone()),
            OpsState::Memory { node, strips } => {
                restorer.node(node)?.open_memory(strips).map_err(Unusable::step("a file in memory"))?
            }
            OpsState::Lower(node) => {
                let node = restorer.node(node)?;
                restorer
                    .with_caller(|caller| node.open_lower(caller))?
                    .map_err(Unusable::step("a file of the image"))?
            }
            OpsState::Pseudo { path, text } => {
                let inode = path.restore(restorer)?.inode().clone();
                let text = text.map(|text| text.0);
                let opened = restorer.with_caller(|caller| OpenPseudo::again(inode, caller, text))?;
                // A process that has gone meanwhile takes its files along.
                opened.unwrap_or_else(|_| Arc::new(PathFile))
            }
            OpsState::Device { rdev, flags } => {
                let attr = Attr { kind: FileType::CharDevice, rdev, ..default_attr() };
                let flags = OpenFlags::from_bits_retain(flags);
                let opened = restorer.with_caller(|caller| kernel.devices.open(caller, &attr, flags))?;
                opened.map_err(Unusable::step("a device"))?
            }
            OpsState::Pipe(end) => end.restore(restorer)?,
            OpsState::Event { count, semaphore } => EventFd::restored(count, semaphore),
            OpsState::Epoll(state) => state.restore(restorer),
            OpsState::Timer(state) => state.restore(&kernel),
            OpsState::Signal { wanted, group } => {
                let group = group.map(|id| restorer.group(id)).transpose()?;
                SignalFd::restored(wanted, group.as_ref())
            }
            OpsState::Pid(group) => PidFile::of(&restorer.group(group)?),
            OpsState::Unix(state) => state.restore(restorer)?,
            OpsState::Terminal { tty, hangups } => SlaveFile::restored(restorer.tty(tty)?, hangups),
            OpsState::PtyMaster(tty) => MasterFile::restored(restorer.tty(tty)?),
            OpsState::Gofer { path, state } => state.restore(path.restore(restorer)?.inode())?,
            OpsState::MessageQueue(id) => Arc::new(QueueFile(restorer.mq(id)?)),
            OpsState::Inotify(state) => state.restore(restorer)?,
            OpsState::Host(name) => restorer.given.take(&name, &kernel.reactor)?,
            OpsState::Checkpoint => Arc::new(crate::fs::proc::nanovisor::CheckpointFile::new(&kernel)),
        })
    }
}
