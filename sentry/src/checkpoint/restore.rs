//! Restoring: checks first, then all objects, then the links between them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::UserAddr;
use memory::MemoryFile;
use platform::Platform;
use snapshot::{Kind, Reader, decode};

use crate::checkpoint::features::Features;
use crate::checkpoint::pages;
use crate::checkpoint::resources::{Given, HostTerminal, Resources};
use crate::checkpoint::service::{Identity, Origin};
use crate::checkpoint::state::KernelState;
use crate::checkpoint::{Id, Restorer, Unusable};
use crate::fs::gofer::Connection;
use crate::fs::rofs::RofsFs;
use crate::fs::tty::saved::TtyState;
use crate::fs::{anon, tty};
use crate::kernel::clock::Clock;
use crate::kernel::task::{Run, Task, Tid};
use crate::kernel::{Kernel, Options, random};
use crate::mm::Mm;

/// A snapshot and what it needs from the host.
pub struct Source {
    /// The state file's bytes.
    pub state: Vec<u8>,
    /// The pages file.
    pub pages: File,
    /// The root image, where the root is one.
    pub image: Option<File>,
    /// The gofer, where it serves host directories.
    pub gofer: Option<OwnedFd>,
    /// Standard streams.
    pub streams: [Option<OwnedFd>; 3],
    /// The first process's terminal, with its rows and columns.
    pub terminal: Option<HostTerminal>,
    /// Stands for descriptors of the host that nobody gives anew: streams of processes that were executed from outside.
    pub null: OwnedFd,
}

/// What is the new sandbox's own.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// A copy of a template in memory, not a restore of a snapshot on disk.
    pub forked: bool,
    /// The container's name outside; `None` leaves the old one.
    pub name: Option<String>,
    /// Host name; `None` leaves the old one.
    pub hostname: Option<Vec<u8>>,
    /// A new /etc/machine-id.
    pub machine_id: bool,
    /// What `instance.json` tells besides: a JSON object.
    pub metadata: Option<String>,
}

/// A kernel as it was saved, as another instance; its tasks are parked.
///
/// # Errors
/// See [`Unusable`].
pub fn restore(
    platform: Arc<dyn Platform>,
    memory: Arc<MemoryFile>,
    options: Options,
    source: Source,
    instance: &Instance,
) -> Result<Arc<Kernel>, Unusable> {
    let reader = Reader::new(&source.state)?;
    let features: Features = decode(Kind::Features, reader.section(Kind::Features)?)?;
    features.check(&Features::of_host(&*platform))?;
    let resources: Resources = decode(Kind::Resources, reader.section(Kind::Resources)?)?;
    let mut state: KernelState = decode(Kind::Kernel, reader.section(Kind::Kernel)?)?;
    let frames = pages::map(source.pages, reader.id())?;
    let clock = Clock::resumed(state.clock.monotonic, state.clock.boot);
    let kernel = Kernel::with_clock(platform, memory, options, clock)?;
    let image = source.image.map(|image| RofsFs::open(&kernel.vfs, &kernel.memory, image)).transpose();
    let image = image.map_err(|e| Unusable::Resource(format!("its image: {e}")))?;
    resources.check(image.as_deref())?;
    let gofer = source.gofer.map(|socket| Connection::new(&kernel, socket)).transpose();
    let gofer = gofer.map_err(|e| Unusable::Resource(format!("a gofer: {e}")))?;
    let origin = if instance.forked { Origin::Forked } else { Origin::Restored };
    kernel.checkpoints.set_identity(Identity::new(origin));
    tty::device::register(&kernel);
    let container = state.container.restore(&kernel, instance);
    let given = Given::new(source.streams, source.terminal, source.null);
    let mut restorer = Restorer::new(&kernel, &mut state, frames, image, gofer, given, container.clone());
    restorer.run(state)?;
    instance.introduce(&kernel, &container)?;
    Ok(kernel)
}

impl Restorer {
    fn run(&mut self, state: KernelState) -> Result<(), Unusable> {
        let kernel = self.kernel.clone();
        state.locks.restore(&kernel.file_locks)?;
        // Names in devpts are those of the terminals that there are.
        for id in self.ttys.ids() {
            self.tty(id)?;
        }
        self.top = Some(self.mount_space(state.container.mounts)?.root());
        self.restore_tasks()?;
        // Parents come first, so that nothing nests deeply.
        for id in self.dentries.ids() {
            self.dentry(id)?;
        }
        for id in self.mounts.ids() {
            self.mount(id)?;
        }
        kernel.vfs.set_devices(state.next_dev);
        anon::skip_inos(state.next_anon_inode);
        for (key, pipe) in &state.fifos {
            kernel.fifos.put(*key, &self.pipe(*pipe)?);
        }
        if let Some(fs) = state.memfds {
            let _ = kernel.memfds.set(self.tmp_fs(fs)?);
        }
        self.link()?;
        self.container.clone().settle(state.container, self)?;
        self.link()?;
        let waiters = std::mem::take(&mut self.waiters);
        kernel.futexes.line_up(waiters);
        for session in state.sessions {
            session.restore(self)?;
        }
        self.abandon(state.consoles)?;
        if let Some(id) = state.vdso {
            let object = self.object(id)?;
            kernel.vdso.adopt(&kernel, object).map_err(Unusable::step("the vDSO"))?;
        }
        if let Some(mut gofer) = self.gofer.take() {
            // From here on nobody waits for it on a thread.
            gofer.drive(&kernel)?;
            self.container.set_gofer(gofer);
        }
        self.mms.ids().filter_map(|id| self.mms.made(id)).for_each(|mm| refresh_random(&mm));
        Ok(())
    }

    /// All tasks and processes, findable by their ids.
    fn restore_tasks(&mut self) -> Result<(), Unusable> {
        let pids = self.container.ns.pids.clone();
        let tasks = self.tasks.ids().map(|id| self.task(id)).collect::<Result<Vec<Arc<Task>>, _>>()?;
        let mut tree = pids.tree();
        for task in &tasks {
            if tree.task(task.tid).is_some() || task.tid.0 <= 0 {
                return Err(Unusable::Corrupt("a thread id"));
            }
            tree.add(task);
        }
        if tree.group(Tid(1)).is_none() {
            return Err(Unusable::Corrupt("no first process"));
        }
        Ok(())
    }

    /// Whoever sat at these terminals is not there any more, unless somebody else sits there now.
    fn abandon(&mut self, consoles: Vec<Id<TtyState>>) -> Result<(), Unusable> {
        for id in consoles {
            let tty = self.tty(id)?;
            let relayed = self.kernel.consoles.lock().iter().any(|console| Arc::ptr_eq(console.tty(), &tty));
            if !relayed {
                tty.abandon();
            }
        }
        Ok(())
    }

    /// Makes all links; what a link builds may need more of them.
    fn link(&mut self) -> Result<(), Unusable> {
        while !self.later.is_empty() {
            for step in std::mem::take(&mut self.later) {
                step(self)?;
            }
        }
        Ok(())
    }
}

/// `AT_RANDOM` (`getauxval(3)`).
const AT_RANDOM: u64 = 25;

/// New bytes where the program found its own at its start: two instances share no secret that is taken from there
/// later. What was taken before (a canary, a hash seed) is the program's own affair.
fn refresh_random(mm: &Mm) {
    let auxv = mm.program().auxv;
    let (pairs, _) = auxv.as_chunks::<2>();
    if let Some([_, at]) = pairs.iter().find(|[kind, _]| *kind == AT_RANDOM) {
        let mut bytes = [0; 16];
        random::fill(&mut bytes);
        // A program that has unmapped its stack has no use for them.
        let _ = mm.write_bytes(UserAddr(*at), &bytes);
    }
}

/// Lets all tasks of a restored kernel look around: who waits enlists again, who ran goes on.
pub(crate) fn start(kernel: &Arc<Kernel>) {
    let tasks = kernel.tasks();
    tasks.iter().filter(|task| task.run.get() != Run::Dead).for_each(|task| task.notify());
}
