//! A container, and what containerd does with it. The commands of this runtime do it, in this process, but for `create`.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::events::task as event;
use containerd_shim_protos::protobuf::MessageField;
use hostsys::process::Handle;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::events::{Events, timestamp};
use super::io::Wanted;
use super::options::Options;
use super::process::{Exit, Phase, Process};
use super::watcher::{Watched, Watcher};
use super::{create, mounts};
use crate::cli::LogArgs;
use crate::cli::oci::{KillArgs, OciArgs};
use crate::commands::{self, Context};
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::{Answer, Request, Target};
use crate::failure::{Failure, Result};
use crate::logging::Format;
use crate::state::{Record, Status, Store};

/// The folder of the root file system in a bundle.
const ROOTFS: &str = "rootfs";

/// A container.
pub struct Container {
    /// Its name.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The host's id of its sandbox process.
    pub pid: i32,
    /// Its first process.
    pub init: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    /// What the commands need.
    pub cx: Context,
    events: Events,
    watcher: Arc<Watcher>,
    gofer: i32,
}

/// What the commands need.
///
/// # Errors
/// Out of descriptors.
pub fn context(options: &Options, namespace: &str) -> Result<Context> {
    let root = options.root.join(namespace);
    let oci = OciArgs {
        root: Some(root.clone()),
        systemd_cgroup: options.systemd_cgroup,
        rootless: "auto".into(),
        criu: None,
    };
    let log_args = LogArgs { log: None, log_format: Format::Json, debug: options.debug };
    let log = hostsys::fds::dev_null().map_err(|e| Failure::host("opening the log", e))?;
    Ok(Context { store: Store::open(Some(&root))?, oci, log_args, log })
}

/// Removes all of a container, whatever state it is in. Of one that never was, nothing is there.
///
/// # Errors
/// Something of it does not go.
pub fn remove_by_force(cx: &Context, id: &str, bundle: &Path) -> Result<()> {
    let removed = commands::delete::by_force(cx, id);
    mounts::unmount_all(&bundle.join(ROOTFS));
    removed
}

impl Container {
    /// Makes it; of a failure nothing is left.
    ///
    /// # Errors
    /// What `nanovisor create` says.
    pub fn create(
        request: &containerd_shim_protos::api::CreateTaskRequest,
        namespace: &str,
        events: &Events,
        watcher: &Arc<Watcher>,
    ) -> Result<Arc<Self>> {
        let options = Options::of_request(request.options.as_ref())?;
        let bundle = PathBuf::from(&request.bundle);
        options.save(&bundle)?;
        let cx = context(&options, namespace)?;
        let io = Wanted {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        mounts::mount_all(&request.rootfs, &bundle.join(ROOTFS))?;
        let root = cx.oci.root.clone().unwrap_or_default();
        let made = create::create(&root, &request.id, &bundle, &io, &options)
            .and_then(|kept| Ok((cx.store.look(&request.id)?, kept)));
        let (record, kept) = match made {
            Ok(made) => made,
            Err(failure) => {
                let _ = remove_by_force(&cx, &request.id, &bundle);
                return Err(failure);
            }
        };
        Ok(Arc::new(Container {
            id: request.id.clone(),
            bundle,
            pid: record.pid,
            init: Arc::new(Process::new("", io, 1, kept)),
            execs: Mutex::default(),
            cx,
            events: events.clone(),
            watcher: Arc::clone(watcher),
            gofer: record.gofer,
        }))
    }

    /// Has its end, and what its sandbox tells, taken notice of.
    pub fn watch(self: &Arc<Self>) {
        let Ok(record) = &self.cx.store.look(&self.id) else { return };
        match Handle::open(record.pid, record.start_time) {
            Some(handle) => self.watcher.watch(Watched::Sandbox(Arc::clone(self), handle)),
            // It is over already.
            None => self.sandbox_ended(),
        }
        let told = self.connect(record).and_then(|mut connection| {
            connection.call(Request::Watch, &[], PATIENCE)?;
            Ok(connection)
        });
        match told {
            Ok(connection) => self.watcher.watch(Watched::Told(Arc::downgrade(self), connection)),
            Err(failure) => log::debug!("container {}: no events: {failure}", self.id),
        }
    }

    /// A connection to its sandbox.
    ///
    /// # Errors
    /// It has ended.
    pub fn connect(&self, record: &Record) -> Result<Connection> {
        Connection::open(self.cx.store.socket_directory(record)?.as_fd(), &record.inside)
    }

    /// Asks its sandbox.
    ///
    /// # Errors
    /// It has ended, does not answer in time, or refuses.
    pub fn ask(&self, request: Request) -> Result<Answer> {
        let record = self.cx.store.look(&self.id)?;
        self.connect(&record)?.call(request, &[], PATIENCE)
    }

    /// A process by its name; empty for the first.
    ///
    /// # Errors
    /// There is none.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let found = self.execs.lock().get(exec_id).cloned();
        found.ok_or_else(|| Failure::runtime(format!("process {exec_id} does not exist")))
    }

    /// Takes a process that is to be executed.
    ///
    /// # Errors
    /// Its name is taken.
    pub fn add(&self, process: Process) -> Result<()> {
        let mut execs = self.execs.lock();
        if execs.contains_key(&process.exec_id) {
            return Err(Failure::runtime(format!("process {} already exists", process.exec_id)));
        }
        execs.insert(process.exec_id.clone(), Arc::new(process));
        Ok(())
    }

    /// Forgets a process that has ended or was not started.
    ///
    /// # Errors
    /// It runs.
    pub fn forget(&self, process: &Process) -> Result<Option<Exit>> {
        let exit = match process.phase() {
            Phase::Ended(exit) => Some(exit),
            Phase::Created => None,
            _ => return Err(Failure::runtime(format!("cannot delete process {}: it runs", process.exec_id))),
        };
        self.execs.lock().remove(&process.exec_id);
        Ok(exit)
    }

    /// Starts its first process.
    ///
    /// # Errors
    /// It is started already; a hook fails.
    pub fn start(&self) -> Result<()> {
        if !self.init.begin() {
            return Err(Failure::runtime("cannot start an already running container"));
        }
        if let Err(failure) = commands::start::start(&self.cx, &self.id) {
            self.tell_exit(&self.init, self.init.not_begun());
            return Err(failure);
        }
        let started = event::TaskStart { container_id: self.id.clone(), pid: self.host_pid(), ..Default::default() };
        self.events.send("/tasks/start", &started);
        self.tell_exit(&self.init, self.init.begun(1));
        Ok(())
    }

    /// The host's id that is shown for all its processes.
    pub fn host_pid(&self) -> u32 {
        u32::try_from(self.pid).unwrap_or(0)
    }

    /// Watches over a process that was executed.
    pub fn executed(self: &Arc<Self>, process: &Arc<Process>, held: crate::commands::hold::Held) {
        let started = event::TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: process.exec_id.clone(),
            pid: self.host_pid(),
            ..Default::default()
        };
        self.events.send("/tasks/exec-started", &started);
        self.tell_exit(process, process.begun(held.pid()));
        self.watcher.watch(Watched::Executed(Arc::downgrade(self), Arc::clone(process), held));
    }

    /// Its sandbox has ended: takes its status, and with it goes all that ran in it.
    pub fn sandbox_ended(&self) {
        let status = match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => u32::try_from(code).unwrap_or(255),
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + (signal as u32),
            // Not our child, which cannot be: at least it is over.
            _ => 255,
        };
        let left: Vec<_> = self.execs.lock().values().cloned().collect();
        for process in left.iter().filter(|process| process.phase() == Phase::Running) {
            self.process_ended(process, 128 + 9);
        }
        self.process_ended(&self.init, status);
    }

    /// One of its processes has ended.
    pub fn process_ended(&self, process: &Process, status: u32) {
        let exit = Exit { status, at: SystemTime::now() };
        let news = process.ended(exit);
        self.tell_exit(process, news.then_some(exit));
    }

    fn tell_exit(&self, process: &Process, exit: Option<Exit>) {
        let Some(exit) = exit else { return };
        let id = if process.exec_id.is_empty() { &self.id } else { &process.exec_id };
        let event = event::TaskExit {
            container_id: self.id.clone(),
            id: id.clone(),
            pid: self.host_pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        };
        self.events.send("/tasks/exit", &event);
    }

    /// A process of its guest was killed for memory.
    pub fn out_of_memory(&self) {
        self.events.send("/tasks/oom", &event::TaskOOM { container_id: self.id.clone(), ..Default::default() });
    }

    /// Signals a process.
    ///
    /// # Errors
    /// It has ended or was not started; no such signal.
    pub fn kill(&self, process: &Process, signo: u32, all: bool) -> Result<()> {
        match process.phase() {
            Phase::Ended(_) => return Err(Failure::runtime("container not running: the process has finished")),
            Phase::Created if !process.exec_id.is_empty() => {
                return Err(Failure::runtime("no such process: it was not started"));
            }
            _ => {}
        }
        if process.exec_id.is_empty() {
            let args = KillArgs { all, id: self.id.clone(), signal: signo.to_string() };
            return commands::kill::kill(&self.cx, &args);
        }
        let signo = i32::try_from(signo).unwrap_or(-1);
        self.ask(Request::Signal { target: Target::Process(process.inside()), signo }).map(drop)
    }

    /// How it is, with its process's phase before what is written down.
    pub fn status(&self) -> Status {
        match self.init.phase() {
            Phase::Ended(_) => Status::Stopped,
            Phase::Created => Status::Created,
            _ => match self.cx.store.look(&self.id).map(|record| record.status()) {
                Ok(Status::Paused) => Status::Paused,
                _ => Status::Running,
            },
        }
    }

    /// Removes what it has left.
    ///
    /// # Errors
    /// It runs; something does not go.
    pub fn delete(&self) -> Result<Option<Exit>> {
        let exit = match self.init.phase() {
            Phase::Ended(exit) => Some(exit),
            Phase::Created => None,
            _ => return Err(Failure::runtime("cannot delete a container that runs")),
        };
        remove_by_force(&self.cx, &self.id, &self.bundle)?;
        // Its gofer has ended with it, and is a child of ours.
        if self.gofer > 0 {
            let _ = waitpid(Pid::from_raw(self.gofer), Some(WaitPidFlag::WNOHANG));
        }
        Ok(exit)
    }
}
