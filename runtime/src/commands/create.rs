//! `create` and `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hostsys::Child;
use hostsys::seqpacket::Listener;
use hostsys::signals::SignalReader;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxResources;

use super::container::{Wanted, in_runc_s_words};
use super::join::{self, Joining};
use super::pod::{self, Joined};
use super::{Context, console, delete, preserved, start, write_pid};
use crate::cgroup;
use crate::cli::oci::{BundleArgs, RunArgs};
use crate::control::wire::Message;
use crate::failure::{Failure, Result};
use crate::gofer::{Gofer, Volume};
use crate::hooks::{self, Kind};
use crate::kill_points::pass;
use crate::oci::spec::Bundle;
use crate::oci::{refused, spec};
use crate::sandbox::config::{ConsoleSize, InstanceConfig, Life, Role};
use crate::sandbox::launch::{self, Around, Blank, Sandbox};
use crate::sandbox::streams::Streams;
use crate::sandbox::watch;
use crate::state::{Container, Phase, Record, Status};

/// How long a sandbox may take until its container is there: making an image of a large root comes before.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `nanovisor create`.
///
/// # Errors
/// The bundle or the host does not let us.
pub fn create(cx: &Context, args: &BundleArgs) -> Result<()> {
    let making = Making { cx, args, life: Life::Detached, restoring: None, bundle: None };
    let (container, process) = making.make()?;
    write_pid(args.pid_file.as_deref(), process.pid()).inspect_err(|_| {
        delete::destroy(&container.record);
    })?;
    Ok(())
}

/// `nanovisor run`: the program's exit status.
///
/// # Errors
/// As `create` and `start`.
pub fn run(cx: &Context, args: &RunArgs) -> Result<u8> {
    if args.detach {
        create(cx, &args.bundle)?;
        return match start::start(cx, &args.bundle.id) {
            Ok(()) => Ok(0),
            Err(failure) => {
                let _ = delete::by_force(cx, &args.bundle.id);
                Err(failure)
            }
        };
    }
    let signals = watch::block_signals()?;
    let making = Making { cx, args: &args.bundle, life: Life::Attached, restoring: None, bundle: None };
    run_attached(making, signals, args.keep)
}

/// Makes a container and stays beside it to its end: the program's exit status.
///
/// # Errors
/// As [`Making::make`]; the sandbox broke down.
pub fn run_attached(making: Making<'_>, signals: SignalReader, keep: bool) -> Result<u8> {
    let (cx, args) = (making.cx, making.args);
    let (container, process) = making.make()?;
    let written = write_pid(args.pid_file.as_deref(), process.pid());
    hooks::run_all_the_same(Kind::Poststart, &container.record, Status::Running);
    let terminal = container.record.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let terminal = if terminal { Streams::of_caller(true)?.raw_mode()? } else { None };
    // Others may change it while it runs.
    drop(container);
    let status = written.and_then(|()| match process {
        Process::Sandbox(sandbox) => watch::watch(sandbox, signals, terminal, None),
        Process::Member(child) => {
            let status = join::watch(&child, signals);
            drop(terminal);
            status
        }
    });
    if !keep {
        delete::by_force(cx, &args.id)?;
    }
    status
}

/// The process that is a container's on the host.
pub enum Process {
    /// A sandbox of its own.
    Sandbox(Sandbox),
    /// One that stands for it.
    Member(Child),
}

impl Process {
    /// Its id on the host.
    pub fn pid(&self) -> i32 {
        match self {
            Process::Sandbox(sandbox) => sandbox.child.pid(),
            Process::Member(child) => child.pid(),
        }
    }
}

/// A container in the making. Whatever goes wrong, nothing of it is left.
pub struct Making<'a> {
    /// The command's.
    pub cx: &'a Context,
    /// What it is made of.
    pub args: &'a BundleArgs,
    /// Whose end is its end.
    pub life: Life,
    /// The snapshot that it goes on from, instead of starting its program.
    pub restoring: Option<Restoring>,
    /// The configuration, where it is not read from the bundle's directory.
    pub bundle: Option<Bundle>,
}

/// A snapshot, and what is to be its instance's own.
pub struct Restoring {
    /// The snapshot's files.
    pub fds: Vec<(Role, OwnedFd)>,
    /// The instance.
    pub instance: InstanceConfig,
    /// A sandbox process that is there already; else one is started.
    pub blank: Option<Blank>,
}

impl Making<'_> {
    /// Makes it.
    ///
    /// # Errors
    /// The bundle, the snapshot or the host does not let us.
    pub fn make(mut self) -> Result<(Container, Process)> {
        crate::state::check_id(&self.args.id)?;
        let mut bundle = self.bundle.take().map_or_else(|| spec::load(&self.args.bundle), Ok)?;
        annotate(&mut bundle.spec, &self.args.default_annotation);
        let wanted = Wanted::read(&self.args.id, &bundle)?;
        let detach = self.life == Life::Detached && !self.args.console_on_stdin;
        if self.restoring.is_some() && wanted.process.console.is_some() {
            return Err(refused("process.terminal", "a restored container has plain streams"));
        }
        if self.restoring.is_some() && wanted.pod.is_some() {
            return Err(refused("annotations", "a restored container has a sandbox of its own, not a pod's"));
        }
        console::check(wanted.process.console.is_some(), detach, self.args.console_socket.as_deref())?;
        let program = wanted.process.args.first().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default();
        let joined = wanted.pod.as_deref().map(|id| pod::find(self.cx, id)).transpose()?;
        let mut record = Record::new(&self.args.id, &bundle);
        record.pod = joined.as_ref().map(|joined| joined.pod.clone());
        let mut container = self.cx.store.create(record)?;
        pass("create-directory");
        let made = self.make_cgroup(&mut container).and_then(|()| match &joined {
            Some(joined) => self.join(wanted, joined, &mut container).map(Process::Member),
            None => self.launch(wanted, &mut container).map(Process::Sandbox),
        });
        match made {
            Ok(process) => Ok((container, process)),
            Err(failure) => {
                delete::destroy(&container.record);
                container.forget();
                Err(in_runc_s_words(failure, &program))
            }
        }
    }

    fn make_cgroup(&self, container: &mut Container) -> Result<()> {
        let linux = container.record.spec.linux().as_ref();
        let path = linux.and_then(|l| l.cgroups_path().clone());
        let optional = cgroup::is_optional(&self.cx.oci.rootless);
        let place = cgroup::place(path.as_deref(), &self.args.id, self.cx.oci.systemd_cgroup, optional)?;
        container.record.cgroup = place;
        container.save()?;
        if let Some(place) = &container.record.cgroup {
            place.make(resources(&container.record).as_ref())?;
        }
        pass("create-cgroup");
        Ok(())
    }

    fn streams(&self, console: Option<ConsoleSize>) -> Result<Streams> {
        match (&self.args.console_socket, console) {
            (Some(socket), Some(size)) => console::open(socket, size),
            (_, console) => Streams::of_caller(console.is_some()),
        }
    }

    /// Makes the container in a sandbox that is there.
    fn join(&self, wanted: Wanted, joined: &Joined, container: &mut Container) -> Result<Child> {
        let streams = self.streams(wanted.process.console)?;
        let mut fds = wanted.images()?;
        let preserved = preserved(self.args.preserve_fds)?;
        let shares = joined.shares(&wanted.namespaces.asked);
        let (mut config, volumes) = wanted.into_container(shares);
        config.process.preserved = u32::try_from(preserved.len()).unwrap_or(0);
        config.process.console = streams.console;
        fds.extend(preserved.into_iter().map(|fd| (Role::Preserved, fd)));
        let log = self.sandbox_log()?;
        let gofer = self.gofer(&volumes, &mut fds, container, &log)?;
        pass("create-gofer");
        let directory = self.cx.store.socket_directory(&container.record)?;
        let attached = self.life == Life::Attached;
        let joining = Joining { directory, container: config, streams, fds, attached };
        let resources = resources(&container.record);
        let mut started = |pid| started(container, pid, resources.as_ref(), attached);
        let child = join::launch(joining, &log, &mut started)?;
        pass("create-ready");
        self.ready(container, gofer, attached)?;
        if attached {
            start::tell(self.cx, &container.record)?;
        }
        Ok(child)
    }

    fn ready(&self, container: &mut Container, gofer: Option<Gofer>, at_once: bool) -> Result<()> {
        container.record.phase = if at_once { Phase::Running } else { Phase::Created };
        container.save()?;
        pass("create-saved");
        // It ends when the sandbox has closed its socket.
        if let Some(gofer) = gofer {
            gofer.leave();
        }
        Ok(())
    }

    /// Makes the container in a sandbox of its own.
    fn launch(&mut self, mut wanted: Wanted, container: &mut Container) -> Result<Sandbox> {
        let resources = resources(&container.record);
        let streams = self.streams(wanted.process.console)?;
        let preserved = preserved(self.args.preserve_fds)?;
        let directory = container.directory()?;
        let listener = Listener::bind(directory.as_fd(), Record::socket());
        let listener = listener.map_err(|e| Failure::host("making the control socket", e))?;
        pass("create-socket");
        let mut fds = vec![(Role::Listener, listener.into_fd())];
        let count = u32::try_from(preserved.len()).unwrap_or(0);
        fds.extend(preserved.into_iter().map(|fd| (Role::Preserved, fd)));
        let restoring = self.restoring.take();
        let at_once = restoring.is_some() || self.life == Life::Attached;
        let (instance, blank) = match restoring {
            Some(restoring) => {
                fds.extend(restoring.fds);
                (Some(restoring.instance), restoring.blank)
            }
            None => (None, None),
        };
        let network = wanted.namespaces.network.take();
        let mut prepared = wanted.prepare(self.cx, self.life, streams, fds)?;
        prepared.config.instance = instance;
        prepared.config.container.process.preserved = count;
        if let Some(size) = prepared.streams.console {
            prepared.config.container.process.console = Some(size);
        }
        let log = self.sandbox_log()?;
        let gofer = self.gofer(&prepared.volumes, &mut prepared.fds, container, &log)?;
        pass("create-gofer");
        let mut started = |pid| started(container, pid, resources.as_ref(), at_once);
        let around = Around { log: &log, signals: None, network: network.as_ref(), started: &mut started };
        let sandbox = match blank {
            Some(blank) => launch::claim(blank, prepared, around.started)?,
            None => launch::launch(prepared, around)?,
        };
        pass("create-launched");
        wait_until_ready(&sandbox)?;
        pass("create-ready");
        self.ready(container, gofer, at_once)?;
        Ok(sandbox)
    }

    /// Starts the gofer, where there is something to serve, in the container's cgroup.
    fn gofer(
        &self,
        volumes: &[Volume],
        fds: &mut Vec<(Role, OwnedFd)>,
        container: &mut Container,
        log: &OwnedFd,
    ) -> Result<Option<Gofer>> {
        let Some((gofer, socket)) = crate::gofer::launch(volumes, log, self.life, false)? else {
            return Ok(None);
        };
        fds.push((Role::Gofer, socket));
        container.record.gofer = gofer.pid();
        if let Some(place) = &container.record.cgroup {
            place.add(gofer.pid(), None)?;
        }
        Ok(Some(gofer))
    }

    /// Where nobody stays beside the sandbox, it must not hold the caller's standard error.
    fn sandbox_log(&self) -> Result<OwnedFd> {
        let doing = |e| Failure::host("opening the log", e);
        if self.life == Life::Detached && self.cx.log_args.log.is_none() {
            return hostsys::fds::dev_null().map_err(doing);
        }
        hostsys::fds::dup_above(self.cx.log.as_fd(), 3).map_err(doing)
    }
}

/// Annotations for what the bundle says nothing about.
fn annotate(spec: &mut oci_spec::runtime::Spec, defaults: &[String]) {
    let mut all = spec.annotations().clone().unwrap_or_default();
    for (key, value) in defaults.iter().filter_map(|text| text.split_once('=')) {
        all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    if !all.is_empty() {
        spec.set_annotations(Some(all));
    }
}

/// `linux.resources`.
fn resources(record: &Record) -> Option<LinuxResources> {
    record.spec.linux().as_ref().and_then(|linux| linux.resources().clone())
}

/// The container's process is there, and waits for us.
fn started(container: &mut Container, pid: i32, resources: Option<&LinuxResources>, at_once: bool) -> Result<()> {
    pass("create-forked");
    container.record.set_process(pid);
    container.save()?;
    pass("create-recorded");
    if let Some(place) = &container.record.cgroup {
        place.add(pid, resources)?;
    }
    pass("create-placed");
    let adjust = container.record.spec.process().as_ref().and_then(|p| p.oom_score_adj());
    if let Some(adjust) = adjust
        && let Err(e) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), adjust.to_string())
    {
        log::warn!("config.json: process.oomScoreAdj {adjust}: {e}");
    }
    for kind in [Kind::Prestart, Kind::CreateRuntime, Kind::CreateContainer] {
        hooks::run(kind, &container.record, Status::Creating)?;
    }
    if at_once {
        hooks::run(Kind::StartContainer, &container.record, Status::Created)?;
    }
    Ok(())
}

/// Waits for the sandbox's word that the container is there.
fn wait_until_ready(sandbox: &Sandbox) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::runtime("the sandbox does not come up; run again with --debug"));
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(sandbox.control.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Failure::runtime(format!("waiting for the sandbox process: poll: {e}"))),
        }
        let message = sandbox.control.try_receive().map_err(|e| Failure::host("hearing the sandbox process", e))?;
        match message {
            None => {}
            Some(message) if message.is_eof() => {
                return Err(sandbox.own_words(Failure::runtime("the sandbox process ended without a word")));
            }
            Some(message) => match Message::decode(&message.bytes) {
                Some(Message::Ready) => return Ok(()),
                Some(Message::Failed(status, text)) => {
                    return Err(Failure::new(crate::control::wire::status(status), text));
                }
                other => log::debug!("from the sandbox process: {other:?}"),
            },
        }
    }
}
