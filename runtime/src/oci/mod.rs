//! config.json -> what this runtime understands. Every refusal names its field.

pub mod annotations;
pub mod mounts;
pub mod namespaces;
pub mod pod;
pub mod process;
pub mod resources;
pub mod seccomp;
pub mod spec;
mod syscall_numbers;

use crate::failure::Failure;

/// A refusal: the field, and what is wrong with it.
pub fn refused(field: &str, why: impl std::fmt::Display) -> Failure {
    Failure::runtime(format!("config.json: {field}: {why}"))
}
