//! From a configuration to running containers, and to the exit status of the first.

mod control;
pub mod request;
pub mod spec;
mod start;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use memory::MemoryFile;
use platform::{ArchState, Platform};

use crate::boot::control::Requests;
use crate::boot::start::StartOp;
use crate::fs::gofer::Connection;
use crate::fs::host::HostFile;
use crate::fs::tty::console::Console;
use crate::kernel::creds::Creds;
use crate::kernel::signal::TaskSignals;
use crate::kernel::task::{Task, TaskShared, Waiting};
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::{self, Kernel, Options, worker};
use crate::mm::Mm;
use crate::vfs::fd_table::NR_OPEN;
use crate::vfs::path::PathRef;
use crate::vfs::{Caller, FdTable, FsContext};

pub use request::{Answer, Control, ControlSource, Event, Reply, Request, Target, Token};
pub use spec::{ContainerSpec, MountKind, MountSpec, ProcessSpec, Stdio, User};

/// Everything a sandbox starts with. The runtime fills it; nothing is opened by path after this.
pub struct Config {
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// Guest memory, limited to what the sandbox may use, attached to the platform.
    pub memory: Arc<MemoryFile>,
    /// Kernel settings.
    pub options: Options,
    /// The root container: the sandbox ends after its first process (and after all other containers').
    pub container: ContainerSpec,
    /// Its first process runs at once; else it waits for [`Control::Start`].
    pub start: bool,
    /// Requests from outside while the sandbox runs; see [`Control`].
    pub control: Option<Box<dyn ControlSource>>,
    /// Called once, on the main thread, after the root container is made and before the first guest instruction: the
    /// place for the final seccomp filter. Worker threads are started after it.
    pub seal: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// The first process exited with this status.
    Exited(u8),
    /// The first process was killed by this signal.
    Signaled(i32),
    /// The first program could not be started: errno and a sentence that names it.
    NotStarted(abi::Errno, String),
    /// The sandbox itself could not go on.
    Failed(String),
}

/// Runs the sandbox to its end on the calling thread and workers that it starts.
///
/// # Errors
/// Host failures while setting up; guests' failures are an [`ExitStatus`].
pub fn run(config: Config) -> std::io::Result<ExitStatus> {
    let kernel = Kernel::new(config.platform, config.memory, config.options)?;
    let ContainerSpec { root, files, hostname, process, mounts, gofer, .. } = config.container;
    kernel.uts.lock().hostname.clone_from(&hostname);
    let spec::Root::Image(image) = root else {
        let text = "this kind of root file system is not served yet".to_owned();
        return Ok(ExitStatus::NotStarted(Errno::ENODEV, text));
    };
    let root = match crate::vfs::boot::build_root(&kernel, image, &files) {
        Ok(root) => root,
        Err(e) => return Ok(ExitStatus::NotStarted(Errno::EUCLEAN, e.to_string())),
    };
    let mut gofer = match mount_host_trees(&kernel, &root, gofer, &mounts) {
        Ok(gofer) => gofer,
        Err(text) => return Ok(ExitStatus::NotStarted(Errno::EIO, text)),
    };
    let (fds, console) = standard_streams(&kernel, &root, process.stdio)?;
    let User::Named(user) = process.user else {
        return Ok(ExitStatus::NotStarted(Errno::EINVAL, "user: numbers are not taken yet".to_owned()));
    };
    let start = StartOp { args: process.args, env: process.env, cwd: process.cwd, user };
    let init = first_task(&kernel, root, fds, start)?;
    if let Some(console) = &console {
        console.control(&init).map_err(host)?;
    }
    let requests = config.control.map(|source| Requests::serve(&kernel, source)).transpose()?;
    (config.seal)()?;
    kernel.memory.count_heap();
    if let Some(gofer) = &mut gofer {
        gofer.drive(&kernel)?;
    }
    kernel.start_task(&init);
    drop(init);
    let ran = run_workers(&kernel);
    drop(gofer);
    if let Some(console) = console {
        kernel::Console::drain(&*console);
    }
    ran?;
    drop(requests);
    Ok(kernel.exit_status().unwrap_or_else(|| ExitStatus::Failed("the kernel stopped without a status".to_owned())))
}

/// Connects to the gofer, where there is one, and mounts its trees.
fn mount_host_trees(
    kernel: &Arc<Kernel>,
    root: &PathRef,
    socket: Option<OwnedFd>,
    mounts: &[MountSpec],
) -> Result<Option<Connection>, String> {
    let Some(socket) = socket else { return Ok(None) };
    let gofer = Connection::new(kernel, socket).map_err(|fault| format!("the gofer: {fault}"))?;
    let caller = Caller::kernel(&kernel.vfs, root.clone());
    for mount in mounts {
        if let MountKind::Gofer(tree) = mount.kind {
            let mounted = gofer.mount(&caller, tree, (&mount.destination, &mount.source, mount.flags));
            let target = String::from_utf8_lossy(&mount.destination);
            mounted.map_err(|errno| format!("mounting a host directory on {target}: {}", errno.text()))?;
        }
    }
    Ok(Some(gofer))
}

fn host(e: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(e.raw())
}

fn standard_streams(
    kernel: &Arc<Kernel>,
    root: &PathRef,
    stdio: Stdio,
) -> std::io::Result<(FdTable, Option<Arc<Console>>)> {
    let fds = FdTable::new();
    let install = |file| fds.install(file, false, 0, NR_OPEN).map_err(host);
    let console = match stdio {
        Stdio::Host(streams) => {
            for fd in streams {
                install(HostFile::open(&kernel.reactor, fd)?)?;
            }
            None
        }
        Stdio::Console { fd, size, stderr } => {
            let console = Console::start(kernel, fd, size)?;
            // One open file behind all three, as login(1) and sshd leave it.
            let terminal = console.open(&Caller::kernel(&kernel.vfs, root.clone())).map_err(host)?;
            install(terminal.clone())?;
            install(terminal.clone())?;
            install(match stderr {
                Some(fd) => HostFile::open(&kernel.reactor, fd)?,
                None => terminal,
            })?;
            Some(console)
        }
    };
    Ok((fds, console))
}

/// Process 1: its first act is [`StartOp`].
fn first_task(kernel: &Arc<Kernel>, root: PathRef, fds: FdTable, start: StartOp) -> std::io::Result<Arc<Task>> {
    let tid = kernel.pids.allocate().ok_or_else(|| host(Errno::EAGAIN))?;
    let group = ThreadGroup::new(tid);
    {
        let mut state = group.state.lock();
        (state.pgid, state.sid) = (tid.0, tid.0);
    }
    let shared = TaskShared {
        mm: Some(Mm::new(kernel).map_err(host)?),
        fds: Some(Arc::new(fds)),
        fs: Some(Arc::new(FsContext::new(root.clone(), root, 0o022))),
        creds: Arc::new(Creds::root()),
        name: b"init".to_vec(),
    };
    let task = Task::new(kernel, tid, group.clone(), ArchState::new(), shared, TaskSignals::default());
    group.state.lock().tasks.push(task.clone());
    kernel.pids.insert(&task);
    let op = Box::new(start);
    task.own.lock().waiting = Some(Waiting::new(op));
    Ok(task)
}

fn run_workers(kernel: &Arc<Kernel>) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let spawn = |name: String| std::thread::Builder::new().name(name).stack_size(256 << 10);
        let reactor = kernel.clone();
        spawn("reactor".to_owned()).spawn_scoped(scope, move || worker::run_reactor(reactor))?;
        for index in 1..kernel.sched.workers.len() {
            let kernel = kernel.clone();
            spawn(format!("worker-{index}")).spawn_scoped(scope, move || {
                if let Err(e) = worker::run(kernel.clone(), index) {
                    kernel.fail(&format!("worker {index} has no CPU: {e}"));
                }
            })?;
        }
        worker::run(kernel.clone(), 0)
    })
}
