//! Serves host directories to one sandbox, which cannot name them.
//!
//! See `README.md`. [`serve`] answers the requests of [`gofer_proto`] over one socket until its other end closes.
#![deny(unsafe_code)]

mod change;
mod error;
mod intake;
mod look;
mod make;
mod nodes;
mod server;
mod socket;

pub use server::{End, Options, Served, serve};
