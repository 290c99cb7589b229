//! The command line.

pub mod oci;
mod parse;
pub mod sandbox;
pub mod snapshots;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use parse::memory;
pub use sandbox::{DoArgs, PlatformChoice};

use crate::logging::Format;

const ABOUT: &str = "Runs Linux programs in a sandbox whose every system call is served by a kernel in user space";
const EXAMPLES: &str = "\
Examples:
  nanovisor image build rootfs/ debian.img      make a read-only image of a directory (or a tar)
  nanovisor do --image debian.img -- ls -l /    run a program in it
  nanovisor do --root rootfs/ -- bash           image the directory into a cache, then run a shell
  nanovisor platforms                           what works on this host

Exit status: the program's own, 128+n if signal n ended it, and 110-127 where it could not be run
(docs/exit-status.md lists them).";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "nanovisor", version, about = ABOUT, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub oci: oci::OciArgs,
}

/// Where the log goes.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Append the log to FILE instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Log lines as text or as JSON objects with level, msg and time
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: Format,
    /// Log more: what was picked, and how long each step of the start took
    #[arg(long, global = true)]
    pub debug: bool,
}

/// `nanovisor install`.
#[derive(Args, Clone, Debug)]
pub struct InstallArgs {
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    pub containerd_config: PathBuf,
    /// Docker's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/docker/daemon.json")]
    pub docker_config: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one program in a fresh sandbox
    Do(Box<DoArgs>),
    /// Build and look into root file system images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Register this runtime with containerd and Docker, and print what Kubernetes needs
    Install(InstallArgs),
    /// Show which platforms work on this host, and why the others do not
    Platforms {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the system calls that the sandbox serves
    Syscalls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a container of a bundle; `start` runs its program
    Create(oci::BundleArgs),
    /// Run the program of a created container
    Start(oci::IdArgs),
    /// Create and start a container
    Run(Box<oci::RunArgs>),
    /// Run one more program in a container
    Exec(Box<oci::ExecArgs>),
    /// Send a signal to a container
    Kill(oci::KillArgs),
    /// Remove what a container has left
    Delete(oci::DeleteArgs),
    /// Show the state of a container as JSON
    State(oci::IdArgs),
    /// List containers
    List(oci::ListArgs),
    /// Show the processes in a container
    Ps(oci::PsArgs),
    /// Stop all that runs in a container
    Pause(oci::IdArgs),
    /// Let a paused container go on
    Resume(oci::IdArgs),
    /// Save a container as a snapshot on disk
    Checkpoint(Box<snapshots::CheckpointArgs>),
    /// Make a container of a snapshot on disk
    Restore(Box<snapshots::RestoreArgs>),
    /// Snapshots in memory, of which instances are forked
    #[command(subcommand)]
    Template(snapshots::TemplateCommand),
    /// Make a container of a template
    Fork(Box<snapshots::ForkArgs>),
    /// Keep blank sandboxes ready for forks
    #[command(subcommand)]
    Pool(snapshots::PoolCommand),
    /// Show statistics and events of a container
    Events(oci::EventsArgs),
    /// Change the limits of a container
    Update(Box<oci::UpdateArgs>),
    /// Write a config.json to begin with
    Spec(oci::SpecArgs),
    /// Show what this runtime supports, as JSON
    Features,
}

/// `nanovisor image ...`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Images are standard uncompressed EROFS: the kernel mounts them, fsck.erofs checks them.")]
pub enum ImageCommand {
    /// Make an image of a directory or a tar archive (`-` reads a tar from standard input)
    Build {
        /// A directory, a tar file, or `-`
        src: PathBuf,
        /// The image file to make; replaced only when complete
        out: PathBuf,
    },
    /// Show what an image is: sizes, features, identity
    Info {
        /// The image file
        image: PathBuf,
    },
    /// List a directory of an image
    Ls {
        /// The image file
        image: PathBuf,
        /// The path inside it
        #[arg(default_value = "/")]
        path: PathBuf,
        /// Go down into directories
        #[arg(short = 'R', long)]
        recursive: bool,
    },
    /// Write a file of an image to standard output
    Cat {
        /// The image file
        image: PathBuf,
        /// The path inside it
        path: PathBuf,
    },
    /// Check an image through and through
    Verify {
        /// The image file
        image: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let cli = Cli::try_parse_from(["nanovisor", "platforms", "--log-format", "json", "--debug"]).unwrap();
        assert!(cli.log.debug);
        assert_eq!(cli.log.log_format, Format::Json);
    }
}
