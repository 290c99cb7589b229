//! The harness of the differential and integration tests: what runs a program natively and in a sandbox, compares, and
//! counts. The cases themselves are in `suite/`, the programs in `guest/` and `programs/`.

pub mod checkpoint;
pub mod compare;
pub mod compile;
pub mod env;
pub mod expect;
pub mod guest;
pub mod native;
pub mod output;
pub mod program;
pub mod pty;
pub mod random;
pub mod rootfs;
pub mod runner;
pub mod sandbox;
pub mod supervise;
pub mod terminal;
pub mod volume;
