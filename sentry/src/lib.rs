//! The sentry: a kernel in user space that serves the system calls of unmodified Linux programs.
//!
//! It knows no concrete platform, no OCI and no host paths; the runtime hands it descriptors and a [`boot::Config`].
//! Tasks are data, not threads: see `kernel/README.md`.
#![deny(unsafe_code)]

pub mod boot;
pub mod checkpoint;
pub mod fs;
pub mod ipc;
pub mod kernel;
pub mod loader;
pub mod mm;
pub mod net;
pub mod sync;
pub mod syscalls;
pub mod vfs;

pub use boot::{Config, ExitStatus, run};
