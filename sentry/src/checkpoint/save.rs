//! Saving: from a kernel that stands still to two files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use snapshot::{Kind, Writer, encode};

use crate::checkpoint::features::Features;
use crate::checkpoint::resources::{ImageIdentity, Resources};
use crate::checkpoint::state::{ClockState, KernelState};
use crate::checkpoint::{Failure, Refused, Saver};
use crate::fs::anon;
use crate::fs::gofer::GoferInode;
use crate::fs::rofs::{RofsFs, RofsInode};
use crate::fs::tmpfs::Node;
use crate::kernel::{Kernel, random};

/// Where a snapshot is written: files that were handed over at boot.
pub struct Destination {
    /// The state file.
    pub state: File,
    /// The pages file.
    pub pages: File,
    /// Whether the sandbox ends when it is written.
    pub stop_after: bool,
}

impl Destination {
    /// Writes the kernel, which stands still.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn save(&self, kernel: &Arc<Kernel>) -> Result<(), Failure> {
        let begun = kernel.clock.monotonic();
        let mut saver = Saver::new(kernel);
        let state = kernel.save(&mut saver)?;
        let mut id = [0; 16];
        random::fill(&mut id);
        let mut writer = Writer::new(id);
        let features = Features::of_host(&*kernel.platform);
        writer.section(Kind::Features, encode(Kind::Features, &features)?);
        let resources = Resources { image: image_of(kernel)?.as_deref().map(ImageIdentity::of) };
        writer.section(Kind::Resources, encode(Kind::Resources, &resources)?);
        writer.section(Kind::Kernel, encode(Kind::Kernel, &state)?);
        saver.pages.write(&self.pages, id)?;
        self.state.set_len(0)?;
        let mut out = BufWriter::new(&self.state);
        writer.finish(&mut out)?;
        out.flush()?;
        drop(out);
        let took = kernel.clock.monotonic().saturating_sub(begun) / 1000;
        log::debug!("checkpoint: {} bytes of pages, paused for {took} us", saver.pages.len());
        Ok(())
    }
}

/// The image below the root; none below a host directory.
fn image_of(kernel: &Kernel) -> Result<Option<Arc<RofsFs>>, Refused> {
    let containers = kernel.containers.all();
    let mounts = containers.first().and_then(|container| container.mounts());
    let root = mounts.map(|mounts| mounts.root().sb.root.inode().clone());
    if root.as_ref().and_then(GoferInode::inode_of).is_some() {
        return Ok(None);
    }
    let node = root.as_ref().and_then(|inode| inode.as_any().downcast_ref::<Node>());
    let lower = node.and_then(Node::shown).and_then(|inode| {
        let file = inode.as_any().downcast_ref::<RofsInode>();
        file.map(RofsInode::file_system)
    });
    lower.map(Some).ok_or_else(|| Refused::new("a root that is neither one image nor a host directory"))
}

impl Kernel {
    /// The state of everything.
    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<KernelState, Refused> {
        let Kernel {
            platform: _,
            memory: _,
            clock,
            reactor: _,
            // Deadlines belong to who waits.
            timers: _,
            sched: _,
            containers,
            // Given anew.
            outside: _,
            // Counters of calls.
            syscalls: _,
            // Given anew.
            options: _,
            chaos: _,
            vdso,
            vfs,
            // What it reads for a waiting call is asked for again.
            io: _,
            devices: _,
            file_locks,
            memfds,
            fifos,
            // Names are saved with the sockets.
            unix: _,
            consoles,
            // Waiters belong to who waits.
            futexes: _,
            sessions,
            // Counted again.
            queued_signals: _,
            oom: _,
            checkpoints: _,
            exit: _,
            tick: _,
        } = &**self;
        let locks = file_locks.save()?;
        let container = containers.save(saver)?;
        let consoles = consoles.lock().iter().map(|console| saver.ttys.id(console.tty())).collect();
        self.tasks().iter().for_each(|task| {
            let _ = saver.tasks.id(task);
        });
        let attached = vfs.mounts.all().iter().map(|mount| mount.met(saver)).collect();
        let vdso = vdso.object().map(|object| saver.objects.id(&object));
        let memfds = memfds.get().map(|fs| saver.tmpfs.id(fs));
        let fifos: Vec<_> = fifos.open_pipes().iter().map(|(key, pipe)| (*key, saver.pipes.id(pipe))).collect();
        let sessions = sessions.save(saver)?;
        saver.drain()?;
        macro_rules! tables {
            ($($name:ident),*) => {{
                $(let $name = std::mem::take(&mut saver.$name).finish();)*
                KernelState {
                    clock: ClockState { monotonic: clock.monotonic(), boot: clock.boot_time() },
                    container,
                    vdso,
                    memfds,
                    next_dev: vfs.devices(),
                    next_mount: vfs.mounts.next_id(),
                    next_anon_inode: anon::next_ino(),
                    attached,
                    sessions,
                    consoles,
                    fifos,
                    locks,
                    $($name),*
                }
            }};
        }
        Ok(tables!(
            tasks,
            groups,
            actions,
            vforks,
            mms,
            objects,
            fd_tables,
            fs_contexts,
            files,
            ops,
            supers,
            mounts,
            dentries,
            tmpfs,
            nodes,
            pipes,
            sockets,
            undo_lists,
            mount_spaces,
            ttys,
            segments,
            sem_sets,
            msg_queues,
            mqs
        ))
    }
}
