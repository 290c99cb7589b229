//! A terminal of the host between a sandbox and containerd's FIFOs: two threads copy while it is there.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use hostsys::tty::WindowSize;

use super::io::{Kept, Wanted, open_output};
use crate::failure::{Failure, Result};

/// Makes a terminal and connects it; answers the end for the sandbox, and what is to be kept.
///
/// # Errors
/// Out of terminals or threads; a FIFO that cannot be opened.
pub fn open(wanted: &Wanted) -> Result<(OwnedFd, Kept)> {
    let size = WindowSize { rows: 24, cols: 80 };
    let (master, slave) = hostsys::tty::raw_pair(size).map_err(|e| Failure::host("making the terminal", e))?;
    let doing = |e: io::Error| Failure::runtime(format!("making the terminal: {e}"));
    let mut from = File::from(master);
    let mut to = from.try_clone().map_err(doing)?;
    let (mut output, mut kept) = open_output(&wanted.stdout)?;
    // It ends with the last who has the slave.
    spawn("terminal-out", move || drop(io::copy(&mut from, &mut output)))?;
    let input = wanted.stdin.clone();
    if !input.is_empty() {
        kept.awaits(&input);
        // It ends with the writer; who opens it late is waited for here.
        spawn("terminal-in", move || match File::open(&input) {
            Ok(mut input) => drop(io::copy(&mut input, &mut to)),
            Err(e) => log::warn!("opening the stream {input}: {e}"),
        })?;
    }
    Ok((slave, kept))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|e| Failure::runtime(format!("connecting the terminal: {e}")))
}
