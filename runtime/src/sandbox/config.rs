//! What the sandbox process is told: everything it needs, since it can look nothing up.

use serde::{Deserialize, Serialize};

use super::describe::ContainerConfig;
use crate::logging::Format;

/// The platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// /dev/kvm.
    Kvm,
    /// Stub processes.
    Ptrace,
}

impl PlatformKind {
    /// `kvm` or `ptrace`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PlatformKind::Kvm => "kvm",
            PlatformKind::Ptrace => "ptrace",
        }
    }
}

/// What a descriptor handed over is. The configuration lists them in the order of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The root file system's image, read-only.
    Image,
    /// /dev/kvm.
    Kvm,
    /// The gofer's socket.
    Gofer,
    /// Standard input.
    Stdin,
    /// Where to ask for leave to read standard input, a terminal.
    InputGate,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The host terminal behind the guest's, in raw mode.
    Console,
    /// A descriptor that the program gets besides its streams, in their order.
    Preserved,
    /// An image that a mount shows, in the order of the mounts.
    MountImage,
    /// The socket on which later commands connect.
    Listener,
    /// Where a checkpoint's state is written.
    CheckpointState,
    /// Where its pages are.
    CheckpointPages,
    /// The state to restore.
    RestoreState,
    /// Its pages.
    RestorePages,
}

/// Size of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A generated file of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedFile {
    /// Where, absolute.
    pub path: String,
    /// What it says.
    pub contents: String,
}

/// Whose end is the sandbox's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// The command that started it, which stays beside it. Its program runs at once.
    Attached,
    /// Its own: the command leaves when it is there, others come and go by its [`Role::Listener`]. Its program waits
    /// for the first of them.
    Detached,
}

/// What a restored sandbox has for its own; `sentry::checkpoint::Instance` is made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceConfig {
    /// From a template in memory.
    pub forked: bool,
    /// The container's name; `None` leaves the snapshot's.
    pub name: Option<String>,
    /// Host name; `None` leaves the snapshot's.
    pub hostname: Option<String>,
    /// A new /etc/machine-id.
    pub machine_id: bool,
    /// A JSON object for `/run/nanovisor/instance.json`.
    pub metadata: Option<String>,
}

/// The configuration of one sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// What the descriptors are.
    pub fds: Vec<Role>,
    /// What runs the guest.
    pub platform: PlatformKind,
    /// Most bytes of guest memory.
    pub memory: u64,
    /// Guest CPUs.
    pub cpus: u16,
    /// The first container.
    pub container: ContainerConfig,
    /// Who it lives for.
    pub life: Life,
    /// Build the platform, say [`Message::Ready`](crate::control::wire::Message), and wait for another configuration of
    /// the same kind, which says what to be.
    pub blank: bool,
    /// Where it is restored: what is its own. The container is then only a name.
    pub instance: Option<InstanceConfig>,
    /// The sandbox ends when its checkpoint is written.
    pub stop_after: bool,
    /// Log every guest system call.
    pub strace: bool,
    /// Spurious wake-ups from this seed (tests).
    pub chaos: Option<u64>,
    /// More log.
    pub debug: bool,
    /// How log lines look.
    pub log_format: Format,
    /// Who the process is inside its user namespace; `None` where the host gave it none.
    pub inside_user: Option<u32>,
    /// Walls taken down: none, but in the build that proves them.
    #[serde(default)]
    pub trial: crate::walls::Trial,
}
