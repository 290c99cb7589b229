//! A sandbox's container as saved state. There may be one only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::limits::saved::UsageState;
use super::{Container, Containers, Namespaces, Phase, State, Uts, UtsNs};
use crate::checkpoint::{Bytes, Id, Instance, Refused, Restorer, Saver, Unusable};
use crate::fs::gofer::Connection;
use crate::fs::tty::console::Console;
use crate::fs::tty::saved::TtyState;
use crate::ipc::Ipc;
use crate::ipc::saved::IpcState;
use crate::kernel::Kernel;
use crate::kernel::oom::Oom;
use crate::kernel::pids::PidTable;
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};
use crate::vfs::mount_ns::MountNs;
use crate::vfs::mount_ns::saved::MountNsState;
use crate::vfs::saved::FsContextState;

/// [`Namespaces`].
#[derive(Serialize, Deserialize)]
struct NamespacesState {
    pids: u32,
    last_pid: i32,
    pids_wrapped: bool,
    ever_stopped: bool,
    ipc: IpcState,
    uts: u32,
    hostname: Bytes,
    domainname: Bytes,
    net: u32,
    cgroup: u32,
}

/// [`Container`].
#[derive(Serialize, Deserialize)]
pub struct ContainerState {
    id: String,
    ns: NamespacesState,
    usage: UsageState,
    init: i32,
    oom_score_adj: i32,
    shielded: bool,
    pub(crate) tree: FsContextState,
    /// The terminal of its first process, relayed to somebody outside.
    terminal: Option<Id<TtyState>>,
    /// Its mounts.
    pub(crate) mounts: Id<MountNsState>,
    /// How many numbers of namespaces were given out.
    numbers: u32,
}

impl Containers {
    /// The one container, for saved state.
    ///
    /// # Errors
    /// There are others, or it is being made or taken apart.
    pub fn save(&self, saver: &mut Saver) -> Result<ContainerState, Refused> {
        // Whether the first one was made, and how it ended: it has not.
        let Containers { table: _, root: _, numbers } = self;
        let all = self.all();
        let [container] = all.as_slice() else {
            return Err(Refused::because("a sandbox of several containers", format!("there are {}", all.len())));
        };
        let numbers = numbers.given();
        let Container {
            id,
            is_root,
            ns,
            usage,
            state,
            init,
            gate: _,
            // A restored one runs.
            frozen: _,
            // A container that is going is not saved.
            dying: _,
            live: _,
            oom_score_adj,
            shielded,
            ptys,
            // Whom it has killed is gone.
            oom: _,
        } = &**container;
        let ptys = ptys.indices().into_iter().filter_map(|index| ptys.get(index)).collect::<Vec<_>>();
        ptys.iter().for_each(|tty| {
            let _ = saver.ttys.id(tty);
        });
        if !is_root {
            return Err(Refused::new(format!("container {id} without the sandbox's first one")));
        }
        let (tree, terminal) = {
            let State {
                phase,
                tree,
                // Given anew.
                gofer: _,
                consoles,
                terminal,
                starter: _,
                ended: _,
                failure: _,
                doomed,
                destroyers: _,
                // They are told when it is over.
                pausers: _,
            } = &*state.lock();
            if *phase != Phase::Running || *doomed {
                return Err(Refused::new(format!("container {id} that does not run")));
            }
            let tree = tree.clone().ok_or_else(|| Refused::new(format!("container {id} that is going")))?;
            // A console whose process has ended only writes its last words.
            let live =
                consoles.values().any(|console| terminal.as_ref().is_some_and(|t| Arc::ptr_eq(t, console.tty())));
            (tree, terminal.clone().filter(|_| live))
        };
        let mounts = tree.ns.as_ref().ok_or_else(|| Refused::new("a container without mounts"))?;
        Ok(ContainerState {
            id: id.clone(),
            ns: ns.save(saver),
            usage: usage.save(),
            init: init.load(Ordering::Relaxed),
            oom_score_adj: oom_score_adj.load(Ordering::Relaxed),
            shielded: *shielded,
            mounts: saver.mount_spaces.id(mounts),
            tree: tree.save(saver),
            terminal: terminal.map(|tty| saver.ttys.id(&tty)),
            numbers,
        })
    }
}

impl Namespaces {
    fn save(&self, saver: &mut Saver) -> NamespacesState {
        let Namespaces { pids, ipc, uts, net, cgroup } = self;
        let UtsNs { ino, names } = &**uts;
        let Uts { hostname, domainname } = names.lock().clone();
        let (last_pid, pids_wrapped) = pids.tree().counter();
        NamespacesState {
            pids: pids.ino,
            last_pid,
            pids_wrapped,
            ever_stopped: pids.ever_stopped.load(Ordering::SeqCst),
            ipc: ipc.save(saver),
            uts: *ino,
            hostname: Bytes(hostname),
            domainname: Bytes(domainname),
            net: *net,
            cgroup: *cgroup,
        }
    }
}

impl NamespacesState {
    fn restore(&self) -> Namespaces {
        let pids = PidTable::new(self.pids);
        pids.tree().set_counter((self.last_pid, self.pids_wrapped));
        pids.ever_stopped.store(self.ever_stopped, Ordering::SeqCst);
        let names = Uts { hostname: self.hostname.0.clone(), domainname: self.domainname.0.clone() };
        Namespaces {
            pids: Arc::new(pids),
            ipc: Arc::new(Ipc::new(self.ipc.ino())),
            uts: Arc::new(UtsNs { ino: self.uts, names: Mutex::new(Level::Leaf, names) }),
            net: self.net,
            cgroup: self.cgroup,
        }
    }
}

impl ContainerState {
    /// The container, which is the root container of `kernel` from now on; its tree follows.
    #[must_use]
    pub fn restore(&self, kernel: &Kernel, instance: &Instance) -> Arc<Container> {
        kernel.containers.numbers.go_on(self.numbers);
        let container = Arc::new(Container {
            id: instance.name.clone().unwrap_or_else(|| self.id.clone()),
            is_root: kernel.containers.is_first(),
            ns: self.ns.restore(),
            usage: self.usage.restore(),
            state: Mutex::new(Level::Leaf, State::new(Phase::Running)),
            init: AtomicI32::new(self.init),
            gate: WaitQueue::new(),
            frozen: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            oom_score_adj: AtomicI32::new(self.oom_score_adj),
            shielded: self.shielded,
            ptys: Arc::default(),
            oom: Oom::default(),
        });
        if let Some(name) = &instance.hostname {
            container.ns.uts.names.lock().hostname.clone_from(name);
        }
        kernel.containers.add(&container);
        container
    }
}

impl Container {
    /// Where the processes of a restored container begin, and how many of them live.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn settle(self: &Arc<Self>, state: ContainerState, restorer: &mut Restorer) -> Result<(), Unusable> {
        let tree = state.tree.restore_state(restorer)?;
        self.state.lock().tree = Some(tree);
        state.ns.ipc.restore(&self.ns.ipc, restorer)?;
        if let Some(id) = state.terminal {
            let (tty, (host, size)) = (restorer.tty(id)?, restorer.given.terminal()?);
            let console = Console::again(&restorer.kernel, tty.clone(), host, size)?;
            let mut to = self.state.lock();
            to.terminal = Some(tty);
            to.consoles.insert(state.init, console);
        }
        let live = self.groups().iter().filter(|group| !group.is_zombie()).count();
        self.live.store(live, Ordering::SeqCst);
        Ok(())
    }

    /// It is served by `gofer` from now on.
    pub fn set_gofer(&self, gofer: Connection) {
        self.state.lock().gofer = Some(gofer);
    }

    /// The mounts of its tree.
    #[must_use]
    pub fn mounts(&self) -> Option<Arc<MountNs>> {
        self.state.lock().tree.as_ref().and_then(|tree| tree.ns.clone())
    }
}
