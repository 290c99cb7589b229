//! Serving requests from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::boot::request::{Answer, Control, Request, Target, Token};
use crate::boot::spec::{ContainerSpec, ProcessSpec, ResourceLimits};
use crate::kernel::Kernel;
use crate::kernel::container::Owed;
use crate::kernel::container::start::Start;
use crate::kernel::container::{Container, Namespaces, Phase};
use crate::kernel::exit;
use crate::kernel::signal::action::SIG_DFL;
use crate::kernel::signal::{self, SigInfo};
use crate::kernel::task::Tid;
use crate::kernel::thread_group::ThreadGroup;

/// Highest signal number.
const SIGNAL_MAX: i32 = 64;

type Refusal = (Errno, String);

fn refuse<T>(errno: Errno, text: impl Into<String>) -> Result<T, Refusal> {
    Err((errno, text.into()))
}

impl Kernel {
    /// Serves a request; some are answered later.
    pub(super) fn serve(self: &Arc<Self>, request: Request) {
        let Request { token, control } = request;
        if let Some(reply) = self.act(token, control).transpose() {
            self.outside.reply(token, reply);
        }
    }

    /// Acts on a request. `None`: it is answered by somebody else.
    fn act(self: &Arc<Self>, token: Token, control: Control) -> Result<Option<Answer>, Refusal> {
        match control {
            Control::Create(spec) => {
                self.create(*spec, false, Some(token))?;
                return Ok(None);
            }
            Control::Start { id } => {
                let container = self.container(&id)?;
                if container.start(token).is_err() {
                    return refuse(Errno::EINVAL, format!("container {id} has been started already"));
                }
                return Ok(None);
            }
            Control::Exec { id, process } => {
                self.exec(&id, *process, token)?;
                return Ok(None);
            }
            Control::Destroy { id } => {
                self.destroy(&self.container(&id)?, token);
                return Ok(None);
            }
            Control::Pause { id } => {
                self.freeze(&self.container(&id)?, token);
                return Ok(None);
            }
            Control::Checkpoint { id, destination, at_ready } => {
                let container = self.container(&id)?;
                let there = container.phase() == Phase::Running || (at_ready && container.phase() == Phase::Created);
                if !there || container.state.lock().ended.is_some() {
                    return refuse(Errno::ESRCH, format!("container {id} is not running"));
                }
                self.checkpoint_for(Owed::new(self, Some(token)), *destination, at_ready);
                return Ok(None);
            }
            Control::Shutdown => {
                self.containers.all().iter().for_each(|container| container.kill_all(true));
                return Ok(None);
            }
            Control::Signal { id, target, signo } => self.signal(&self.container(&id)?, target, signo)?,
            Control::WindowSize { id, pid, rows, cols } => {
                let container = self.container(&id)?;
                let pid = if pid == 0 { container.init() } else { pid };
                let console = container.state.lock().consoles.get(&pid).cloned();
                let Some(console) = console else {
                    return refuse(Errno::ENOTTY, format!("process {pid} of container {id} has no terminal"));
                };
                console.set_window_size(rows, cols);
            }
            Control::Resume { id } => self.thaw(&self.container(&id)?),
            Control::Processes { id } => return Ok(Some(Answer::Processes(self.processes(&self.container(&id)?)))),
            Control::Stats { id } => return Ok(Some(Answer::Stats(Box::new(self.stats(&self.container(&id)?))))),
            Control::Update { id, limits } => self.update(&self.container(&id)?, limits)?,
        }
        Ok(Some(Answer::Done))
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Refusal> {
        self.containers.get(id).ok_or_else(|| (Errno::ENOENT, format!("container {id} does not exist")))
    }

    /// Makes a container; its first process finds its program, answers `token`, and waits, or goes on (`start`).
    ///
    /// # Errors
    /// `EEXIST`; what its tree or its descriptors say.
    pub fn create(
        self: &Arc<Self>,
        spec: ContainerSpec,
        start: bool,
        token: Option<Token>,
    ) -> Result<Arc<Container>, Refusal> {
        let ns = self.namespaces_for(&spec)?;
        let container = Container::new(&spec, self.containers.is_first(), ns);
        if !self.containers.add(&container) {
            return refuse(Errno::EEXIST, format!("container {} exists", spec.id));
        }
        let start = if start { Start::AtOnce } else { Start::Gated };
        let made = self.build_tree(&container, spec);
        let made = made.and_then(|process| self.spawn(&container, process, token, start));
        if let Err(refusal) = made {
            container.take_apart(self);
            return Err(refusal);
        }
        Ok(container)
    }

    /// Namespaces of its own, but for those that it shares.
    fn namespaces_for(&self, spec: &ContainerSpec) -> Result<Namespaces, Refusal> {
        let mut ns = self.containers.numbers.fresh();
        let of = |id: &Option<String>| id.as_ref().map(|id| self.container(id)).transpose();
        if let Some(other) = of(&spec.shares.pid)? {
            ns.pids = other.ns.pids.clone();
        }
        if let Some(other) = of(&spec.shares.ipc)? {
            ns.ipc = other.ns.ipc.clone();
        }
        if let Some(other) = of(&spec.shares.uts)? {
            ns.uts = other.ns.uts.clone();
        }
        if let Some(other) = of(&spec.shares.net)? {
            ns.net = other.ns.net;
        }
        Ok(ns)
    }

    fn exec(self: &Arc<Self>, id: &str, process: ProcessSpec, token: Token) -> Result<(), Refusal> {
        let container = self.container(id)?;
        if !matches!(container.phase(), Phase::Created | Phase::Running) || container.state.lock().ended.is_some() {
            return refuse(Errno::ESRCH, format!("container {id} is not running"));
        }
        self.spawn(&container, process, Some(token), Start::Executed)
    }

    fn signal(&self, container: &Arc<Container>, target: Target, signo: i32) -> Result<(), Refusal> {
        if !(0..=SIGNAL_MAX).contains(&signo) {
            return refuse(Errno::EINVAL, format!("there is no signal {signo}"));
        }
        let one = |pid| container.ns.pids.group(Tid(pid)).filter(|g| Arc::ptr_eq(&g.container, container));
        let mut targets: Vec<Arc<ThreadGroup>> = match target {
            Target::Init => one(container.init()).into_iter().collect(),
            Target::Process(pid) => one(pid).into_iter().collect(),
            Target::All => container.groups(),
        };
        targets.retain(|group| !group.is_zombie());
        if targets.is_empty() {
            return refuse(Errno::ESRCH, format!("container {} has no such process", container.id));
        }
        for group in targets.iter().filter(|group| signo != 0 && !container.shields(group, signo)) {
            // A full queue of a real-time signal is the receiver's own doing.
            let _ = signal::send_to_group(group, SigInfo::user(signo, signal::info::code::SI_USER, 0, 0));
        }
        Ok(())
    }

    fn update(&self, container: &Arc<Container>, limits: ResourceLimits) -> Result<(), Refusal> {
        container.usage.update(limits);
        if let Some(bytes) = limits.memory.filter(|_| container.is_root) {
            self.memory.set_limit(bytes);
        }
        Ok(())
    }
}

impl Container {
    /// Whether `signo` is lost on `group` (`sig_task_ignored`, SIGNAL_UNKILLABLE).
    fn shields(&self, group: &ThreadGroup, signo: i32) -> bool {
        let forced = signo == libc::SIGKILL || signo == libc::SIGSTOP;
        let unhandled = group.signals.actions().get(signo).handler == SIG_DFL;
        self.shielded && group.tgid == Tid(1) && unhandled && !forced
    }

    /// SIGKILL for everybody; `for_good`: nobody is born any more.
    pub(super) fn kill_all(self: &Arc<Self>, for_good: bool) {
        // Noted before the tree of processes is looked at: who is born later sees it.
        self.dying.fetch_or(for_good, Ordering::SeqCst);
        self.groups().iter().for_each(|group| exit::kill_group(group, libc::SIGKILL));
    }
}
