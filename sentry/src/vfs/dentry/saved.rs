//! Names as saved state. A name whose inode is in memory is saved with it; any other is looked up again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Dentry, Place};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::fs::gofer::GoferInode;
use crate::fs::gofer::saved::FileIdentity;
use crate::fs::gone::Gone;
use crate::fs::tmpfs::saved::NodeState;
use crate::vfs::file::saved::node_of;
use crate::vfs::inode::Inode;
use crate::vfs::mount::saved::SuperState;

/// [`Dentry`]. Parents come before children.
#[derive(Serialize, Deserialize)]
pub enum DentryState {
    /// The root of a file system.
    Root(Id<SuperState>),
    /// A name of an inode in memory, or of one that had one.
    Node {
        /// The inode.
        node: Id<NodeState>,
        /// The directory.
        parent: Option<Id<DentryState>>,
        /// The name.
        name: Vec<u8>,
        /// The name was removed.
        deleted: bool,
        /// `O_TMPFILE`.
        linkable: bool,
    },
    /// A name that is looked up again.
    Name {
        /// The directory.
        parent: Id<DentryState>,
        /// The name.
        name: Vec<u8>,
        /// Which file of a host directory it was.
        file: Option<FileIdentity>,
    },
}

impl Dentry {
    /// Its place in the table, its parents before it.
    pub fn met(self: &Arc<Self>, saver: &mut Saver) -> Id<DentryState> {
        let mut chain = Vec::new();
        let mut at = Some(self.clone());
        while let Some(dentry) = at.filter(|d| saver.dentries.known(d).is_none()) {
            at = dentry.parent();
            chain.push(dentry);
        }
        for dentry in chain.iter().rev() {
            let _ = saver.dentries.id(dentry);
        }
        saver.dentries.id(self)
    }
}

impl Object for Dentry {
    type State = DentryState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<DentryState, Refused> {
        let Dentry {
            inode,
            place,
            // Found again: children by lookups, counts by those who count.
            children: _,
            mounts: _,
            opens: _,
            referenced: _,
            kept: _,
            linkable,
        } = &**self;
        if let Some(sb) = saver.roots.get(&(Arc::as_ptr(self) as usize)) {
            return Ok(DentryState::Root(*sb));
        }
        let (parent, name, deleted) = {
            let Place { parent, name, deleted } = &*place.lock();
            (parent.clone(), name.clone(), *deleted)
        };
        let parent = parent.as_ref().map(|parent| parent.met(saver));
        if let Some(node) = node_of(inode) {
            let linkable = linkable.load(Ordering::Relaxed);
            return Ok(DentryState::Node { node: saver.nodes.id(&node), parent, name, deleted, linkable });
        }
        let served = GoferInode::inode_of(inode);
        if served.is_some() && deleted {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(Refused::because(format!("the file {name} of a host directory"), "it has been deleted"));
        }
        match parent {
            Some(parent) => Ok(DentryState::Name { parent, name, file: served.map(GoferInode::identity) }),
            None => Err(Refused::new(format!("the place {}", String::from_utf8_lossy(&name)))),
        }
    }
}

impl DentryState {
    /// The name.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<Dentry>, Unusable> {
        match self {
            DentryState::Root(sb) => Ok(restorer.super_block(sb)?.root.clone()),
            DentryState::Node { node, parent, name, deleted, linkable } => {
                let inode: Arc<dyn Inode> = restorer.node(node)?;
                let parent = parent.map(|id| restorer.dentry(id)).transpose()?;
                let dentry = match parent {
                    Some(parent) if !deleted => parent.named(restorer, &name, inode),
                    parent => Dentry::detached(inode, parent, &name),
                };
                dentry.set_deleted(deleted);
                dentry.set_linkable(linkable);
                Ok(dentry)
            }
            DentryState::Name { parent, name, file } => {
                let parent = restorer.dentry(parent)?;
                let inode = restorer.with_caller(|caller| parent.inode().dir().map(|d| d.lookup(caller, &name)))?;
                match inode {
                    Some(Ok(inode)) if file.is_some_and(|then| !is_still(&then, &inode)) => Err(another(&name)),
                    Some(Err(_)) | None if file.is_some() => Err(another(&name)),
                    Some(Ok(inode)) => Ok(parent.named(restorer, &name, inode)),
                    // A process's directory outlives the process only as a name of nothing.
                    _ => Ok(Dentry::detached(Arc::new(Gone), Some(parent), &name)),
                }
            }
        }
    }
}

fn is_still(then: &FileIdentity, inode: &Arc<dyn Inode>) -> bool {
    GoferInode::inode_of(inode).is_some_and(|now| then.fits(&now.identity()))
}

fn another(name: &[u8]) -> Unusable {
    let name = String::from_utf8_lossy(name);
    Unusable::Resource(format!("the file {name} of a host directory, which has gone or changed"))
}

impl Dentry {
    fn named(self: &Arc<Self>, restorer: &Restorer, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        match self.cached(name) {
            Ok(known) => known,
            Err(version) => {
                let fallback = inode.clone();
                let found = self.insert(&restorer.kernel.vfs.dentries, name, inode, version);
                found.unwrap_or_else(|| Self::detached(fallback, Some(self.clone()), name))
            }
        }
    }
}
