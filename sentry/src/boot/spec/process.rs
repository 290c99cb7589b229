//! A process to be started: a container's first, or one that is executed into it.

use std::os::fd::OwnedFd;

use crate::kernel::creds::Capabilities;
use crate::kernel::seccomp::bpf::Insn;

/// A program, who runs it, where, with what.
pub struct ProcessSpec {
    /// Program and arguments; the program is looked up in `PATH` where it has no slash.
    pub args: Vec<Vec<u8>>,
    /// Environment, `NAME=value`. HOME is added from the image's /etc/passwd where it is missing.
    pub env: Vec<Vec<u8>>,
    /// Working directory, `/` where empty.
    pub cwd: Vec<u8>,
    /// A missing working directory is made (runc does for both kinds of process), or else refused.
    pub make_cwd: bool,
    /// Who runs it.
    pub user: User,
    /// Its umask; 0022 where `None`.
    pub umask: Option<u32>,
    /// Its capabilities; `None` for all of them (root) or none (others).
    pub capabilities: Option<CapabilitySets>,
    /// Resource limits that differ from the defaults.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `/proc/PID/oom_score_adj`; `None` inherits the container's.
    pub oom_score_adj: Option<i32>,
    /// System call filter, in force from before its first instruction.
    pub seccomp: Option<Filter>,
    /// Descriptors 0, 1 and 2.
    pub stdio: Stdio,
    /// Descriptors 3 and up.
    pub preserved: Vec<OwnedFd>,
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// `UID[:GID]`, or names of the image's /etc/passwd and /etc/group; root where empty.
    Named(String),
    /// Numbers.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        additional_gids: Vec<u32>,
    },
}

/// Capability sets, bits as in `include/uapi/linux/capability.h`.
pub type CapabilitySets = Capabilities;

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Enforced.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// A compiled seccomp profile.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Classic BPF, as for `SECCOMP_SET_MODE_FILTER`; checked when it is installed.
    pub program: Vec<Insn>,
    /// SECCOMP_FILTER_FLAG_LOG. Kept; what filters refuse is not logged yet, but for what they kill.
    pub log: bool,
}

/// What standard streams are.
pub enum Stdio {
    /// Host descriptors (non-blocking), passed through.
    Host([OwnedFd; 3]),
    /// The same, where standard input is a terminal that other jobs read as well. A read asks for leave at `gate`
    /// first (a SOCK_SEQPACKET socket; `fs/host_gate.rs`).
    Shared {
        /// The descriptors.
        streams: [OwnedFd; 3],
        /// Where to ask.
        gate: OwnedFd,
    },
    /// A pty of the sandbox's own, whose master side is this host descriptor (a socket or terminal in raw mode):
    /// bytes from it are typed, bytes of the guest appear on it.
    Console {
        /// Byte stream to the terminal.
        fd: OwnedFd,
        /// Rows and columns.
        size: (u16, u16),
        /// Where standard error leads elsewhere.
        stderr: Option<OwnedFd>,
    },
}

impl ProcessSpec {
    /// A program with default credentials for `user`, as `nanovisor do` runs it.
    #[must_use]
    pub fn new(args: Vec<Vec<u8>>, env: Vec<Vec<u8>>, user: User, stdio: Stdio) -> Self {
        ProcessSpec {
            args,
            env,
            cwd: Vec::new(),
            make_cwd: false,
            user,
            umask: None,
            capabilities: None,
            rlimits: Vec::new(),
            no_new_privs: false,
            oom_score_adj: None,
            seccomp: None,
            stdio,
            preserved: Vec::new(),
        }
    }
}
