//! What the sandbox process is told: everything it needs, since it can look nothing up.

use serde::{Deserialize, Serialize};

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
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The host terminal behind the guest's, in raw mode.
    Console,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GeneratedFile {
    /// Where, absolute.
    pub path: String,
    /// What it says.
    pub contents: String,
}

/// The configuration of one sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// What the descriptors are.
    pub fds: Vec<Role>,
    /// The image's path on the host: for messages only.
    pub image_name: String,
    /// What runs the guest.
    pub platform: PlatformKind,
    /// Most bytes of guest memory.
    pub memory: u64,
    /// Guest CPUs.
    pub cpus: u16,
    /// The program and its arguments, bytes (Linux does not promise UTF-8).
    pub args: Vec<Vec<u8>>,
    /// Its environment.
    pub env: Vec<Vec<u8>>,
    /// Its working directory.
    pub cwd: String,
    /// `USER[:GROUP]`, resolved in the image.
    pub user: String,
    /// The host name inside.
    pub hostname: String,
    /// /etc/hosts and its like.
    pub files: Vec<GeneratedFile>,
    /// Host directories, in the order of the gofer's numbers.
    pub volumes: Vec<crate::gofer::Volume>,
    /// The size of the console, where there is one.
    pub console: Option<ConsoleSize>,
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
