//! Everything that needs the host's paths, before the sandbox process exists.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::config::{ConsoleSize, InstanceConfig, Life, Role, SandboxConfig};
use super::describe::{ContainerConfig, MountConfig, MountKind, ProcessConfig, RootConfig, UserConfig};
use super::{files, streams::Streams};
use crate::cli::{DoArgs, LogArgs};
use crate::failure::{Failure, Result, Status};
use crate::gofer::Volume;
use crate::{checkpoint, image, platforms};

/// A sandbox about to be started.
pub struct Prepared {
    /// What it is told; the descriptors' roles are filled in at the launch.
    pub config: SandboxConfig,
    /// Descriptors besides the streams.
    pub fds: Vec<(Role, OwnedFd)>,
    /// The program's streams.
    pub streams: Streams,
    /// What the gofer is to serve, by its numbers.
    pub volumes: Vec<Volume>,
}

/// Opens the image and the platform, and writes the configuration.
///
/// # Errors
/// A missing or unreadable image; a platform that does not work here.
pub fn prepare(args: &DoArgs, log: &LogArgs) -> Result<Prepared> {
    let volumes: Vec<Volume> = args.volume.iter().map(|v| Volume::parse(v)).collect::<Result<_>>()?;
    let (_, image) = open_image(args)?;
    let mut fds = vec![(Role::Image, OwnedFd::from(image))];
    let platform = platforms::choose(args.platform)?;
    fds.extend(platform.kvm.map(|fd| (Role::Kvm, fd)));
    fds.extend(checkpoint::files(args)?);
    let streams = Streams::prepare(args)?;
    let memory = memory(args.memory)?;
    let config = SandboxConfig {
        fds: Vec::new(),
        platform: platform.kind,
        memory,
        cpus: cpus(args.cpus),
        container: container(args, streams.console, &volumes),
        life: Life::Attached,
        blank: false,
        instance: args.restore.as_ref().map(|_| InstanceConfig::default()),
        stop_after: args.stop_after,
        strace: args.strace,
        chaos: args.chaos,
        debug: log.debug,
        log_format: log.log_format,
        inside_user: None,
        trial: args.trial(),
    };
    Ok(Prepared { config, fds, streams, volumes })
}

/// Bytes of guest memory: as asked, or half of the host's.
///
/// # Errors
/// None in practice.
pub fn memory(asked: Option<u64>) -> Result<u64> {
    let half = || hostsys::process::total_memory().map(|all| all / 2);
    asked.map_or_else(|| half().map_err(|e| Failure::host("sizing the sandbox", e)), Ok)
}

/// Guest CPUs: as asked, or the host's.
#[must_use]
pub fn cpus(asked: Option<u16>) -> u16 {
    asked.unwrap_or_else(|| u16::try_from(hostsys::process::available_cpus()).unwrap_or(256).min(256))
}

/// The one container of `do`.
fn container(args: &DoArgs, console: Option<ConsoleSize>, volumes: &[Volume]) -> ContainerConfig {
    let process = ProcessConfig {
        args: args.command.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: environment(args, console.is_some()),
        cwd: args.cwd.clone(),
        make_cwd: false,
        user: UserConfig::Named(args.user.clone()),
        umask: None,
        capabilities: None,
        rlimits: Vec::new(),
        no_new_privs: false,
        oom_score_adj: None,
        seccomp: None,
        console,
        preserved: 0,
    };
    let mut container = ContainerConfig::new("do", RootConfig::Images(1), process);
    container.hostname.clone_from(&args.hostname);
    container.files = files::generate(&args.hostname);
    container.mounts = (0..).zip(volumes).map(|(index, volume)| volume_mount(index, volume)).collect();
    container
}

/// `MS_NOSUID | MS_NODEV | MS_RELATIME`.
const VOLUME_FLAGS: u32 = 2 | 4 | 1 << 21;

fn volume_mount(index: u32, volume: &Volume) -> MountConfig {
    MountConfig {
        destination: volume.target.clone(),
        kind: MountKind::Gofer { index, exclusive: volume.exclusive },
        flags: VOLUME_FLAGS,
        data: String::new(),
        source: "gofer".into(),
        copy_up: false,
    }
}

/// The image that `--image` names, or the one that the cache holds for `--root`.
fn open_image(args: &DoArgs) -> Result<(PathBuf, File)> {
    match (&args.image, &args.root) {
        (Some(path), _) => Ok((path.clone(), image::open(path)?)),
        (None, Some(root)) => image::cache::image_of(root),
        (None, None) => Err(Failure::new(
            Status::Usage,
            "no root file system: give --image FILE (`nanovisor image build DIR FILE` makes one) or --root DIR",
        )),
    }
}

/// A program's first environment: what login gives, then `--env`, the later value winning. HOME comes from the image's
/// /etc/passwd, which only the sentry reads.
fn environment(args: &DoArgs, tty: bool) -> Vec<Vec<u8>> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", args.hostname),
    ];
    if tty {
        env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    for assignment in &args.env {
        let key = assignment.split_inclusive('=').next().unwrap_or(assignment);
        env.retain(|old| !old.starts_with(key));
        env.push(assignment.clone());
    }
    env.into_iter().map(String::into_bytes).collect()
}
