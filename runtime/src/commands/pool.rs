//! `pool`: blank sandboxes, ready for `fork`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use hostsys::seqpacket::Listener;
use hostsys::signals::SignalReader;
use nix::sys::signal::Signal;
use oci_spec::runtime::Spec;
use pool::{Limits, Maker, POOL_SOCKET};

use super::Context;
use crate::cli::PlatformChoice;
use crate::cli::snapshots::{PoolArgs, PoolCommand};
use crate::failure::{Failure, Result, Status};
use crate::oci::annotations;
use crate::platforms;
use crate::sandbox::config::{Life, PlatformKind, Role, SandboxConfig};
use crate::sandbox::describe::{ContainerConfig, ProcessConfig, RootConfig, UserConfig};
use crate::sandbox::launch::{self, Around, Blank};
use crate::sandbox::prepare::{self, Prepared};
use crate::sandbox::streams::Streams;

/// Where the pool's socket is. No container can have this name.
const FOLDER: &str = "@pool";

/// `nanovisor pool`.
///
/// # Errors
/// What the command says.
pub fn run(cx: &Context, command: &PoolCommand) -> Result<()> {
    match command {
        PoolCommand::Serve(args) => serve(cx, args),
        PoolCommand::Stats => {
            let directory = File::open(cx.store.path(FOLDER));
            let stats = directory.and_then(|directory| pool::stats(directory.as_fd()));
            let stats = stats.map_err(|e| Failure::runtime(format!("no pool serves here: {e}")))?;
            let text = serde_json::to_string(&stats).map_err(|e| Failure::runtime(e.to_string()))?;
            crate::output::print(&format!("{text}\n"))
        }
    }
}

/// A blank for a container of `spec`, where a pool has one.
pub fn take(cx: &Context, spec: &Spec) -> Option<Blank> {
    let directory = File::open(cx.store.path(FOLDER)).ok()?;
    let wishes = annotations::read(spec).ok()?;
    let platform = platforms::choose(wishes.platform).ok()?;
    let own_network = crate::oci::namespaces::read(spec).ok()?.network.is_none();
    if !own_network {
        // A blank has a network namespace already.
        return None;
    }
    match pool::take(directory.as_fd(), &kind(platform.kind)) {
        Ok(taken) => taken.map(|taken| Blank { pid: taken.pid, control: taken.control }),
        Err(e) => {
            log::debug!("no pool: {e}");
            None
        }
    }
}

/// Blanks of another version would not understand us.
fn kind(platform: PlatformKind) -> String {
    format!("{} {}", env!("CARGO_PKG_VERSION"), platform.name())
}

fn serve(cx: &Context, args: &PoolArgs) -> Result<()> {
    let platform = platforms::choose(args.platform)?;
    let dir = cx.store.subfolder(FOLDER)?;
    let directory = File::open(&dir).map_err(|e| Failure::io(Status::Runtime, &dir.display().to_string(), &e))?;
    // One pool a `--root`; what a killed one has left is no pool.
    let lock = nix::fcntl::Flock::lock(directory, nix::fcntl::FlockArg::LockExclusiveNonblock);
    let directory = lock.map_err(|_| Failure::runtime(format!("a pool serves {} already", dir.display())))?;
    let _ = std::fs::remove_file(dir.join(POOL_SOCKET));
    let listener = Listener::bind(directory.as_fd(), POOL_SOCKET).map_err(|e| Failure::host("making the socket", e))?;
    let signals = || {
        let reader = SignalReader::new(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        reader.map_err(|e| Failure::host("preparing signals", e))
    };
    // The first one knows the mask that blanks are to have; the second one is read.
    let (outer, own) = (signals()?, signals()?);
    let mut maker = Blanks { cx, kind: kind(platform.kind), choice: args.platform, signals: &outer };
    let served = pool::serve(&mut maker, Limits { blanks: usize::from(args.blanks) }, &listener, own);
    let _ = std::fs::remove_dir_all(&dir);
    served.map_err(|e| Failure::io(Status::Runtime, "serving the pool", &e))
}

/// Makes blanks of one platform.
struct Blanks<'a> {
    cx: &'a Context,
    kind: String,
    choice: PlatformChoice,
    /// Blocked here, and not to be in the sandbox.
    signals: &'a SignalReader,
}

impl Maker for Blanks<'_> {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn make(&mut self) -> std::result::Result<pool::Blank, String> {
        self.launch().map_err(|failure| failure.to_string())
    }
}

impl Blanks<'_> {
    fn launch(&self) -> Result<pool::Blank> {
        let platform = platforms::choose(self.choice)?;
        let fds: Vec<(Role, OwnedFd)> = platform.kvm.map(|fd| (Role::Kvm, fd)).into_iter().collect();
        let config = SandboxConfig {
            fds: Vec::new(),
            platform: platform.kind,
            memory: prepare::memory(None)?,
            cpus: prepare::cpus(None),
            container: ContainerConfig::new("blank", RootConfig::Images(0), nobody()),
            life: Life::Detached,
            blank: true,
            instance: None,
            stop_after: false,
            strace: false,
            chaos: None,
            debug: self.cx.log_args.debug,
            log_format: self.cx.log_args.log_format,
            inside_user: None,
            trial: crate::walls::Trial::default(),
        };
        let streams = Streams { fds: Vec::new(), console: None, gate: None };
        let prepared = Prepared { config, fds, streams, volumes: Vec::new() };
        let mut started = |_| Ok(());
        let log = hostsys::fds::dup_above(self.cx.log.as_fd(), 3).map_err(|e| Failure::host("opening the log", e))?;
        let around = Around { log: &log, signals: Some(self.signals), network: None, started: &mut started };
        let sandbox = launch::launch(prepared, around)?;
        Ok(pool::Blank { child: sandbox.child, control: sandbox.control })
    }
}

/// The process of a blank, which never runs.
fn nobody() -> ProcessConfig {
    ProcessConfig {
        args: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        make_cwd: false,
        user: UserConfig::Ids(0, 0, Vec::new()),
        umask: None,
        capabilities: None,
        rlimits: Vec::new(),
        no_new_privs: false,
        oom_score_adj: None,
        seccomp: None,
        console: None,
        preserved: 0,
    }
}
