//! From a configuration to a running first program, and to its exit status.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use memory::MemoryFile;
use platform::Platform;

use crate::kernel::{Kernel, Options, worker};

/// Everything a sandbox starts with. The runtime fills it; nothing is opened by path after this.
pub struct Config {
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// Guest memory, limited to what the sandbox may use, attached to the platform.
    pub memory: Arc<MemoryFile>,
    /// The root file system: a ROFS image.
    pub image: File,
    /// What descriptors 0, 1 and 2 are.
    pub stdio: Stdio,
    /// Program and arguments; the program is looked up in `PATH` where it has no slash.
    pub args: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Who runs it: `UID[:GID]` or names of the image's /etc/passwd; root where empty.
    pub user: String,
    /// hostname.
    pub hostname: Vec<u8>,
    /// Files made in the writable layer before the start (`/etc/hosts`, ...): path, mode, content.
    pub files: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// Kernel settings.
    pub options: Options,
    /// Requests from outside while the sandbox runs (signals, window size); see [`Control`].
    pub control: Option<Box<dyn ControlSource>>,
    /// Called once, on the main thread, after everything is set up and before the first guest instruction: the place
    /// for the final seccomp filter. Worker threads are started after it.
    pub seal: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

/// What the first program's standard streams are.
pub enum Stdio {
    /// Host descriptors, passed through.
    Host([OwnedFd; 3]),
    /// A pty of the sandbox's own, whose master side is this host descriptor (a socket or terminal in raw mode):
    /// bytes from it are typed, bytes of the guest appear on it.
    Console {
        /// Byte stream to the terminal.
        fd: OwnedFd,
        /// Rows and columns.
        size: (u16, u16),
    },
}

/// A request from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Signal for the first process (or the foreground process group of its terminal).
    Signal(i32),
    /// The console's new size.
    WindowSize {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Stop all guest execution until [`Control::Resume`].
    Pause,
    /// Go on.
    Resume,
}

/// Where requests come from: a descriptor the reactor watches, and a way to take what has come.
pub trait ControlSource: Send {
    /// The descriptor, non-blocking.
    fn fd(&self) -> &OwnedFd;
    /// The next request; `None` where there is none now. A closed peer is `Signal(SIGKILL)`.
    fn next(&mut self) -> Option<Control>;
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
    let kernel = Kernel::new(config.platform.clone(), config.memory.clone(), config.options.clone())?;
    kernel.uts.lock().hostname.clone_from(&config.hostname);
    (config.seal)()?;
    run_workers(&kernel)?;
    Ok(kernel.exit_status().unwrap_or_else(|| ExitStatus::Failed("the kernel stopped without a status".to_owned())))
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
