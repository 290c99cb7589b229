//! The gofer process: what this program is when it is executed again to serve host directories (`gofer/README.md`).
//!
//! It arrives with a socket, its own `/proc/self/fd` and what it serves, in an empty root, with capabilities for file
//! access alone; it puts its filter up before it reads the first request.

mod launch;
mod rules;
mod volume;

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::process::ExitCode;

use gofer::{End, Options, Served};
use hostsys::opath::Magic;
use hostsys::{SeqPacket, fds};

use crate::failure::{Failure, Result, Status};

pub use crate::sandbox::config::Life;
pub use launch::{Gofer, launch};
pub use volume::Volume;

/// The name under which the program is executed as the gofer; `ps` shows it.
pub const ARGV0: &str = "nanovisor-gofer";
/// [`ARGV0`] for exec.
const ARGV0_C: &CStr = c"nanovisor-gofer";
const LOG_FD: RawFd = 2;
const SOCKET_FD: RawFd = 3;
const MAGIC_FD: RawFd = 4;
const FIRST_ROOT: RawFd = 5;
/// Descriptors that are not held files.
const SPARE_FDS: u64 = 128;

/// Runs the gofer until its sandbox is gone.
pub fn main() -> ExitCode {
    match run() {
        Ok(End::Closed) => ExitCode::SUCCESS,
        Ok(End::BadClient) => {
            eprintln!("{ARGV0}: the sandbox process sent what is no request: it is broken or taken over");
            ExitCode::from(Status::SandboxDied as u8)
        }
        Err(failure) => {
            eprintln!("{ARGV0}: {failure}");
            ExitCode::from(failure.status as u8)
        }
    }
}

fn run() -> Result<End> {
    let doing = |e| Failure::host("starting the gofer", e);
    let mut args = std::env::args().skip(1).peekable();
    let uds = args.next_if(|a| a == "uds").is_some();
    let socket = SeqPacket::from_fd(
        fds::inherited(SOCKET_FD)
            .map_err(|_| Failure::new(Status::Usage, format!("{ARGV0} is started by nanovisor alone")))?,
    );
    let magic = Magic::in_dir(fds::inherited(MAGIC_FD).map_err(doing)?).map_err(doing)?;
    let mut served = Vec::new();
    for (mode, number) in args.zip(FIRST_ROOT..) {
        served.push(Served { root: fds::inherited(number).map_err(doing)?, readonly: mode != "rw" });
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |l| l.0);
    let options = Options {
        uds_connect: uds,
        uds_bind: uds,
        squash_owner: !hostsys::caps::has_effective(0),
        max_nodes: usize::try_from(limit.saturating_sub(SPARE_FDS)).unwrap_or(usize::MAX),
    };
    rules::install(uds)?;
    gofer::serve(&socket, served, options, magic).map_err(|e| Failure::host("serving files", e))
}
