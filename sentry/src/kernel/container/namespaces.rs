//! What containers see of the kernel: process ids, IPC objects, names, the network. Each kind may be shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ipc::Ipc;
use crate::kernel::pids::PidTable;
use crate::sync::{Level, Mutex};

/// Inode numbers of namespaces count up from here (`PROC_DYNAMIC_FIRST`).
const FIRST_INODE: u32 = 0xf000_0000;

/// What `uname(2)` says that can be set.
#[derive(Clone, Debug)]
pub struct Uts {
    /// hostname.
    pub hostname: Vec<u8>,
    /// NIS domain name.
    pub domainname: Vec<u8>,
}

/// A UTS namespace.
pub struct UtsNs {
    /// Its number in `/proc/PID/ns`.
    pub ino: u32,
    /// The names.
    pub names: Mutex<Uts>,
}

/// The namespaces of a container. Cloning shares them.
#[derive(Clone)]
pub struct Namespaces {
    /// Process ids: a tree of its own, whose process 1 is its init. Nobody outside has an id in it.
    pub pids: Arc<PidTable>,
    /// System V IPC and message queues.
    pub ipc: Arc<Ipc>,
    /// hostname and domainname.
    pub uts: Arc<UtsNs>,
    /// Number of the network namespace, which tells abstract Unix sockets apart.
    pub net: u32,
    /// Number of the control group namespace.
    pub cgroup: u32,
}

/// Gives namespaces their numbers.
pub struct Numbers(AtomicU32);

impl Default for Numbers {
    fn default() -> Self {
        Numbers(AtomicU32::new(FIRST_INODE))
    }
}

impl Numbers {
    /// The number that is given next, for saved state.
    #[must_use]
    pub fn given(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on from what [`Numbers::given`] said.
    pub fn go_on(&self, next: u32) {
        self.0.store(next, Ordering::Relaxed);
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Fresh namespaces of all kinds.
    #[must_use]
    pub fn fresh(&self) -> Namespaces {
        let names = Uts { hostname: b"nanovisor".to_vec(), domainname: b"(none)".to_vec() };
        Namespaces {
            pids: Arc::new(PidTable::new(self.next())),
            ipc: Arc::new(Ipc::new(self.next())),
            uts: Arc::new(UtsNs { ino: self.next(), names: Mutex::new(Level::Leaf, names) }),
            net: self.next(),
            cgroup: self.next(),
        }
    }
}
