//! Files in memory as saved state: the inodes, what directories have of their own, and which inodes below are changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use serde::{Deserialize, Serialize};

use super::dir::{Entries, Entry};
use super::node::Meta;
use super::{Limits, LowerFile, MemFile, Node, OVERLAY_MAGIC, Slot, TmpFs};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::fs::rofs::RofsInode;
use crate::mm::object::saved::ObjectState;
use crate::sync::{Level, Mutex};
use crate::vfs::{Caller, FileOps, FileType, Inode, OpenFlags};

/// [`TmpFs`].
#[derive(Serialize, Deserialize)]
pub struct TmpFsState {
    dev: u64,
    limits: Limits,
    next_ino: u64,
    /// Inodes of the image that were changed.
    changed: Vec<Id<NodeState>>,
    nodes: u64,
    used: u64,
    magic: u64,
}

/// An entry of a directory's own.
#[derive(Serialize, Deserialize)]
struct EntryState {
    name: Vec<u8>,
    node: Option<Id<NodeState>>,
    below: bool,
    cookie: u64,
}

/// [`Node`].
#[derive(Serialize, Deserialize)]
pub struct NodeState {
    fs: Id<TmpFsState>,
    ino: u64,
    kind: FileType,
    rdev: u64,
    /// The number of the image's inode that it shows.
    lower: Option<u64>,
    meta: Option<Meta>,
    content: Option<Id<ObjectState>>,
    target: Vec<u8>,
    entries: Vec<EntryState>,
    next_cookie: u64,
    charged: bool,
}

impl Object for TmpFs {
    type State = TmpFsState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<TmpFsState, Refused> {
        let TmpFs { dev, memory: _, limits, next_ino, tree: _, by_lower, nodes, used, magic } = &**self;
        let mut changed: Vec<Arc<Node>> = Vec::new();
        for slot in by_lower.lock().values() {
            match slot {
                // It is as the image has it.
                Slot::Unchanged(_) => {}
                Slot::Changed(node) => changed.push(node.clone()),
            }
        }
        changed.sort_by_key(|node| node.key.ino);
        Ok(TmpFsState {
            dev: *dev,
            limits: *limits,
            next_ino: next_ino.load(Ordering::Relaxed),
            changed: changed.iter().map(|node| saver.nodes.id(node)).collect(),
            nodes: nodes.load(Ordering::Relaxed),
            used: used.load(Ordering::Relaxed),
            magic: *magic,
        })
    }
}

impl TmpFsState {
    /// The file system, without inodes.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<TmpFs>, Unusable> {
        let level = if self.magic == OVERLAY_MAGIC { Level::Overlay } else { Level::FsTree };
        let fs = Arc::new(TmpFs {
            dev: self.dev,
            memory: restorer.kernel.memory.clone(),
            limits: self.limits,
            next_ino: AtomicU64::new(self.next_ino),
            tree: Mutex::new(level, ()),
            by_lower: Mutex::new(Level::Leaf, HashMap::new()),
            nodes: AtomicU64::new(self.nodes),
            used: AtomicU64::new(self.used),
            magic: self.magic,
        });
        let (changed, linked) = (self.changed, fs.clone());
        restorer.later.push(Box::new(move |restorer| {
            for id in changed {
                let node = restorer.node(id)?;
                let lower = node.lower.as_ref().ok_or(Unusable::Corrupt("a changed inode"))?;
                let key = lower.attr().key;
                let old = linked.by_lower.lock().insert(key, Slot::Changed(node));
                drop(old);
            }
            Ok(())
        }));
        Ok(fs)
    }
}

impl Object for Node {
    type State = NodeState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<NodeState, Refused> {
        let Node { myself: _, fs, key, kind, rdev, lower, meta, content, writing: _, target, entries, charged } =
            &**self;
        let lower = match lower {
            None => None,
            Some(lower) => {
                let file = lower.as_any().downcast_ref::<RofsInode>();
                let file = file.ok_or_else(|| Refused::new("an overlay over something else than the image"))?;
                Some(file.nid())
            }
        };
        let entries = entries.lock();
        let Entries { map, by_cookie: _, next_cookie } = &*entries;
        let mut states: Vec<EntryState> = Vec::with_capacity(map.len());
        for (name, Entry { node, below, cookie }) in map {
            let node = node.as_ref().map(|node| saver.nodes.id(node));
            states.push(EntryState { name: name.clone(), node, below: *below, cookie: *cookie });
        }
        states.sort_by_key(|entry| entry.cookie);
        let meta = meta.lock().clone();
        Ok(NodeState {
            fs: saver.tmpfs.id(fs),
            ino: key.ino,
            kind: *kind,
            rdev: *rdev,
            lower,
            meta,
            content: content.get().map(|object| saver.objects.id(object)),
            target: target.clone(),
            entries: states,
            next_cookie: *next_cookie,
            charged: *charged,
        })
    }
}

impl NodeState {
    /// The inode, without what lies in it; that follows.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Node>, Unusable> {
        let fs = restorer.tmp_fs(self.fs)?;
        let lower = match self.lower {
            Some(nid) => Some(restorer.image()?.inode(nid).map_err(Unusable::step("an inode of the image"))?),
            None => None,
        };
        let content = self.content.map(|id| restorer.object(id)).transpose()?;
        if self.kind == FileType::Regular && content.is_none() && lower.is_none() {
            return Err(Unusable::Corrupt("a file without content"));
        }
        let shown = lower.as_ref().map(|lower| lower.attr().key);
        let lower = lower.map(|lower| lower as Arc<dyn Inode>);
        let node = Arc::new_cyclic(|myself| {
            let mut node = Node::build(myself.clone(), &fs, self.ino, self.kind, lower, self.charged);
            node.rdev = self.rdev;
            *node.meta.get_mut() = self.meta;
            if let Some(content) = content {
                let _ = node.content.set(content);
            }
            node.target = self.target;
            node
        });
        if let Some(key) = shown {
            let old = fs.by_lower.lock().insert(key, Slot::Unchanged(Arc::downgrade(&node)));
            drop(old);
        }
        let (entries, next_cookie, directory) = (self.entries, self.next_cookie, node.clone());
        restorer.later.push(Box::new(move |restorer| {
            for EntryState { name, node, below, cookie } in entries {
                let node = node.map(|id| restorer.node(id)).transpose()?;
                let mut own = directory.entries.lock();
                if !below {
                    own.by_cookie.insert(cookie, name.clone());
                }
                own.map.insert(name, Entry { node, below, cookie });
            }
            directory.entries.lock().next_cookie = next_cookie;
            Ok(())
        }));
        Ok(node)
    }
}

impl Node {
    /// What an open file does that reads what lies below until it is changed.
    ///
    /// # Errors
    /// `EINVAL` where nothing lies below.
    pub fn open_lower(self: &Arc<Self>, caller: &Caller<'_>) -> Result<Arc<dyn FileOps>, Errno> {
        let lower = self.lower.clone().ok_or(Errno::EINVAL)?;
        let lower = lower.open(caller, OpenFlags::empty())?;
        Ok(Arc::new(LowerFile { node: self.clone(), lower }))
    }

    /// What an open file with content of its own does.
    ///
    /// # Errors
    /// `EINVAL` where it has none.
    pub fn open_memory(self: &Arc<Self>, strips: bool) -> Result<Arc<dyn FileOps>, Errno> {
        self.content.get().ok_or(Errno::EINVAL)?;
        Ok(Arc::new(MemFile::new(self.clone(), strips)))
    }

    /// The inode below that it shows, if there is one.
    #[must_use]
    pub fn shown(&self) -> Option<&Arc<dyn Inode>> {
        self.lower.as_ref()
    }

    /// Itself, counted.
    #[must_use]
    pub fn this(&self) -> Option<Arc<Node>> {
        self.myself.upgrade()
    }

    /// The file system it lies in.
    #[must_use]
    pub fn file_system(&self) -> &Arc<TmpFs> {
        &self.fs
    }
}
