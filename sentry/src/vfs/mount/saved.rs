//! Mounts and mounted file systems as saved state.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Mount, MountFlags, SuperBlock};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::fs::gofer::GoferInode;
use crate::fs::gofer::saved::TreeState;
use crate::fs::tmpfs::saved::{NodeState, TmpFsState};
use crate::fs::{proc, sys, tty};
use crate::vfs::file::saved::node_of;
use crate::vfs::saved::{DentryState, PathState};

/// What kind of file system it is, and what it needs to be made again.
#[derive(Serialize, Deserialize)]
enum Content {
    /// Files in memory, or the overlay: the root directory.
    Memory(Id<TmpFsState>, Id<NodeState>),
    Proc,
    Sys,
    Pts,
    Gofer(TreeState),
    /// The hidden one of anonymous files.
    Anonymous,
}

/// [`SuperBlock`].
#[derive(Serialize, Deserialize)]
pub struct SuperState {
    content: Content,
    fstype: String,
    source: Vec<u8>,
    options: String,
    dev: u64,
    readonly: bool,
}

/// Types of file systems in memory, as mounts show them.
const MEMORY_TYPES: [&str; 5] = ["tmpfs", "overlay", "devtmpfs", "ramfs", "mqueue"];

impl SuperBlock {
    fn met(self: &Arc<Self>, saver: &mut Saver) -> Id<SuperState> {
        let id = saver.supers.id(self);
        saver.roots.insert(Arc::as_ptr(&self.root) as usize, id);
        id
    }
}

impl Object for SuperBlock {
    type State = SuperState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<SuperState, Refused> {
        let SuperBlock { fstype, source, options, dev, readonly, root, on_drop: _ } = &**self;
        let anonymous = Arc::ptr_eq(self, &saver.kernel.vfs.anon.sb);
        let content = match (*fstype, node_of(root.inode())) {
            _ if anonymous => Content::Anonymous,
            (kind, Some(node)) if MEMORY_TYPES.contains(&kind) => {
                Content::Memory(saver.tmpfs.id(node.file_system()), saver.nodes.id(&node))
            }
            ("proc", _) => Content::Proc,
            ("sysfs", _) => Content::Sys,
            ("devpts", _) => Content::Pts,
            ("gofer", _) => {
                let root = GoferInode::inode_of(root.inode());
                Content::Gofer(root.ok_or_else(|| Refused::new("a host directory"))?.tree())
            }
            (other, _) => return Err(Refused::new(format!("a mounted file system of type {other}"))),
        };
        let (source, options) = (source.clone(), options.clone());
        Ok(SuperState { content, fstype: (*fstype).to_owned(), source, options, dev: *dev, readonly: *readonly })
    }
}

impl SuperState {
    /// The file system.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<SuperBlock>, Unusable> {
        let kernel = restorer.kernel.clone();
        if let Content::Anonymous = self.content {
            return Ok(kernel.vfs.anon.sb.clone());
        }
        let made = match self.content {
            Content::Memory(fs, root) => {
                let fstype = MEMORY_TYPES.into_iter().find(|t| *t == self.fstype);
                let fstype = fstype.ok_or(Unusable::Corrupt("a file system's type"))?;
                let (fs, root) = (restorer.tmp_fs(fs)?, restorer.node(root)?);
                let sb = SuperBlock::new(fstype, &self.source, self.options, self.readonly, root);
                if fstype == "overlay" { sb.on_drop(move || fs.forget_all()) } else { sb }
            }
            content => {
                kernel.vfs.expect_dev(self.dev);
                match content {
                    Content::Proc => proc::mount(&kernel, &restorer.container.ns),
                    Content::Gofer(tree) => tree.restore(&self.source, restorer)?,
                    Content::Sys => sys::mount(&kernel),
                    _ => tty::devpts::mount(&kernel, &restorer.container.ptys),
                }
            }
        };
        if made.dev != self.dev {
            return Err(Unusable::Corrupt("a file system's device number"));
        }
        Ok(Arc::new(made))
    }
}

/// [`Mount`].
#[derive(Serialize, Deserialize)]
pub struct MountState {
    id: u32,
    root: Id<DentryState>,
    sb: Id<SuperState>,
    flags: u32,
    place: Option<PathState>,
    anonymous: bool,
}

impl Mount {
    /// Its place in the table; its file system's root is known then.
    pub fn met(self: &Arc<Self>, saver: &mut Saver) -> Id<MountState> {
        self.sb.met(saver);
        saver.mounts.id(self)
    }
}

impl Object for Mount {
    type State = MountState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<MountState, Refused> {
        let Mount { id, root, sb, watches: _, flags, place } = &**self;
        let place = place.lock().clone();
        Ok(MountState {
            id: *id,
            root: root.met(saver),
            sb: sb.met(saver),
            flags: flags.load(Ordering::Relaxed),
            place: place.map(|place| place.save(saver)),
            anonymous: Arc::ptr_eq(self, &saver.kernel.vfs.anon),
        })
    }
}

impl MountState {
    /// The mount, attached where it was; for the root that is nowhere.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Mount>, Unusable> {
        let kernel = restorer.kernel.clone();
        if self.anonymous {
            return Ok(kernel.vfs.anon.clone());
        }
        let sb = restorer.super_block(self.sb)?;
        let root = restorer.dentry(self.root)?;
        let flags = MountFlags::from_bits_truncate(self.flags);
        let mount = kernel.vfs.mounts.detached_as(self.id, sb, root, flags);
        if let Some(place) = self.place {
            let place = place.restore(restorer)?;
            kernel.vfs.mounts.attach(&mount, place).map_err(Unusable::step("a mount"))?;
        }
        Ok(mount)
    }
}
