//! A container and a process as the command describes them to the sandbox process: plain data, every host path already
//! turned into a descriptor that travels beside it.

use serde::{Deserialize, Serialize};

use super::config::{ConsoleSize, GeneratedFile};

/// A container; `sentry::boot::ContainerSpec` is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name.
    pub id: String,
    /// What `/` is.
    pub root: RootConfig,
    /// Nothing can be written to the root.
    pub readonly_root: bool,
    /// What every Linux system has is mounted, before the others.
    pub usual_mounts: bool,
    /// In the order in which they are mounted.
    pub mounts: Vec<MountConfig>,
    /// Files made before the start.
    pub files: Vec<GeneratedFile>,
    /// Host name; empty leaves the sandbox's.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// Kernel parameters.
    pub sysctls: Vec<(String, String)>,
    /// Paths that read as empty.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written.
    pub readonly_paths: Vec<String>,
    /// Device nodes.
    pub devices: Vec<DeviceConfig>,
    /// Containers of the same sandbox that a namespace is shared with: pid, ipc, uts, net.
    pub shares: [Option<String>; 4],
    /// The first process.
    pub process: ProcessConfig,
    /// The first process is an init, which signals that it has no handler for do not end (not under `do`).
    pub shielded: bool,
    /// Limits inside.
    pub limits: LimitsConfig,
}

impl ContainerConfig {
    /// A container with nothing but a root and a program.
    #[must_use]
    pub fn new(id: &str, root: RootConfig, process: ProcessConfig) -> Self {
        ContainerConfig {
            id: id.to_owned(),
            root,
            readonly_root: false,
            usual_mounts: true,
            mounts: Vec::new(),
            files: Vec::new(),
            hostname: String::new(),
            domainname: String::new(),
            sysctls: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            devices: Vec::new(),
            shares: [const { None }; 4],
            process,
            shielded: false,
            limits: LimitsConfig::default(),
        }
    }
}

/// What `/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootConfig {
    /// This many ROFS images, the lowest first, with a writable layer in memory; their descriptors are `Role::Image`.
    Images(u32),
    /// A tree of the gofer.
    Gofer {
        /// Its number.
        index: u32,
    },
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// Where, absolute.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// `MS_*` that the sentry knows.
    pub flags: u32,
    /// Options of the file system.
    pub data: String,
    /// What /proc/mounts calls its device.
    pub source: String,
    /// Begins with what lay there.
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// procfs.
    Proc,
    /// sysfs.
    Sysfs,
    /// tmpfs.
    Tmpfs,
    /// tmpfs with devices in it.
    Dev,
    /// Pseudo-terminals.
    Devpts,
    /// Message queues.
    Mqueue,
    /// Control group.
    Cgroup,
    /// The next `Role::MountImage` descriptor.
    Image,
    /// A tree of the gofer.
    Gofer {
        /// Its number.
        index: u32,
        /// Nobody else changes it.
        exclusive: bool,
    },
    /// A place of the container itself.
    Bind {
        /// Absolute path inside.
        source: String,
        /// With what lies below.
        recursive: bool,
    },
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// Where, absolute.
    pub path: String,
    /// `c`, `b`, `u` or `p`.
    pub kind: u8,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// Limits that the sandbox's own kernel keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Bytes.
    pub memory: Option<u64>,
    /// Tasks.
    pub pids: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// Program and arguments.
    pub args: Vec<Vec<u8>>,
    /// Environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: String,
    /// A missing working directory is made.
    pub make_cwd: bool,
    /// Who.
    pub user: UserConfig,
    /// umask; `None` for the usual one.
    pub umask: Option<u32>,
    /// Capability sets; `None` for all (root) or none (others).
    pub capabilities: Option<CapabilityConfig>,
    /// `RLIMIT_*`, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// no_new_privs.
    pub no_new_privs: bool,
    /// oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// System call filter.
    pub seccomp: Option<SeccompConfig>,
    /// The size of the terminal, where it has one.
    pub console: Option<ConsoleSize>,
    /// How many descriptors it gets besides its streams.
    pub preserved: u32,
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserConfig {
    /// `USER[:GROUP]`, resolved in the root.
    Named(String),
    /// User, group, supplementary groups.
    Ids(u32, u32, Vec<u32>),
}

/// Capability sets, a bit per capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityConfig {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
}

/// A compiled filter: classic BPF as (code, jt, jf, k).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompConfig {
    /// Instructions.
    pub program: Vec<(u16, u8, u8, u32)>,
    /// SECCOMP_FILTER_FLAG_LOG.
    pub log: bool,
}
