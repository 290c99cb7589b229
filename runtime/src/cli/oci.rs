//! The commands of an OCI runtime, with runc's flags. Flags that have no meaning here are accepted and do nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags before the command, as runc has them.
#[derive(Args, Clone, Debug)]
pub struct OciArgs {
    /// Where the state of containers is kept [default: /run/nanovisor, or $XDG_RUNTIME_DIR/nanovisor]
    #[arg(long = "root", id = "state_root", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Make cgroups through systemd; linux.cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Go on where cgroups may not be used: true, false or auto
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = ["true", "false", "auto"])]
    pub rootless: String,
    /// Accepted for runc's sake; checkpoints need no criu here
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<String>,
}

/// What `create` and `run` share.
#[derive(Args, Clone, Debug)]
pub struct BundleArgs {
    /// The directory of config.json
    #[arg(long, short = 'b', value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,
    /// A Unix socket that takes the master side of the container's terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of the container to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Accepted for runc's sake: the sandbox's root is no mount of the host
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted for runc's sake: guests have no keyring of the host
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Give the container this many descriptors besides its streams (and $LISTEN_FDS)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The terminal is standard input, though nobody stays: the shim has its other side
    #[arg(long, hide = true)]
    pub console_on_stdin: bool,
    /// An annotation (KEY=VALUE) for a bundle that has none of that name
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    pub default_annotation: Vec<String>,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Leave when the container runs
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Accepted for runc's sake: processes of the guest are none of the host
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `nanovisor exec`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExecArgs {
    /// A Unix socket that takes the master side of the process's terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// The working directory in the container
    #[arg(long, value_name = "PATH")]
    pub cwd: Option<String>,
    /// Set an environment variable; may be repeated
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Numbers of user and group
    #[arg(long, short = 'u', value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// More groups; may be repeated
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// The process as a JSON file, in the form of config.json's `process`
    #[arg(long, short = 'p', value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Leave when the process runs
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process (host labels mean nothing to a guest: a warning)
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process (host profiles mean nothing to a guest: a warning)
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability; may be repeated
    #[arg(long, short = 'c', value_name = "CAP")]
    pub cap: Vec<String>,
    /// Give the process this many descriptors besides its streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Accepted for runc's sake: a sandbox has one cgroup on the host
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `nanovisor kill`.
#[derive(Args, Clone, Debug)]
pub struct KillArgs {
    /// Signal every process of the container
    #[arg(long, short = 'a')]
    pub all: bool,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Number or name, with or without SIG
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// `nanovisor delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// Also a container that runs: it is killed
    #[arg(long, short = 'f')]
    pub force: bool,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// Only a container.
#[derive(Args, Clone, Debug)]
pub struct IdArgs {
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns for people
    #[default]
    Table,
    /// JSON
    Json,
}

/// `nanovisor list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// table or json
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Names alone
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// `nanovisor ps`.
#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    /// table or json (an array of process ids)
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Accepted for runc's sake: the columns are fixed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS-OPTION")]
    pub options: Vec<String>,
}

/// `nanovisor events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// How often statistics are printed: 5s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::parse::duration)]
    pub interval: std::time::Duration,
    /// Print statistics once
    #[arg(long)]
    pub stats: bool,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor update`.
#[derive(Args, Clone, Debug, Default)]
pub struct UpdateArgs {
    /// A JSON file of linux.resources, `-` for standard input; other flags are ignored then
    #[arg(long, short = 'r', value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// CPU time a period in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU shares
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time CPU time a period in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory limit in bytes (with K, M, G); -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = super::parse::limit)]
    pub memory: Option<i64>,
    /// Soft memory limit in bytes
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = super::parse::limit)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap in bytes; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = super::parse::limit)]
    pub memory_swap: Option<i64>,
    /// Most processes
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT: refused, the sandbox has none
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: refused, the sandbox has none
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub mem_bw_schema: Option<String>,
    /// The name of the container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

/// `nanovisor spec`.
#[derive(Args, Clone, Debug)]
pub struct SpecArgs {
    /// Where config.json is written
    #[arg(long, short = 'b', value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// For a caller without privileges
    #[arg(long = "rootless", id = "spec_rootless")]
    pub rootless: bool,
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["nanovisor"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn containerd_s_lines_are_understood() {
        let base = "--root /run/x --log /tmp/log.json --log-format json --systemd-cgroup";
        for line in [
            "create --bundle /b --pid-file /b/init.pid --console-socket /b/pty.sock --no-pivot a1",
            "exec --process /tmp/p --console-socket /tmp/s --detach --pid-file /tmp/pid a1",
            "kill --all a1 9",
            "delete --force a1",
            "ps --format json a1",
            "events --stats a1",
            "update --resources=- a1",
            "run --bundle /b --no-new-keyring --preserve-fds 2 -d a1",
            "list -q",
            "spec --rootless",
        ] {
            parse(&format!("{base} {line}")).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn a_command_keeps_its_flags_and_do_its_root() {
        let Command::Exec(exec) = parse("--root /s exec -t c1 ls -l --all").unwrap().command else { panic!("exec") };
        assert_eq!((exec.id.as_str(), exec.tty), ("c1", true));
        assert_eq!(exec.command, ["ls", "-l", "--all"]);
        let cli = parse("--root /s do --root /r -- ls").unwrap();
        assert_eq!(cli.oci.root.as_deref(), Some(std::path::Path::new("/s")));
        let Command::Do(args) = cli.command else { panic!("do") };
        assert_eq!(args.root.as_deref(), Some(std::path::Path::new("/r")));
    }
}
