//! Containers: what holds processes together, from creation to destruction. See `README.md` here.

mod copy_up;
pub mod end;
mod freeze;
mod identity;
mod limits;
mod namespaces;
mod outside;
mod requests;
pub mod saved;
mod spawn;
pub mod start;
pub mod stats;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use abi::Errno;

use crate::boot::request::Token;
use crate::boot::{ContainerSpec, ExitStatus};
use crate::fs::gofer::Connection;
use crate::fs::tty::console::Console;
use crate::fs::tty::{Ptys, Tty};
use crate::kernel::Kernel;
use crate::kernel::oom::Oom;
use crate::kernel::pids::Tree;
use crate::kernel::task::Task;
use crate::kernel::thread_group::ThreadGroup;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::fs_context::FsState;

pub use limits::Usage;
pub use namespaces::{Namespaces, Numbers, Uts, UtsNs};
pub use outside::{Outside, Owed, Requests};

/// How far a container has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its first process looks for its program.
    Creating,
    /// It waits for the word.
    Created,
    /// The word was given.
    Running,
    /// The first process has ended.
    Stopped(ExitStatus),
}

/// What changes in a container.
struct State {
    phase: Phase,
    /// Where its processes begin; gone once it is being taken apart.
    tree: Option<FsState>,
    /// Its gofer.
    gofer: Option<Connection>,
    /// Terminals of its processes, by their id.
    consoles: BTreeMap<i32, Arc<Console>>,
    /// The terminal behind /dev/console: its first process's.
    terminal: Option<Arc<Tty>>,
    /// Who waits for the first process's program to run.
    starter: Option<Token>,
    /// The first process's status in `wait(2)` form, from its end until the rest is gone too, and whether it is told.
    ended: Option<(i32, bool)>,
    /// Why the first process did not run its program.
    failure: Option<ExitStatus>,
    /// It goes with its last process.
    doomed: bool,
    /// Who waits for that.
    destroyers: Vec<Token>,
    /// Who waits until none of its tasks runs.
    pausers: Vec<Token>,
}

impl State {
    /// With no tree, and nobody who waits.
    fn new(phase: Phase) -> Self {
        State {
            phase,
            tree: None,
            gofer: None,
            consoles: BTreeMap::new(),
            terminal: None,
            starter: None,
            ended: None,
            failure: None,
            doomed: false,
            destroyers: Vec::new(),
            pausers: Vec::new(),
        }
    }
}

/// A container.
pub struct Container {
    /// Its name.
    pub id: String,
    /// Signals without a handler are lost on its first process.
    shielded: bool,
    /// The sandbox ends after it.
    pub is_root: bool,
    /// What its processes see.
    pub ns: Namespaces,
    /// Its pseudo-terminals.
    pub ptys: Arc<Ptys>,
    /// What it may use and uses.
    pub usage: Usage,
    /// Whom its own shortage of memory has killed.
    pub oom: Oom,
    state: Mutex<State>,
    /// Its first process's id.
    init: AtomicI32,
    /// Woken when the first process may run.
    gate: WaitQueue,
    /// Its tasks are not to run.
    frozen: AtomicBool,
    /// Nobody is born in it any more.
    dying: AtomicBool,
    /// Processes that have not ended.
    live: AtomicUsize,
    /// `oom_score_adj` of what is executed into it.
    pub oom_score_adj: AtomicI32,
}

/// All containers of a kernel.
pub struct Containers {
    table: Mutex<BTreeMap<String, Arc<Container>>>,
    /// The first one is the sandbox's root container; how that ended, once it has been taken apart.
    root: Mutex<(bool, Option<ExitStatus>)>,
    /// Numbers of namespaces.
    pub numbers: Numbers,
}

impl Default for Containers {
    fn default() -> Self {
        Containers {
            table: Mutex::new(Level::Leaf, BTreeMap::new()),
            root: Mutex::new(Level::Leaf, (false, None)),
            numbers: Numbers::default(),
        }
    }
}

impl Containers {
    /// The container named `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.table.lock().get(id).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.table.lock().values().cloned().collect()
    }

    /// Adds a container; answers false where there is one of its name.
    fn add(&self, container: &Arc<Container>) -> bool {
        let mut table = self.table.lock();
        let free = !table.contains_key(&container.id);
        if free {
            table.insert(container.id.clone(), container.clone());
        }
        free
    }

    fn remove(&self, container: &Arc<Container>) {
        let removed = {
            let mut table = self.table.lock();
            let mine = table.get(&container.id).is_some_and(|c| Arc::ptr_eq(c, container));
            if mine { table.remove(&container.id) } else { None }
        };
        if removed.is_some_and(|c| c.is_root) {
            self.root.lock().1 = Some(container.status());
        }
    }

    /// Whether the container about to be made is the sandbox's root container.
    fn is_first(&self) -> bool {
        !std::mem::replace(&mut self.root.lock().0, true)
    }

    /// How the root container ended that has been taken apart.
    fn root_status(&self) -> Option<ExitStatus> {
        self.root.lock().1.clone()
    }
}

impl Container {
    fn new(spec: &ContainerSpec, is_root: bool, ns: Namespaces) -> Arc<Self> {
        let state = State::new(Phase::Creating);
        Arc::new(Container {
            id: spec.id.clone(),
            is_root,
            shielded: spec.shielded,
            ns,
            ptys: Arc::default(),
            usage: Usage::new(spec.limits),
            oom: Oom::default(),
            state: Mutex::new(Level::Leaf, state),
            init: AtomicI32::new(0),
            gate: WaitQueue::new(),
            frozen: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            oom_score_adj: AtomicI32::new(0),
        })
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.lock().phase.clone()
    }

    /// How it ended; a container that is taken apart before its end was killed.
    fn status(&self) -> ExitStatus {
        let state = self.state.lock();
        match (&state.phase, &state.failure) {
            (Phase::Stopped(status), _) | (_, Some(status)) => status.clone(),
            _ => ExitStatus::Signaled(libc::SIGKILL),
        }
    }

    /// Woken when the first process may run its program.
    fn gate(&self) -> &WaitQueue {
        &self.gate
    }

    /// One more process.
    pub fn process_born(&self) {
        self.live.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether nobody is to be born in it any more. Asked with the tree of processes locked.
    #[must_use]
    pub fn is_dying(&self, tree: &Tree) -> bool {
        tree.is_closed() || self.dying.load(Ordering::SeqCst)
    }

    /// Its first process's id.
    #[must_use]
    pub fn init(&self) -> i32 {
        self.init.load(Ordering::Relaxed)
    }

    /// The terminal behind /dev/console.
    #[must_use]
    pub fn terminal(&self) -> Option<Arc<Tty>> {
        self.state.lock().terminal.clone()
    }

    /// Its tasks, zombies included.
    #[must_use]
    pub fn tasks(self: &Arc<Self>) -> Vec<Arc<Task>> {
        let mut all = self.ns.pids.tasks();
        all.retain(|task| Arc::ptr_eq(task.container(), self));
        all
    }

    /// Its processes, zombies included.
    #[must_use]
    pub fn groups(self: &Arc<Self>) -> Vec<Arc<ThreadGroup>> {
        let mut all = self.ns.pids.groups();
        all.retain(|group| Arc::ptr_eq(&group.container, self));
        all
    }

    /// Whether the first process may run its program; the second is who waits for that.
    fn may_start(&self) -> Option<Option<Token>> {
        let mut state = self.state.lock();
        (state.phase == Phase::Running).then(|| state.starter.take())
    }

    /// Gives the first process the word.
    ///
    /// # Errors
    /// `EINVAL` where it has it already, or has ended.
    fn start(&self, starter: Token) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Created {
                return Err(Errno::EINVAL);
            }
            state.phase = Phase::Running;
            state.starter = Some(starter);
        }
        self.gate.wake(Events::IN);
        Ok(())
    }
}

impl Kernel {
    /// All tasks of all containers.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.pid_namespaces().iter().flat_map(|pids| pids.tasks()).collect()
    }

    /// All processes of all containers.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.pid_namespaces().iter().flat_map(|pids| pids.groups()).collect()
    }

    fn pid_namespaces(&self) -> Vec<Arc<crate::kernel::pids::PidTable>> {
        let mut all: Vec<_> = self.containers.all().iter().map(|c| c.ns.pids.clone()).collect();
        all.sort_by_key(|pids| pids.ino);
        all.dedup_by_key(|pids| pids.ino);
        all
    }
}
