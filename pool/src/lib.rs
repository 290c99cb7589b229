//! What lets an instance begin before anybody asks for it: templates (snapshots in sealed memory, held by a small process
//! each) and a pool of blank sandboxes. `README.md` teaches both.
#![deny(unsafe_code)]

mod client;
mod holder;
mod proto;
mod sealed;
mod server;

pub use client::{Taken, stats, take};
pub use holder::{TEMPLATE_SOCKET, fetch, hold};
pub use proto::{POOL_SOCKET, Stats};
pub use sealed::{Sealed, Writable};
pub use server::{Blank, Limits, Maker, serve};
