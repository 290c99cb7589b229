//! `--root`: a directory per container, the only truth about it besides its sandbox process.
//!
//!     ROOT/ID/lock          flock: who changes the container holds it; looking takes no lock
//!     ROOT/ID/state.json    a [`Record`], replaced whole
//!     ROOT/ID/control.sock  where the sandbox listens
//!
//! The record is written before anything is made that it would have to name (cgroup, process), so that whatever a
//! command dies of, `delete --force` finds it all.

mod lock;
mod record;
mod store;

pub use record::{Phase, Pod, Record, Status};
pub use store::{Container, Store, check_id};
