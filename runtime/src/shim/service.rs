//! containerd's calls: each finds its container and process, has it done, and tells what happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use containerd_shim_protos::api::{self, Empty, Status as TaskStatus};
use containerd_shim_protos::events::task as event;
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim_protos::shim::shim as message;
use containerd_shim_protos::ttrpc::{self, Code, TtrpcContext};
use containerd_shim_protos::types::task::ProcessInfo;
use parking_lot::{Condvar, Mutex};

use super::container::Container;
use super::events::{Events, timestamp};
use super::io::{self, Kept, Wanted};
use super::process::{Exit, Phase, Process};
use super::watcher::Watcher;
use super::{metrics, terminal};
use crate::commands::{self, exec, hold};
use crate::control::protocol::Request;
use crate::failure::{Failure, Result};
use crate::oci::{process, spec};
use crate::sandbox::config::ConsoleSize;
use crate::sandbox::streams::Streams;
use crate::state::Status;

/// What a process is that was asked to be executed, until it is started.
type Planned = BTreeMap<(String, String), oci_spec::runtime::Process>;

/// The containers of this shim.
pub struct Service {
    namespace: String,
    events: Events,
    watcher: Arc<Watcher>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    planned: Mutex<Planned>,
    over: Mutex<bool>,
    ends: Condvar,
}

impl Service {
    /// None yet.
    ///
    /// # Errors
    /// Out of threads.
    pub fn new(namespace: &str, events: Events) -> Result<Self> {
        Ok(Service {
            namespace: namespace.to_owned(),
            events,
            watcher: Watcher::start()?,
            containers: Mutex::default(),
            planned: Mutex::default(),
            over: Mutex::new(false),
            ends: Condvar::new(),
        })
    }

    /// Waits until containerd says that it is over.
    pub fn wait_until_over(&self) {
        let mut over = self.over.lock();
        while !*over {
            self.ends.wait(&mut over);
        }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| Failure::runtime(format!("container {id} does not exist")))
    }

    fn find(&self, id: &str, exec_id: &str) -> Result<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    fn create_container(&self, request: &message::CreateTaskRequest) -> Result<u32> {
        if !request.checkpoint.is_empty() {
            return Err(Failure::runtime("a checkpoint cannot be restored through containerd yet"));
        }
        if self.containers.lock().contains_key(&request.id) {
            return Err(Failure::runtime(format!("container {} already exists", request.id)));
        }
        let container = Container::create(request, &self.namespace, &self.events, &self.watcher)?;
        let created = event::TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(event::TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..Default::default()
            }),
            pid: container.host_pid(),
            ..Default::default()
        };
        let pid = container.host_pid();
        self.events.send("/tasks/create", &created);
        self.containers.lock().insert(request.id.clone(), Arc::clone(&container));
        // Its end may be told only now.
        container.watch();
        Ok(pid)
    }

    fn plan(&self, request: &message::ExecProcessRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let described = request.spec.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        let described: oci_spec::runtime::Process = spec::parse("the process", described)?;
        let io = Wanted {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        container.add(Process::new(&request.exec_id, io, 0, Kept::default()))?;
        self.planned.lock().insert((request.id.clone(), request.exec_id.clone()), described);
        let added = event::TaskExecAdded {
            container_id: request.id.clone(),
            exec_id: request.exec_id.clone(),
            ..Default::default()
        };
        self.events.send("/tasks/exec-added", &added);
        Ok(())
    }

    fn execute(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<()> {
        let key = (container.id.clone(), process.exec_id.clone());
        let described = self.planned.lock().get(&key).cloned();
        let described = described.filter(|_| process.begin());
        let described = described.ok_or_else(|| Failure::runtime("cannot start a process that was started"))?;
        match begin(container, process, &described) {
            Ok(held) => {
                self.planned.lock().remove(&key);
                container.executed(process, held);
                Ok(())
            }
            Err(failure) => {
                process.not_begun();
                Err(failure)
            }
        }
    }

    fn remove(&self, request: &message::DeleteRequest) -> Result<message::DeleteResponse> {
        let (container, process) = self.find(&request.id, &request.exec_id)?;
        let exit = if request.exec_id.is_empty() {
            let exit = container.delete()?;
            self.containers.lock().remove(&request.id);
            self.planned.lock().retain(|(id, _), _| *id != request.id);
            exit
        } else {
            self.planned.lock().remove(&(request.id.clone(), request.exec_id.clone()));
            container.forget(&process)?
        };
        let exit = exit.unwrap_or(Exit { status: 0, at: std::time::SystemTime::now() });
        if request.exec_id.is_empty() {
            let deleted = event::TaskDelete {
                container_id: request.id.clone(),
                pid: container.host_pid(),
                exit_status: exit.status,
                exited_at: MessageField::some(timestamp(exit.at)),
                ..Default::default()
            };
            self.events.send("/tasks/delete", &deleted);
        }
        Ok(message::DeleteResponse {
            pid: container.host_pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    fn describe(&self, id: &str, exec_id: &str) -> Result<message::StateResponse> {
        let (container, process) = self.find(id, exec_id)?;
        let status = match (process.phase(), exec_id.is_empty()) {
            (Phase::Ended(_), _) => TaskStatus::STOPPED,
            (_, true) => task_status(container.status()),
            (Phase::Created, false) => TaskStatus::CREATED,
            _ => TaskStatus::RUNNING,
        };
        let mut state = message::StateResponse {
            id: id.to_owned(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: if status == TaskStatus::CREATED && !exec_id.is_empty() { 0 } else { container.host_pid() },
            status: EnumOrUnknown::new(status),
            stdin: process.io.stdin.clone(),
            stdout: process.io.stdout.clone(),
            stderr: process.io.stderr.clone(),
            terminal: process.io.terminal,
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        if let Phase::Ended(exit) = process.phase() {
            state.exit_status = exit.status;
            state.exited_at = MessageField::some(timestamp(exit.at));
        }
        Ok(state)
    }

    /// Over is it when no container is left, whatever the one is that is meant.
    fn shut_down(&self) {
        if self.containers.lock().is_empty() {
            *self.over.lock() = true;
            self.ends.notify_all();
        }
    }
}

/// Executes a process in a container.
fn begin(container: &Container, process: &Process, described: &oci_spec::runtime::Process) -> Result<hold::Held> {
    let record = container.cx.store.look(&container.id)?;
    exec::check(record.status(), false)?;
    let mut config = process::describe(described, &record.spec)?;
    let connection = container.connect(&record)?;
    let streams = if process.io.terminal {
        let (slave, kept) = terminal::open(&process.io)?;
        process.keep(kept);
        Streams::of_terminal(slave, config.console.unwrap_or(ConsoleSize { rows: 24, cols: 80 }))?
    } else {
        let opened = io::open(&process.io)?;
        process.keep(opened.kept);
        Streams::of_descriptors(opened.ends)?
    };
    config.console = streams.console;
    hold::begin(connection, &exec::Wanted { process: config, streams, preserved: Vec::new() })
}

fn task_status(status: Status) -> TaskStatus {
    match status {
        Status::Creating | Status::Created => TaskStatus::CREATED,
        Status::Running => TaskStatus::RUNNING,
        Status::Paused => TaskStatus::PAUSED,
        Status::Stopped => TaskStatus::STOPPED,
    }
}

/// A failure in the form in which containerd tells kinds of them apart.
fn told(failure: Failure) -> ttrpc::Error {
    let text = failure.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let code = if says(&["does not exist", "not running", "no such process"]) {
        Code::NOT_FOUND
    } else if says(&["already exists"]) {
        Code::ALREADY_EXISTS
    } else if says(&["cannot ", "not paused", "not yet", "yet"]) {
        Code::FAILED_PRECONDITION
    } else {
        Code::UNKNOWN
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text))
}

fn done(result: Result<()>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::new()).map_err(told)
}

impl containerd_shim_protos::Task for Service {
    fn state(&self, _: &TtrpcContext, request: message::StateRequest) -> ttrpc::Result<message::StateResponse> {
        self.describe(&request.id, &request.exec_id).map_err(told)
    }

    fn create(&self, _: &TtrpcContext, request: message::CreateTaskRequest) -> ttrpc::Result<api::CreateTaskResponse> {
        let pid = self.create_container(&request).map_err(told)?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    fn start(&self, _: &TtrpcContext, request: message::StartRequest) -> ttrpc::Result<message::StartResponse> {
        let (container, process) = self.find(&request.id, &request.exec_id).map_err(told)?;
        let started = if request.exec_id.is_empty() { container.start() } else { self.execute(&container, &process) };
        started.map_err(told)?;
        Ok(message::StartResponse { pid: container.host_pid(), ..Default::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: message::DeleteRequest) -> ttrpc::Result<message::DeleteResponse> {
        self.remove(&request).map_err(told)
    }

    fn pids(&self, _: &TtrpcContext, request: message::PidsRequest) -> ttrpc::Result<message::PidsResponse> {
        let container = self.container(&request.id).map_err(told)?;
        let own = ProcessInfo { pid: container.host_pid(), ..Default::default() };
        Ok(message::PidsResponse { processes: vec![own], ..Default::default() })
    }

    fn pause(&self, _: &TtrpcContext, request: message::PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(told)?;
        let paused = commands::pause::pause(&container.cx, &request.id);
        if paused.is_ok() {
            let event = event::TaskPaused { container_id: request.id, ..Default::default() };
            self.events.send("/tasks/paused", &event);
        }
        done(paused)
    }

    fn resume(&self, _: &TtrpcContext, request: message::ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(told)?;
        let resumed = commands::pause::resume(&container.cx, &request.id);
        if resumed.is_ok() {
            let event = event::TaskResumed { container_id: request.id, ..Default::default() };
            self.events.send("/tasks/resumed", &event);
        }
        done(resumed)
    }

    fn checkpoint(&self, _: &TtrpcContext, _: message::CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        let text = "containers cannot be checkpointed through containerd yet; see docs/snapshots.md";
        Err(ttrpc::Error::RpcStatus(ttrpc::get_status(Code::UNIMPLEMENTED, text)))
    }

    fn kill(&self, _: &TtrpcContext, request: message::KillRequest) -> ttrpc::Result<Empty> {
        let (container, process) = self.find(&request.id, &request.exec_id).map_err(told)?;
        done(container.kill(&process, request.signal, request.all))
    }

    fn exec(&self, _: &TtrpcContext, request: message::ExecProcessRequest) -> ttrpc::Result<Empty> {
        done(self.plan(&request))
    }

    fn resize_pty(&self, _: &TtrpcContext, request: message::ResizePtyRequest) -> ttrpc::Result<Empty> {
        let (container, process) = self.find(&request.id, &request.exec_id).map_err(told)?;
        let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let (rows, cols) = (short(request.height), short(request.width));
        done(container.ask(Request::WindowSize { pid: process.inside(), rows, cols }).map(drop))
    }

    fn close_io(&self, _: &TtrpcContext, request: message::CloseIORequest) -> ttrpc::Result<Empty> {
        let (_, process) = self.find(&request.id, &request.exec_id).map_err(told)?;
        if request.stdin {
            process.close_input();
        }
        Ok(Empty::new())
    }

    fn update(&self, _: &TtrpcContext, request: message::UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(told)?;
        let wanted = request.resources.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        let wanted = spec::parse("the resources", wanted).map_err(told)?;
        done(commands::update::apply(&container.cx, &request.id, &wanted))
    }

    fn wait(&self, _: &TtrpcContext, request: message::WaitRequest) -> ttrpc::Result<message::WaitResponse> {
        let (_, process) = self.find(&request.id, &request.exec_id).map_err(told)?;
        let exit = process.wait();
        let exited_at = MessageField::some(timestamp(exit.at));
        Ok(message::WaitResponse { exit_status: exit.status, exited_at, ..Default::default() })
    }

    fn stats(&self, _: &TtrpcContext, request: message::StatsRequest) -> ttrpc::Result<message::StatsResponse> {
        let container = self.container(&request.id).map_err(told)?;
        let record = container.cx.store.look(&request.id).map_err(told)?;
        let stats = commands::events::now(&container.cx, &record).map_err(told)?;
        let is_v2 = record.cgroup.as_ref().is_some_and(crate::cgroup::Place::is_v2);
        let stats = MessageField::some(metrics::message(&stats, is_v2));
        Ok(message::StatsResponse { stats, ..Default::default() })
    }

    fn connect(&self, _: &TtrpcContext, request: message::ConnectRequest) -> ttrpc::Result<message::ConnectResponse> {
        // Also asked before there is a container.
        let task_pid = self.container(&request.id).map_or(0, |container| container.host_pid());
        let shim_pid = std::process::id();
        Ok(message::ConnectResponse { shim_pid, task_pid, ..Default::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: message::ShutdownRequest) -> ttrpc::Result<Empty> {
        self.shut_down();
        Ok(Empty::new())
    }
}
