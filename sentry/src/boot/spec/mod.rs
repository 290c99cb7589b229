//! What a container is made of, as the runtime describes it: OCI's config.json with every host path already turned
//! into a descriptor, and every name of the host already resolved.

mod process;

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::vfs::mount::MountFlags;

pub use process::{CapabilitySets, Filter, ProcessSpec, Rlimit, Stdio, User};

/// A container: its root, what is mounted in it, what it shares, its first process.
pub struct ContainerSpec {
    /// Its name: unique in the sandbox, chosen by the caller.
    pub id: String,
    /// What `/` is.
    pub root: Root,
    /// Nothing can be written to the root (its mounts apart): EROFS.
    pub readonly_root: bool,
    /// In the order in which they are mounted.
    pub mounts: Vec<MountSpec>,
    /// The connection to the container's gofer, for [`Root::Gofer`] and [`MountKind::Gofer`].
    pub gofer: Option<OwnedFd>,
    /// Files made after the mounts and before the start (`/etc/hosts`, ...): path, mode, content.
    pub files: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// `hostname`; empty leaves the namespace's.
    pub hostname: Vec<u8>,
    /// NIS domain name; empty leaves the namespace's.
    pub domainname: Vec<u8>,
    /// Kernel parameters, as `sysctl(8)` writes them: `kernel.shmmax`, `65536`.
    pub sysctls: Vec<(String, String)>,
    /// Read as empty: files as /dev/null, directories as an empty read-only tmpfs. Missing ones are skipped.
    pub masked_paths: Vec<Vec<u8>>,
    /// Read-only. Missing ones are skipped.
    pub readonly_paths: Vec<Vec<u8>>,
    /// Device nodes to make, besides those of [`MountKind::Dev`].
    pub devices: Vec<DeviceSpec>,
    /// Which namespaces it shares with which other container.
    pub shares: Shares,
    /// Its first process.
    pub process: ProcessSpec,
    /// Signals from outside that the first process has no handler for are lost on it, SIGKILL and SIGSTOP apart, as they
    /// are on the first process of a pid namespace (pid_namespaces(7)).
    pub shielded: bool,
    /// How much it may use.
    pub limits: ResourceLimits,
}

/// What a container's `/` is.
pub enum Root {
    /// A ROFS image, with a writable layer in memory.
    Image(File),
    /// ROFS images, the lowest first, with a writable layer in memory.
    Layers(Vec<File>),
    /// A tree of the gofer, written through.
    Gofer(GoferTree),
    /// A tree of the gofer that nobody changes, with a writable layer in memory.
    GoferBelow(GoferTree),
}

/// A directory or file that the container's gofer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoferTree {
    /// Its number in the gofer's list.
    pub index: u32,
    /// Nobody else changes it: names and attributes may be remembered.
    pub exclusive: bool,
}

/// One mount.
pub struct MountSpec {
    /// Where: absolute. Made inside the root where it is missing; symlinks lead nowhere but inside the root.
    pub destination: Vec<u8>,
    /// What.
    pub kind: MountKind,
    /// How.
    pub flags: MountFlags,
    /// The file system's own options, as the last argument of `mount(2)`: `size=64m,mode=755`.
    pub data: String,
    /// What `/proc/mounts` calls its device.
    pub source: Vec<u8>,
    /// A tmpfs begins with what lay at its destination (runc's `tmpcopyup`).
    pub copy_up: bool,
}

/// What is mounted.
pub enum MountKind {
    /// procfs of the container's pid namespace.
    Proc,
    /// sysfs.
    Sysfs,
    /// A tmpfs; `data` has size=, nr_inodes=, mode=, uid=, gid=.
    Tmpfs,
    /// A tmpfs with the usual devices and links in it (null, zero, full, random, urandom, tty, fd, std*, ptmx).
    Dev,
    /// Pseudo-terminals; `data` has mode=, ptmxmode=, gid=.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// The container's control group, as it sees it.
    Cgroup,
    /// A ROFS image, read-only.
    Image(File),
    /// A tree of the gofer.
    Gofer(GoferTree),
    /// A place of the container itself once more (a `bind` whose source lies inside); with what is below it or not.
    Bind {
        /// Absolute path inside.
        source: Vec<u8>,
        /// `rbind`.
        recursive: bool,
    },
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Where, absolute.
    pub path: Vec<u8>,
    /// `c`, `b`, `u` or `p`, as `mknod(1)`.
    pub kind: u8,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// For each kind of namespace: the container that it is shared with, or `None` for one of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Process ids.
    pub pid: Option<String>,
    /// System V IPC and message queues.
    pub ipc: Option<String>,
    /// hostname and domainname.
    pub uts: Option<String>,
    /// Network, abstract Unix sockets with it.
    pub net: Option<String>,
}

/// How much a container may use; `None` is no limit but the sandbox's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Tasks.
    pub pids: Option<u64>,
    /// CPU time per second of real time, in thousandths of a CPU (1500 is one and a half).
    pub cpu_millis: Option<u64>,
}

impl ContainerSpec {
    /// A container with this root and first process, the usual mounts, and nothing else.
    #[must_use]
    pub fn new(id: &str, root: Root, process: ProcessSpec) -> Self {
        ContainerSpec {
            id: id.to_owned(),
            root,
            readonly_root: false,
            mounts: usual_mounts(),
            gofer: None,
            files: Vec::new(),
            hostname: Vec::new(),
            domainname: Vec::new(),
            sysctls: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            devices: Vec::new(),
            shares: Shares::default(),
            process,
            shielded: true,
            limits: ResourceLimits::default(),
        }
    }
}

/// What every program expects: /proc, /sys, /dev, /dev/pts, /dev/shm.
#[must_use]
pub fn usual_mounts() -> Vec<MountSpec> {
    let devices = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RELATIME;
    let guarded = devices | MountFlags::NODEV;
    let mount = |destination: &[u8], kind, source: &[u8], flags, data: &str| MountSpec {
        destination: destination.to_vec(),
        kind,
        flags,
        data: data.to_owned(),
        source: source.to_vec(),
        copy_up: false,
    };
    vec![
        mount(b"/proc", MountKind::Proc, b"proc", guarded, ""),
        mount(b"/sys", MountKind::Sysfs, b"sysfs", guarded, ""),
        mount(b"/dev", MountKind::Dev, b"tmpfs", devices, "mode=755"),
        mount(b"/dev/pts", MountKind::Devpts, b"devpts", devices, ""),
        mount(b"/dev/shm", MountKind::Tmpfs, b"shm", guarded, "mode=1777"),
    ]
}
