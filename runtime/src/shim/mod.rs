//! `containerd-shim-nanovisor-v1`: this program under another name, which containerd starts once a container or pod and
//! speaks ttrpc with. It is what stands between containerd and sandboxes: their parent, and the holder of what is executed in them.
//!
//! containerd's own crate for shims serves version 3 of the task service alone, which containerd 1.x does not speak, and brings an
//! asynchronous D-Bus with it; what is used here is its crate of messages.

mod container;
mod create;
mod events;
mod flags;
mod io;
mod metrics;
mod mounts;
mod options;
mod process;
mod serve;
mod service;
mod start;
mod terminal;
mod watcher;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::failure::Result;
use flags::{Action, Flags};

/// The name under which this program is a shim.
pub const NAME: &str = "containerd-shim-nanovisor-v1";
/// What containerd calls the runtime.
pub const RUNTIME: &str = "io.containerd.nanovisor.v1";

/// Whether the program was called by the shim's name.
#[must_use]
pub fn is_called(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name() == Some(OsStr::new(NAME))
}

/// The shim's commands, as containerd gives them.
pub fn main() -> ExitCode {
    match flags::parse(std::env::args().skip(1)).and_then(|flags| run(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{NAME}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    match flags.action {
        Action::Version => crate::output::print(&format!("{NAME}:\n  Version: {}\n", env!("CARGO_PKG_VERSION"))),
        Action::Info => start::info(),
        Action::Start => start::start(flags),
        Action::Delete => start::delete(flags),
        Action::Serve => serve::serve(flags),
    }
}
