//! `nanovisor do`: prepares a sandbox, starts it, lives beside it, and takes over its program's exit status.

pub mod config;
mod files;
mod launch;
pub mod log;
mod prepare;
mod streams;
mod watch;

use std::os::fd::OwnedFd;

use crate::cli::{DoArgs, LogArgs};
use crate::failure::{Failure, Result, Status};

/// Runs the program of `args` in a fresh sandbox; answers its exit status (128+n where signal n ended it).
///
/// # Errors
/// Everything that kept it from running or from ending by itself.
pub fn run(args: &DoArgs, log_args: &LogArgs, log: OwnedFd) -> Result<u8> {
    if let Some(volume) = args.volume.first() {
        let text = format!(
            "--volume {volume}: host directories are not served yet; put the files into the image (--root DIR)"
        );
        return Err(Failure::new(Status::NotYet, text));
    }
    // Signals first: one that comes while the sandbox starts must not leave it behind.
    let signals = watch::block_signals()?;
    let prepared = prepare::prepare(args, log_args)?;
    let terminal = prepared.streams.raw_mode()?;
    let sandbox = launch::launch(prepared, &log, &signals)?;
    watch::watch(sandbox, signals, terminal)
}
