//! The nanovisor command.
fn main() {}
