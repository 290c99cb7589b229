//! Inotify instances as saved state: watches by inode, and the events that wait.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::{Inotify, MAX_QUEUED, MAX_WATCHES, Queued, State};
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::tmpfs::saved::NodeState;
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};
use crate::vfs::file::saved::node_of;
use crate::vfs::notify::{Watch, Watcher};
use crate::vfs::{FileOps, Inode};

/// [`Inotify`].
#[derive(Serialize, Deserialize)]
pub struct InotifyState {
    watches: Vec<(i32, u32, Id<NodeState>)>,
    last_wd: i32,
    events: VecDeque<Queued>,
}

impl Inotify {
    /// Its state.
    ///
    /// # Errors
    /// A watch on what is not in memory or in the image.
    pub(super) fn state(&self, saver: &mut Saver) -> Result<InotifyState, Refused> {
        let Inotify { myself: _, state, queue: _, watches: _, usage: _ } = self;
        let state = state.lock();
        let State { watches, last_wd, events } = &*state;
        let mut saved = Vec::with_capacity(watches.len());
        for (wd, (watch, mask)) in watches {
            let node = node_of(&watch.inode);
            let node =
                node.ok_or_else(|| Refused::new(format!("inotify watch {wd}, on a file that the kernel makes up")))?;
            saved.push((*wd, *mask, saver.nodes.id(&node)));
        }
        Ok(InotifyState { watches: saved, last_wd: *last_wd, events: events.clone() })
    }
}

impl InotifyState {
    /// The instance. It hears of what happens from the start of the restored kernel on.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<dyn FileOps>, Unusable> {
        let InotifyState { watches, last_wd, events } = self;
        let (all, usage) = (restorer.kernel.vfs.mounts.watches.clone(), restorer.kernel.vfs.inotify.clone());
        let sound = |(wd, ..): &(i32, u32, _)| (1..=last_wd).contains(wd);
        // One more says that some were lost.
        if watches.len() > MAX_WATCHES || events.len() > MAX_QUEUED + 1 || !watches.iter().all(sound) {
            return Err(Unusable::Corrupt("an inotify instance"));
        }
        usage.instances.fetch_add(1, Ordering::Relaxed);
        usage.bytes.fetch_add(events.iter().map(Queued::cost).sum(), Ordering::Relaxed);
        let state = State { last_wd, events, ..State::default() };
        let instance = Arc::new_cyclic(|myself| Inotify {
            myself: myself.clone(),
            state: Mutex::new(Level::Leaf, state),
            queue: WaitQueue::new(),
            watches: all,
            usage,
        });
        let linked = instance.clone();
        restorer.later.push(Box::new(move |restorer| {
            for (wd, mask, node) in watches {
                let inode: Arc<dyn Inode> = restorer.node(node)?;
                let watcher: Weak<dyn Watcher> = linked.myself.clone();
                let watch = Arc::new(Watch { key: inode.attr().key, inode, wd, watcher });
                linked.state.lock().watches.insert(wd, (watch.clone(), mask));
                linked.watches.add(watch);
            }
            Ok(())
        }));
        Ok(instance)
    }
}
