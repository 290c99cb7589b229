//! From a configuration to running containers, and to the exit status of the first.

pub mod request;
mod restore;
pub mod spec;

use std::sync::Arc;

use memory::MemoryFile;
use platform::Platform;

use crate::checkpoint::Destination;
use crate::kernel::container::Requests;
use crate::kernel::{Kernel, Options, worker};

pub use request::{Answer, Control, ControlSource, Event, Reply, Request, Target, Token};
pub use restore::{RestoreConfig, restore};
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
    /// What its creation is answered under, like that of [`Control::Create`]. A failure is the answer of [`run`] too.
    pub token: Option<Token>,
    /// Where a checkpoint goes when a program says that it is ready (`/proc/nanovisor/checkpoint`).
    pub checkpoint: Option<Destination>,
    /// Requests from outside while the sandbox runs; see [`Control`].
    pub control: Option<Box<dyn ControlSource>>,
    /// Called once, on the main thread, after the root container is made and before the first guest instruction: the
    /// place for the final seccomp filter. Worker threads are started after it.
    pub seal: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

/// The names of the standard streams, by which a restored sandbox gets them anew.
pub const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

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
    let requests = config.control.map(|source| Requests::attach(&kernel, source)).transpose()?;
    kernel.checkpoints.set_destination(config.checkpoint);
    if let Err((errno, sentence)) = kernel.create(config.container, config.start, config.token) {
        if let Some(token) = config.token {
            kernel.outside.reply(token, Err((errno, sentence.clone())));
        }
        return Ok(ExitStatus::NotStarted(errno, sentence));
    }
    (config.seal)()?;
    kernel.memory.count_heap();
    if let Some(requests) = &requests {
        requests.serve_what_came();
    }
    let ran = run_workers(&kernel);
    let consoles = std::mem::take(&mut *kernel.consoles.lock());
    consoles.iter().for_each(|console| console.drain());
    ran?;
    drop((requests, consoles));
    Ok(outcome(&kernel))
}

/// How the sandbox ended.
fn outcome(kernel: &Arc<Kernel>) -> ExitStatus {
    // Containers and their processes know each other: what is left of them would keep the kernel for ever.
    kernel.containers.all().iter().for_each(|container| drop(container.take_apart(kernel)));
    kernel.exit_status().unwrap_or_else(|| ExitStatus::Failed("the kernel stopped without a status".to_owned()))
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
