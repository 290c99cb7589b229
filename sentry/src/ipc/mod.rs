//! System V IPC (shared memory, semaphores, message queues) and POSIX message queues. See `README.md` here.

pub mod ids;
pub mod mq;
pub mod msg;
pub mod saved;
pub mod sem;
pub mod shm;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::{Level, Mutex};

/// An IPC namespace: its System V objects and message queues.
pub struct Ipc {
    /// Its number in `/proc/PID/ns`.
    pub ino: u32,
    /// Shared memory segments.
    pub shm: Mutex<ids::Ids<shm::Segment>>,
    /// Semaphore sets.
    pub sem: Mutex<ids::Ids<sem::Set>>,
    /// Message queues.
    pub msg: Mutex<ids::Ids<msg::Queue>>,
    /// POSIX message queues by name.
    pub mq: Mutex<BTreeMap<Vec<u8>, Arc<mq::MessageQueue>>>,
}

impl Ipc {
    /// A namespace without objects.
    #[must_use]
    pub fn new(ino: u32) -> Self {
        Ipc {
            ino,
            shm: Mutex::new(Level::Ipc, ids::Ids::default()),
            sem: Mutex::new(Level::Ipc, ids::Ids::default()),
            msg: Mutex::new(Level::Ipc, ids::Ids::default()),
            mq: Mutex::new(Level::Ipc, BTreeMap::new()),
        }
    }
}

/// Commands of `shmctl`, `semctl` and `msgctl`.
#[allow(missing_docs, reason = "named as in the man pages")]
pub mod cmd {
    pub const IPC_RMID: i32 = 0;
    pub const IPC_SET: i32 = 1;
    pub const IPC_STAT: i32 = 2;
    pub const IPC_INFO: i32 = 3;
    pub const SHM_LOCK: i32 = 11;
    pub const SHM_UNLOCK: i32 = 12;
    pub const SHM_STAT: i32 = 13;
    pub const SHM_INFO: i32 = 14;
    pub const SHM_STAT_ANY: i32 = 15;
    pub const GETPID: i32 = 11;
    pub const GETVAL: i32 = 12;
    pub const GETALL: i32 = 13;
    pub const GETNCNT: i32 = 14;
    pub const GETZCNT: i32 = 15;
    pub const SETVAL: i32 = 16;
    pub const SETALL: i32 = 17;
    pub const SEM_STAT: i32 = 18;
    pub const SEM_INFO: i32 = 19;
    pub const SEM_STAT_ANY: i32 = 20;
    pub const MSG_STAT: i32 = 11;
    pub const MSG_INFO: i32 = 12;
    pub const MSG_STAT_ANY: i32 = 13;
}

/// `IPC_CREAT`.
pub const IPC_CREAT: u32 = 0o1000;
/// `IPC_EXCL`.
pub const IPC_EXCL: u32 = 0o2000;
/// `IPC_NOWAIT`.
pub const IPC_NOWAIT: u32 = 0o4000;
