//! What went wrong, for people and for scripts: one line and an exit status.

use std::fmt;

use abi::Errno;

/// Exit statuses of the command itself. Everything else is the program's own. `docs/exit-status.md` is their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Status {
    /// The command line is wrong.
    Usage = 2,
    /// The image file is missing or cannot be read.
    ImageMissing = 110,
    /// The image is truncated, corrupt, looping, or of a kind that is not supported.
    ImageCorrupt = 111,
    /// Building an image failed.
    ImageBuild = 112,
    /// The disk is full.
    DiskFull = 113,
    /// The platform asked for does not work here (no /dev/kvm, ...).
    NoPlatform = 114,
    /// The host does not let us (user namespaces, mounts, ptrace).
    NotPermitted = 115,
    /// The host is out of descriptors, processes or memory.
    Exhausted = 116,
    /// The sandbox process was killed or died.
    SandboxDied = 117,
    /// The sandbox process made a system call that its own filter refuses.
    FilterKilled = 118,
    /// A flag of a later version.
    NotYet = 119,
    /// The program is for another processor, or no program at all.
    WrongFormat = 120,
    /// The program is a script whose interpreter is missing.
    NoInterpreter = 121,
    /// The working directory or the user is not in the image.
    BadIdentity = 122,
    /// The snapshot cannot be restored here: damaged, of another version, of another processor or image.
    Snapshot = 123,
    /// Anything else that kept the program from starting.
    Runtime = 125,
    /// The program is there but may not be executed.
    NotExecutable = 126,
    /// The program is not in the image.
    NotFound = 127,
}

/// Why the command ends without the program's own exit status.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// One line: the thing, the value, the way out.
    pub message: String,
}

/// The result of everything that may end the command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with its line.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }

    /// A failure of the runtime itself.
    pub fn runtime(message: impl Into<String>) -> Self {
        Failure::new(Status::Runtime, message)
    }

    /// A failed host call, told in the words of `doing` ("starting the sandbox process").
    pub fn host(doing: &str, error: hostsys::Error) -> Self {
        let denied = matches!(error.errno(), libc::EPERM | libc::EACCES);
        let otherwise = if denied { Status::NotPermitted } else { Status::Runtime };
        Failure::by_errno(otherwise, &format!("{doing}: {error}"), error.errno())
    }

    /// A failed use of a file or of the host, where `otherwise` is what it means unless the host has run out of something.
    pub fn io(otherwise: Status, doing: &str, error: &std::io::Error) -> Self {
        Failure::by_errno(otherwise, &format!("{doing}: {error}"), error.raw_os_error().unwrap_or(0))
    }

    fn by_errno(otherwise: Status, text: &str, errno: i32) -> Self {
        let (status, hint) = match errno {
            libc::EMFILE => (Status::Exhausted, "; raise `ulimit -n`"),
            libc::ENFILE => (Status::Exhausted, "; raise fs.file-max"),
            libc::EAGAIN => (Status::Exhausted, "; raise `ulimit -u` or the pids limit"),
            libc::ENOMEM => (Status::Exhausted, "; free memory, or raise the memory limit or `ulimit -v`"),
            libc::ENOSPC | libc::EDQUOT => (Status::DiskFull, "; free some, or use another disk"),
            _ => (otherwise, ""),
        };
        Failure::new(status, format!("{text}{hint}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a path or a host message holds.
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

impl std::error::Error for Failure {}

/// How the sentry's sentences about the user, the group and the working directory begin.
const IDENTITY: [&str; 3] = ["user ", "group ", "working directory "];

/// What kept a program from starting, by the sentry's errno and sentence, as an exit status.
#[must_use]
pub fn not_started(errno: Errno, text: &str) -> Status {
    match errno {
        _ if IDENTITY.iter().any(|start| text.starts_with(start)) => Status::BadIdentity,
        Errno::ENOENT | Errno::ENOTDIR if text.contains("interpreter") => Status::NoInterpreter,
        Errno::ENOENT | Errno::ENOTDIR => Status::NotFound,
        Errno::EACCES | Errno::EPERM | Errno::EISDIR => Status::NotExecutable,
        Errno::ENOEXEC => Status::WrongFormat,
        Errno::EIO | Errno::ELOOP | Errno::EUCLEAN => Status::ImageCorrupt,
        Errno::ENOMEM | Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE => Status::Exhausted,
        _ => Status::Runtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_status() {
        assert_eq!(not_started(Errno::ENOENT, "/bin/x: no such file"), Status::NotFound);
        assert_eq!(not_started(Errno::ENOENT, "/bin/x: its interpreter /bin/y is missing"), Status::NoInterpreter);
        assert_eq!(not_started(Errno::ENOEXEC, ""), Status::WrongFormat);
        assert_eq!(not_started(Errno::EACCES, ""), Status::NotExecutable);
        assert_eq!(not_started(Errno::EACCES, "working directory /x: permission denied"), Status::BadIdentity);
    }
}
