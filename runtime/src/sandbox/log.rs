//! Where the log of the command and of its sandbox goes.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};

use crate::cli::LogArgs;
use crate::failure::{Failure, Result};
use crate::logging;

/// Opens the log, starts this process's own, and answers the descriptor for the sandbox.
///
/// Without a file, the log is standard error, and our own failures are then told there once, as plain lines.
///
/// # Errors
/// The file cannot be opened.
pub fn open(args: &LogArgs) -> Result<OwnedFd> {
    let doing = |e| Failure::host("opening the log", e);
    let Some(path) = &args.log else {
        let out = hostsys::fds::standard_stream(2).map_err(doing)?;
        if args.debug {
            start(&out, args)?;
        }
        return Ok(out);
    };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| {
        Failure::runtime(format!("--log {}: {e}; name a file in a directory that exists", path.display()))
    })?;
    let out = OwnedFd::from(file);
    start(&out, args)?;
    Ok(out)
}

fn start(out: &OwnedFd, args: &LogArgs) -> Result<()> {
    let own = hostsys::fds::dup_above(out.as_fd(), 3).map_err(|e| Failure::host("opening the log", e))?;
    logging::init(own, args.log_format, logging::level(args.debug));
    Ok(())
}
