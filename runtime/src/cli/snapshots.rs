//! The commands of snapshots. `checkpoint` and `restore` have runc's flags: those about CRIU's work on the host's kernel have
//! nothing to do here and are accepted, with a warning where somebody may count on what they promise.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::PlatformChoice;
use super::oci::ListFormat;

/// How the pages file is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// As it is: sandboxes map it
    #[default]
    None,
    /// Refused: what is compressed cannot be mapped
    Zstd,
}

/// Flags of CRIU.
#[derive(Args, Clone, Debug, Default)]
pub struct CriuArgs {
    /// Accepted for runc's sake: nothing is written but the snapshot
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Refused by name where there is such a connection
    #[arg(long)]
    pub tcp_established: bool,
    /// Unix sockets of the host are none of the sandbox's
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// A sandbox has no jobs of a host shell
    #[arg(long)]
    pub shell_job: bool,
    /// File locks are always saved
    #[arg(long)]
    pub file_locks: bool,
    /// A container's cgroup is made of its bundle
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Namespaces are the sandbox's own
    #[arg(long, value_name = "NS")]
    pub empty_ns: Vec<String>,
    /// Accepted for runc's sake
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `nanovisor checkpoint`.
#[derive(Args, Clone, Debug)]
pub struct CheckpointArgs {
    /// The folder that the snapshot is written into
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Let the container go on; without it the container is removed
    #[arg(long)]
    pub leave_running: bool,
    /// Wait until a program of the container says that it is ready, by a write to /proc/nanovisor/checkpoint
    #[arg(long)]
    pub at_ready: bool,
    /// How long to wait for it
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::parse::duration)]
    pub timeout: std::time::Duration,
    /// none or zstd
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// Refused: a snapshot is whole
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Refused: a snapshot is whole
    #[arg(long)]
    pub pre_dump: bool,
    /// Refused: pages are mapped from the snapshot's file
    #[arg(long)]
    pub lazy_pages: bool,
    /// Refused with --lazy-pages
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<i32>,
    /// Refused with --lazy-pages
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    #[command(flatten)]
    pub criu: CriuArgs,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// The folder of the snapshot
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// The directory of config.json, whose root must be the snapshot's
    #[arg(long, short = 'b', value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,
    /// Refused: a restored container has plain streams
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of the container to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Leave when the container runs
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Read the whole snapshot before the container runs
    #[arg(long, conflicts_with = "lazy")]
    pub eager: bool,
    /// Read pages when they are touched (the default)
    #[arg(long)]
    pub lazy: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Accepted for runc's sake: processes of the guest are none of the host
    #[arg(long)]
    pub no_subreaper: bool,
    /// Accepted for runc's sake: the sandbox's root is no mount of the host
    #[arg(long)]
    pub no_pivot: bool,
    /// The same as --lazy
    #[arg(long)]
    pub lazy_pages: bool,
    /// SELinux labels of the host mean nothing to a guest
    #[arg(long, value_name = "PROFILE")]
    pub lsm_profile: Option<String>,
    /// SELinux labels of the host mean nothing to a guest
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    #[command(flatten)]
    pub criu: CriuArgs,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor template ...`.
#[derive(Clone, Debug, Subcommand)]
pub enum TemplateCommand {
    /// Make a template of a container that runs, or of a snapshot on disk
    Create(TemplateArgs),
    /// List templates
    List {
        /// table or json
        #[arg(long, short = 'f', value_enum, default_value = "table")]
        format: ListFormat,
    },
    /// Show a template as JSON
    Inspect {
        /// Its name
        name: String,
    },
    /// Remove a template; its instances go on
    Delete {
        /// Its name
        name: String,
    },
}

/// `nanovisor template create`.
#[derive(Args, Clone, Debug)]
pub struct TemplateArgs {
    /// The container that is saved; it goes on
    #[arg(long, value_name = "CONTAINER-ID", required_unless_present = "image_path", conflicts_with = "image_path")]
    pub from: Option<String>,
    /// The folder of a snapshot
    #[arg(long, value_name = "DIR", requires = "bundle")]
    pub image_path: Option<PathBuf>,
    /// The directory of config.json that instances are made of [default: the container's]
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Wait until a program of the container says that it is ready, by a write to /proc/nanovisor/checkpoint
    #[arg(long, requires = "from")]
    pub at_ready: bool,
    /// How long to wait for it
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::parse::duration)]
    pub timeout: std::time::Duration,
    /// The name of the template
    pub name: String,
}

/// `nanovisor fork`.
#[derive(Args, Clone, Debug)]
pub struct ForkArgs {
    /// The template
    #[arg(long, short = 't', value_name = "NAME")]
    pub template: String,
    /// The directory of config.json [default: what the template was made of, without its cgroupsPath]
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Make so many: CONTAINER-ID-1, CONTAINER-ID-2 ...
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: Option<u32>,
    /// Leave when the container runs
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Write the process id of the container to this file
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
    pub pid_file: Option<PathBuf>,
    /// The host name inside [default: the template's]
    #[arg(long, value_name = "NAME", value_parser = super::parse::hostname)]
    pub hostname: Option<String>,
    /// A new /etc/machine-id
    #[arg(long)]
    pub machine_id: bool,
    /// A JSON object for /run/nanovisor/instance.json
    #[arg(long, value_name = "JSON", value_parser = super::parse::json_object)]
    pub metadata: Option<String>,
    /// Start a sandbox process even where a pool has one
    #[arg(long)]
    pub no_pool: bool,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor pool ...`.
#[derive(Clone, Debug, Subcommand)]
pub enum PoolCommand {
    /// Keep blank sandboxes ready, until SIGTERM or SIGINT
    Serve(PoolArgs),
    /// Show the figures of the pool as JSON
    Stats,
}

/// `nanovisor pool serve`.
#[derive(Args, Clone, Debug)]
pub struct PoolArgs {
    /// How many blanks are kept
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub blanks: u16,
    /// What runs the guests' code
    #[arg(long, value_enum, default_value = "auto")]
    pub platform: PlatformChoice,
}
