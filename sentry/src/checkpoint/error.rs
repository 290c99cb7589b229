//! Why a kernel is not saved, and why a snapshot is not restored.

use abi::Errno;

/// Something exists that cannot be saved. Nothing has been stopped for good; the guest goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be saved{}", hint(.why))]
pub struct Refused {
    what: String,
    why: String,
}

fn hint(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

impl Refused {
    /// `what` names the object as its user knows it: "tid 7's call `fcntl_setlk`", "the open file /proc/5/mem".
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Refused { what: what.into(), why: String::new() }
    }

    /// A call that waits, whose progress is not saved yet.
    #[must_use]
    pub fn waiting(name: &str) -> Self {
        Refused::new(format!("a call that waits ({name})"))
    }

    /// The same, with a reason.
    #[must_use]
    pub fn because(what: impl Into<String>, why: impl Into<String>) -> Self {
        Refused { what: what.into(), why: why.into() }
    }

    /// The same, in something larger.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Refused { what: format!("{outer}: {}", self.what), why: self.why }
    }
}

/// A checkpoint that was not made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// See [`Refused`].
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The files could not be written.
    #[error("writing the snapshot: {0}")]
    Write(#[from] std::io::Error),
    /// The encoding does not bear it: a defect of ours.
    #[error("{0}")]
    Format(#[from] snapshot::Error),
}

impl Failure {
    /// What the program that asked for it hears.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Failure::Refused(_) => Errno::EOPNOTSUPP,
            Failure::Write(e) => e.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
            Failure::Format(_) => Errno::EIO,
        }
    }
}

/// A snapshot that cannot be restored here. Nothing has been started.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The container.
    #[error("{0}")]
    Format(#[from] snapshot::Error),
    /// The host's processor.
    #[error("this host cannot run the snapshot: {0}")]
    Features(String),
    /// A host resource that was not given, or is another.
    #[error("the snapshot needs {0}")]
    Resource(String),
    /// The objects make no sense.
    #[error("the snapshot's kernel section is corrupt: {0}")]
    Corrupt(&'static str),
    /// A step of the restore failed.
    #[error("restoring {what}: {errno}")]
    Step {
        /// What was restored.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The host.
    #[error("restoring: {0}")]
    Host(#[from] std::io::Error),
}

impl Unusable {
    /// For `map_err`: a step that failed.
    pub fn step(what: &'static str) -> impl Fn(Errno) -> Unusable {
        move |errno| Unusable::Step { what, errno }
    }
}
