//! The commands of an OCI runtime: one file a command, each is parse, lock, ask the sandbox, write the state.

mod checkpoint;
mod console;
mod container;
mod create;
pub mod delete;
pub mod events;
pub mod exec;
mod features;
mod fork;
pub mod hold;
mod join;
pub mod kill;
mod list;
pub mod pause;
mod pod;
mod pool;
mod ps;
mod restore;
pub mod start;
mod state;
mod template;
pub mod update;

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cli::oci::OciArgs;
use crate::cli::{Command, LogArgs};
use crate::failure::{Failure, Result};
use crate::state::Store;

/// What every command has.
pub struct Context {
    /// Containers.
    pub store: Store,
    /// Flags before the command.
    pub oci: OciArgs,
    /// Flags of the log.
    pub log_args: LogArgs,
    /// The log.
    pub log: OwnedFd,
}

/// Exit status of a command that failed, as runc has it.
#[must_use]
pub fn failure_status(command: &Command) -> Option<u8> {
    match command {
        Command::Exec(_) => Some(255),
        Command::Do(_)
        | Command::Image(_)
        | Command::Install(_)
        | Command::Platforms { .. }
        | Command::Syscalls { .. } => None,
        Command::Restore(_) | Command::Fork(_) | Command::Template(_) | Command::Pool(_) => None,
        _ => Some(1),
    }
}

/// Runs a command of an OCI runtime; answers its exit status.
///
/// # Errors
/// What the command says.
pub fn run(command: Command, oci: OciArgs, log_args: LogArgs, log: OwnedFd) -> Result<u8> {
    let store = Store::open(oci.root.as_deref())?;
    let cx = Context { store, oci, log_args, log };
    let done = |()| 0;
    match command {
        Command::Create(args) => create::create(&cx, &args).map(done),
        Command::Start(args) => start::start(&cx, &args.id).map(done),
        Command::Run(args) => create::run(&cx, &args),
        Command::Exec(args) => exec::exec(&cx, &args),
        Command::Kill(args) => kill::kill(&cx, &args).map(done),
        Command::Delete(args) => delete::delete(&cx, &args).map(done),
        Command::State(args) => state::state(&cx, &args.id).map(done),
        Command::List(args) => list::list(&cx, &args).map(done),
        Command::Ps(args) => ps::ps(&cx, &args).map(done),
        Command::Pause(args) => pause::pause(&cx, &args.id).map(done),
        Command::Resume(args) => pause::resume(&cx, &args.id).map(done),
        Command::Checkpoint(args) => checkpoint::checkpoint(&cx, &args).map(done),
        Command::Restore(args) => restore::restore(&cx, &args),
        Command::Template(command) => template::run(&cx, &command),
        Command::Fork(args) => fork::fork(&cx, &args),
        Command::Pool(command) => pool::run(&cx, &command).map(done),
        Command::Events(args) => events::events(&cx, &args).map(done),
        Command::Update(args) => update::update(&cx, &args).map(done),
        Command::Spec(args) => {
            let dir = args.bundle.as_deref().unwrap_or(Path::new("."));
            crate::oci::spec::write_default(dir, args.rootless).map(done)
        }
        Command::Features => features::features().map(done),
        Command::Do(_)
        | Command::Image(_)
        | Command::Install(_)
        | Command::Platforms { .. }
        | Command::Syscalls { .. } => Err(Failure::runtime("not a command of an OCI runtime")),
    }
}

/// Writes a pid file, which is whole or not there.
///
/// # Errors
/// It cannot be written.
pub fn write_pid(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let failed = |e: std::io::Error| Failure::runtime(format!("--pid-file {}: {e}", path.display()));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

/// Descriptors that are handed on besides the streams: `--preserve-fds N`, and those of socket activation.
///
/// # Errors
/// One that is not open; more than a message carries.
pub fn preserved(count: u32) -> Result<Vec<OwnedFd>> {
    const MOST: u32 = 16;
    let activated: u32 = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let all = count.saturating_add(activated);
    if all > MOST {
        return Err(Failure::runtime(format!("--preserve-fds: {all} descriptors, at most {MOST} are handed on")));
    }
    (0..all)
        .map(|n| {
            let number = 3 + i32::try_from(n).unwrap_or(0);
            hostsys::fds::copy_of(number)
                .map_err(|_| Failure::runtime(format!("--preserve-fds: descriptor {number} is not open")))
        })
        .collect()
}
