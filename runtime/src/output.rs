//! Standard output of the commands that print a report.

use std::io::{ErrorKind, Write};

use crate::failure::{Failure, Result};

/// Prints `text`. A reader that has seen enough is no failure.
///
/// # Errors
/// It cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::runtime(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}
