//! Host calls that need unsafe glue, each once, behind safe faces.
//!
//! Nothing here decides anything: the callers (the command line, the sandbox's boot) own the policy. An error names
//! the call that failed and carries the host's errno.
#![allow(unsafe_code)]

pub mod abort;
pub mod caps;
pub mod dirent;
pub mod error;
pub mod fds;
pub mod mount;
pub mod opath;
pub mod process;
pub mod seqpacket;
pub mod signals;
pub mod sigsys;
pub mod tty;
pub mod userns;

pub use error::{Error, Result};
pub use process::{Child, Fork, Namespaces};
pub use seqpacket::SeqPacket;
