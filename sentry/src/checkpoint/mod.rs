//! Saved state: a running kernel as plain data, and back. `README.md` here teaches it.

pub mod error;
pub mod features;
mod id;
mod instance;
pub mod op;
pub mod ops;
pub mod pages;
mod resources;
mod restore;
mod restorer;
mod save;
mod saver;
pub mod service;
pub mod state;
pub mod table;

pub use error::{Failure, Refused, Unusable};
pub use id::{Bytes, Id};
pub(crate) use restore::start;
pub use restore::{Instance, Source, restore};
pub use restorer::Restorer;
pub use save::Destination;
pub use saver::Saver;
pub use service::{Identity, Origin, Service};
pub use snapshot::MAX_STATE_LEN;
pub use table::{In, Object, Out, obtain};
