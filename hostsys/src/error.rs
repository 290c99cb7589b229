//! The error of a host call.

use std::io;

/// A host call failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct Error {
    /// The call, as its man page names it, with what it was for where that is not plain.
    pub call: &'static str,
    /// What the host said.
    pub source: io::Error,
}

/// The result of a host call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The error of `call` with an explicit cause.
    pub fn new(call: &'static str, source: impl Into<io::Error>) -> Self {
        Error { call, source: source.into() }
    }

    /// The error of `call` from the thread's errno.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Error { call, source: io::Error::last_os_error() }
    }

    /// The host's errno, 0 where there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }

    /// Whether the host ran out of descriptors, processes or memory (EMFILE, ENFILE, EAGAIN, ENOMEM).
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        matches!(self.errno(), libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM)
    }
}

/// Turns a system call's return value into a result.
pub(crate) fn check(call: &'static str, rc: i64) -> Result<i64> {
    if rc < 0 { Err(Error::last(call)) } else { Ok(rc) }
}
