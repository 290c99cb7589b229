//! What the command described -> what the sentry takes.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;

use sentry::boot::spec::{
    CapabilitySets, DeviceSpec, Filter, GoferTree, MountKind as SentryMount, MountSpec, ResourceLimits, Rlimit, Root,
    Shares,
};
use sentry::boot::{ContainerSpec, ProcessSpec, Stdio, User};
use sentry::kernel::seccomp::bpf::Insn;
use sentry::vfs::mount::MountFlags;

use crate::failure::{Failure, Result};
use crate::sandbox::config::{GeneratedFile, Role};
use crate::sandbox::describe::{
    ContainerConfig, DeviceConfig, LimitsConfig, MountConfig, MountKind, ProcessConfig, RootConfig, SeccompConfig,
    UserConfig,
};

/// Descriptors by what they are, each taken once.
pub struct Fds(VecDeque<(Role, OwnedFd)>);

impl Fds {
    /// Descriptors with their roles, in the order in which they came.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = (Role, OwnedFd)>) -> Self {
        Fds(all.into_iter().collect())
    }

    /// The next descriptor of this role, if it came.
    pub fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(r, _)| *r == role)?;
        self.0.remove(at).map(|(_, fd)| fd)
    }

    /// A descriptor that must be there.
    ///
    /// # Errors
    /// It did not come.
    pub fn need(&mut self, role: Role) -> Result<OwnedFd> {
        self.take(role).ok_or_else(|| Failure::runtime(format!("the sandbox got no {role:?} descriptor")))
    }

    /// Whether one came that is not taken yet.
    #[must_use]
    pub fn get(&self, role: Role) -> Option<&OwnedFd> {
        self.0.iter().find(|(r, _)| *r == role).map(|(_, fd)| fd)
    }
}

/// The sentry's form of a container.
///
/// # Errors
/// A descriptor that it needs did not come.
pub fn container(config: ContainerConfig, fds: &mut Fds) -> Result<ContainerSpec> {
    let root = root(config.root, fds)?;
    let process = process(config.process, fds)?;
    let mut spec = ContainerSpec::new(&config.id, root, process);
    spec.readonly_root = config.readonly_root;
    spec.shielded = config.shielded;
    if !config.usual_mounts {
        spec.mounts.clear();
    }
    for mount in config.mounts {
        spec.mounts.push(self::mount(mount, fds)?);
    }
    spec.gofer = fds.take(Role::Gofer);
    spec.files = config
        .files
        .into_iter()
        .map(|f: GeneratedFile| (f.path.into_bytes(), 0o644, f.contents.into_bytes()))
        .collect();
    spec.hostname = config.hostname.into_bytes();
    spec.domainname = config.domainname.into_bytes();
    spec.sysctls = config.sysctls;
    spec.masked_paths = config.masked_paths.into_iter().map(String::into_bytes).collect();
    spec.readonly_paths = config.readonly_paths.into_iter().map(String::into_bytes).collect();
    spec.devices = config.devices.into_iter().map(device).collect();
    let [pid, ipc, uts, net] = config.shares;
    spec.shares = Shares { pid, ipc, uts, net };
    spec.limits = limits(config.limits);
    Ok(spec)
}

fn root(config: RootConfig, fds: &mut Fds) -> Result<Root> {
    match config {
        RootConfig::Images(1) => Ok(Root::Image(File::from(fds.need(Role::Image)?))),
        RootConfig::Images(n) => {
            let layers = (0..n).map(|_| fds.need(Role::Image).map(File::from)).collect::<Result<_>>()?;
            Ok(Root::Layers(layers))
        }
        RootConfig::Gofer { index } => Ok(Root::Gofer(GoferTree { index, exclusive: true })),
    }
}

fn mount(config: MountConfig, fds: &mut Fds) -> Result<MountSpec> {
    let kind = match config.kind {
        MountKind::Proc => SentryMount::Proc,
        MountKind::Sysfs => SentryMount::Sysfs,
        MountKind::Tmpfs => SentryMount::Tmpfs,
        MountKind::Dev => SentryMount::Dev,
        MountKind::Devpts => SentryMount::Devpts,
        MountKind::Mqueue => SentryMount::Mqueue,
        MountKind::Cgroup => SentryMount::Cgroup,
        MountKind::Image => SentryMount::Image(File::from(fds.need(Role::MountImage)?)),
        MountKind::Gofer { index, exclusive } => SentryMount::Gofer(GoferTree { index, exclusive }),
        MountKind::Bind { source, recursive } => SentryMount::Bind { source: source.into_bytes(), recursive },
    };
    Ok(MountSpec {
        destination: config.destination.into_bytes(),
        kind,
        flags: MountFlags::from_bits_truncate(config.flags),
        data: config.data,
        source: config.source.into_bytes(),
        copy_up: config.copy_up,
    })
}

fn device(config: DeviceConfig) -> DeviceSpec {
    let ((major, minor), (uid, gid)) = (config.number, config.owner);
    DeviceSpec { path: config.path.into_bytes(), kind: config.kind, major, minor, mode: config.mode, uid, gid }
}

/// The sentry's form of limits.
#[must_use]
pub fn limits(config: LimitsConfig) -> ResourceLimits {
    ResourceLimits { memory: config.memory, pids: config.pids, cpu_millis: config.cpu_millis }
}

/// The sentry's form of a process.
///
/// # Errors
/// A descriptor that it needs did not come.
pub fn process(config: ProcessConfig, fds: &mut Fds) -> Result<ProcessSpec> {
    let stdio = match config.console {
        Some(size) => match fds.take(Role::Console) {
            Some(fd) => Stdio::Console { fd, size: (size.rows, size.cols), stderr: fds.take(Role::Stderr) },
            // A terminal that is fed by plain streams is no terminal to the sentry.
            None => plain(fds)?,
        },
        None => plain(fds)?,
    };
    let user = match config.user {
        UserConfig::Named(name) => User::Named(name),
        UserConfig::Ids(uid, gid, additional_gids) => User::Ids { uid, gid, additional_gids },
    };
    let mut spec = ProcessSpec::new(config.args, config.env, user, stdio);
    spec.cwd = config.cwd.into_bytes();
    spec.make_cwd = config.make_cwd;
    spec.umask = config.umask;
    spec.capabilities = config.capabilities.map(|c| CapabilitySets {
        effective: c.effective,
        permitted: c.permitted,
        inheritable: c.inheritable,
        bounding: c.bounding,
        ambient: c.ambient,
    });
    let rlimit = |(resource, soft, hard)| Rlimit { resource, soft, hard };
    spec.rlimits = config.rlimits.into_iter().map(rlimit).collect();
    spec.no_new_privs = config.no_new_privs;
    spec.oom_score_adj = config.oom_score_adj;
    spec.seccomp = config.seccomp.map(filter);
    spec.preserved = (0..config.preserved).map(|_| fds.need(Role::Preserved)).collect::<Result<_>>()?;
    Ok(spec)
}

fn plain(fds: &mut Fds) -> Result<Stdio> {
    let streams = [fds.need(Role::Stdin)?, fds.need(Role::Stdout)?, fds.need(Role::Stderr)?];
    Ok(match fds.take(Role::InputGate) {
        Some(gate) => Stdio::Shared { streams, gate },
        None => Stdio::Host(streams),
    })
}

fn filter(config: SeccompConfig) -> Filter {
    let insn = |(code, jt, jf, k)| Insn { code, jt, jf, k };
    Filter { program: config.program.into_iter().map(insn).collect(), log: config.log }
}
