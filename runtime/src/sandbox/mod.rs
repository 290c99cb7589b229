//! `nanovisor do`: prepares a sandbox, starts it, lives beside it, and takes over its program's exit status.

pub mod config;
pub mod describe;
mod files;
mod input_gate;
pub mod launch;
pub mod log;
pub mod prepare;
pub mod streams;
pub mod watch;

use std::os::fd::OwnedFd;

use crate::cli::{DoArgs, LogArgs};
use crate::failure::Result;
use crate::gofer;

/// Runs the program of `args` in a fresh sandbox; answers its exit status (128+n where signal n ended it).
///
/// # Errors
/// Everything that kept it from running or from ending by itself.
pub fn run(args: &DoArgs, log_args: &LogArgs, log: OwnedFd) -> Result<u8> {
    // Signals first: one that comes while the sandbox starts must not leave it behind.
    let signals = watch::block_signals()?;
    let mut prepared = prepare::prepare(args, log_args)?;
    let gofer = gofer::launch(&prepared.volumes, &log, gofer::Life::Attached, false)?;
    let gofer = gofer.map(|(gofer, socket)| {
        prepared.fds.push((config::Role::Gofer, socket));
        gofer
    });
    let terminal = prepared.streams.raw_mode()?;
    let gate = prepared.streams.gate.take();
    let around = launch::Around { log: &log, signals: Some(&signals), network: None, started: &mut |_| Ok(()) };
    let sandbox = launch::launch(prepared, around)?;
    let status = watch::watch(sandbox, signals, terminal, gate);
    // After the sandbox, which it serves to its last write.
    drop(gofer);
    status
}
