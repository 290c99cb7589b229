//! The `nanovisor` command: prepares a sandbox, starts its process, and waits; or, executed again as `boot`, is it.
#![deny(unsafe_code)]

mod boot;
mod cgroup;
mod checkpoint;
mod cli;
mod commands;
mod control;
mod failure;
mod gofer;
mod hooks;
mod image;
mod install;
mod kill_points;
mod logging;
mod oci;
mod output;
mod platforms;
mod sandbox;
mod shim;
mod state;
mod syscalls;
mod walls;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Result;

/// The heap of the sandbox process is charged to its guest, beyond what there is at the start.
#[global_allocator]
static ALLOCATOR: memory::heap::CountingAllocator = memory::heap::CountingAllocator;

fn main() -> ExitCode {
    // Before anything else is set up: this is the sandbox process's program too, and its start is on the request path.
    if std::env::args_os().next().is_some_and(|name| name == boot::ARGV0) {
        return boot::main();
    }
    if std::env::args_os().next().is_some_and(|name| name == gofer::ARGV0) {
        return gofer::main();
    }
    if std::env::args_os().next().is_some_and(|name| shim::is_called(&name)) {
        return shim::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::Status::Usage as u8));
        }
    };
    let status_of_failure = commands::failure_status(&cli.command);
    match run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            log::error!("{failure}");
            let _ = writeln!(std::io::stderr(), "nanovisor: {failure}");
            ExitCode::from(status_of_failure.unwrap_or(failure.status as u8))
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    let log = sandbox::log::open(&cli.log)?;
    match cli.command {
        Command::Do(args) => sandbox::run(&args, &cli.log, log),
        Command::Image(command) => image::run(&command).map(|()| 0),
        Command::Install(args) => install::run(&args).map(|()| 0),
        Command::Platforms { json } => platforms::run(json).map(|()| 0),
        Command::Syscalls { json } => syscalls::run(json).map(|()| 0),
        command => commands::run(command, cli.oci, cli.log, log),
    }
}
