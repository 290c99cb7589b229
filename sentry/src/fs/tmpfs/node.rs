//! Inodes in memory.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use abi::{Errno, Timespec};

use super::dir::Entries;
use super::file::MemFile;
use super::lower_file::LowerFile;
use super::{TmpFs, touch_now};
use crate::mm::object::MemoryObject;
use crate::sync::{Level, Mutex};
use crate::vfs::{
    Attr, Caller, DirOps, FileOps, FileType, Inode, InodeKey, IoSink, NewNode, OpenFlags, SetAttr, StatFs, XattrOps,
    now,
};

/// What can change of an inode, apart from its content.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Meta {
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// An inode of a [`TmpFs`].
pub struct Node {
    pub(super) myself: Weak<Node>,
    pub(super) fs: Arc<TmpFs>,
    pub(super) key: InodeKey,
    pub(super) kind: FileType,
    pub(super) rdev: u64,
    /// What it shows as long as it has nothing of its own.
    pub(super) lower: Option<Arc<dyn Inode>>,
    /// Its own attributes; `None` while the lower's hold.
    pub(super) meta: Mutex<Option<Meta>>,
    /// A regular file's own content; unset while the lower's holds.
    pub(super) content: OnceLock<Arc<MemoryObject>>,
    /// Serialises writers, and the copy-up.
    pub(super) writing: Mutex<()>,
    /// A symlink's own target.
    pub(super) target: Vec<u8>,
    /// A directory's changed entries.
    pub(super) entries: Mutex<Entries>,
    pub(super) charged: bool,
}

impl Node {
    pub(super) fn build(
        myself: Weak<Node>,
        fs: &Arc<TmpFs>,
        ino: u64,
        kind: FileType,
        lower: Option<Arc<dyn Inode>>,
        charged: bool,
    ) -> Node {
        Node {
            myself,
            fs: fs.clone(),
            key: InodeKey { dev: fs.dev, ino },
            kind,
            rdev: 0,
            lower,
            meta: Mutex::new(Level::Leaf, None),
            content: OnceLock::new(),
            writing: Mutex::new(Level::File, ()),
            target: Vec::new(),
            entries: Mutex::new(Level::Inode, Entries::default()),
            charged,
        }
    }

    /// A new inode, with one link.
    ///
    /// # Errors
    /// `ENOSPC` past the limit on inodes.
    pub(super) fn create(fs: &Arc<TmpFs>, new: &NewNode) -> Result<Arc<Node>, Errno> {
        fs.charge_node()?;
        Ok(Self::fresh(fs, new, true))
    }

    /// The same, which never fails: for roots.
    pub(super) fn unlimited(fs: &Arc<TmpFs>, new: &NewNode) -> Arc<Node> {
        Self::fresh(fs, new, false)
    }

    fn fresh(fs: &Arc<TmpFs>, new: &NewNode, charged: bool) -> Arc<Node> {
        let now = now();
        let nlink = if new.kind == FileType::Directory { 2 } else { 1 };
        let (perm, uid, gid, xattrs) = (new.perm, new.uid, new.gid, BTreeMap::new());
        let meta = Meta { perm, uid, gid, nlink, atime: now, mtime: now, ctime: now, xattrs };
        Arc::new_cyclic(|myself| {
            let mut node = Self::build(myself.clone(), fs, fs.new_ino(), new.kind, None, charged);
            *node.meta.get_mut() = Some(meta);
            node.rdev = new.rdev;
            if new.kind == FileType::Regular {
                let _ = node.content.set(MemoryObject::new(fs.memory.clone(), node.key, 0));
            }
            node.target.clone_from(&new.target);
            node
        })
    }

    /// A node that shows `lower`.
    pub(super) fn showing(fs: &Arc<TmpFs>, lower: Arc<dyn Inode>) -> Arc<Node> {
        let attr = lower.attr();
        Arc::new_cyclic(|myself| {
            let mut node = Self::build(myself.clone(), fs, attr.key.ino, attr.kind, Some(lower), false);
            node.rdev = attr.rdev;
            node
        })
    }

    /// Looks at its own attributes, copying them up where `f` may change them.
    pub(super) fn meta_mut<T>(&self, f: impl FnOnce(&mut Meta) -> T) -> T {
        // Who changes something has called it before and heard of errors; for times alone they do not matter.
        let _ = self.own_meta();
        let mut meta = self.meta.lock();
        // Set just above and never unset.
        match meta.as_mut() {
            Some(meta) => f(meta),
            None => f(&mut Meta::default()),
        }
    }

    /// Makes sure that it has attributes of its own.
    ///
    /// # Errors
    /// What the file system below says.
    pub(super) fn own_meta(&self) -> Result<(), Errno> {
        if self.meta.lock().is_some() {
            return Ok(());
        }
        let Some(lower) = &self.lower else { return Ok(()) };
        let fresh = Meta::copied_from(lower.as_ref())?;
        let mut meta = self.meta.lock();
        if meta.is_none() {
            *meta = Some(fresh);
        }
        Ok(())
    }

    pub(super) fn is_dead(&self) -> bool {
        self.meta.lock().as_ref().is_some_and(|m| m.nlink == 0)
    }

    /// Notes a change of a directory's entries.
    pub(super) fn touch_dir(&self) {
        self.keep();
        self.meta_mut(|m| touch_now(&mut [&mut m.mtime, &mut m.ctime]));
    }
}

impl Default for Meta {
    fn default() -> Self {
        let zero = Timespec::default();
        Meta { perm: 0, uid: 0, gid: 0, nlink: 0, atime: zero, mtime: zero, ctime: zero, xattrs: BTreeMap::new() }
    }
}

impl Meta {
    fn copied_from(lower: &dyn Inode) -> Result<Meta, Errno> {
        lower.refresh()?;
        let a = lower.attr();
        let mut xattrs = BTreeMap::new();
        if let Some(ops) = lower.xattrs() {
            for name in told(ops.list())?.unwrap_or_default() {
                if let Some(value) = told(ops.get(&name))? {
                    xattrs.insert(name, value);
                }
            }
        }
        Ok(Meta {
            perm: a.perm,
            uid: a.uid,
            gid: a.gid,
            nlink: a.nlink,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            xattrs,
        })
    }
}

/// An extended attribute that cannot be read is none; one that has not come yet is waited for.
fn told<T>(answer: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match answer {
        Err(Errno::EIOCBQUEUED) => Err(Errno::EIOCBQUEUED),
        other => Ok(other.ok()),
    }
}

impl Inode for Node {
    fn attr(&self) -> Attr {
        let own = self.meta.lock().as_ref().map(|m| (m.perm, m.uid, m.gid, m.nlink, m.atime, m.mtime, m.ctime));
        let below =
            match (&self.lower, own.is_none() || (self.kind == FileType::Regular && self.content.get().is_none())) {
                (Some(lower), true) => Some(lower.attr()),
                _ => None,
            };
        let (size, blocks) = match (self.content.get(), &below) {
            (Some(content), _) => (content.size(), content.resident() / 512),
            (None, Some(lower)) => (lower.size, lower.blocks),
            (None, None) => (self.plain_size(), 0),
        };
        match (own, below) {
            (Some((perm, uid, gid, nlink, atime, mtime, ctime)), _) => Attr {
                key: self.key,
                kind: self.kind,
                perm,
                uid,
                gid,
                nlink,
                size,
                blocks,
                blksize: 4096,
                rdev: self.rdev,
                atime,
                mtime,
                ctime,
            },
            (None, Some(lower)) => Attr { key: self.key, ..lower },
            (None, None) => Attr { key: self.key, kind: self.kind, ..crate::vfs::anon::default_attr() },
        }
    }

    fn refresh(&self) -> Result<(), Errno> {
        match &self.lower {
            Some(lower) if self.meta.lock().is_none() => lower.refresh(),
            _ => Ok(()),
        }
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        self.own_meta()?;
        self.keep_by_key();
        if let Some(size) = change.size {
            self.resize(size)?;
        }
        let now = now();
        self.meta_mut(|m| {
            if change.size.is_some() {
                m.mtime = now;
            }
            m.perm = change.perm.unwrap_or(m.perm);
            m.uid = change.uid.unwrap_or(m.uid);
            m.gid = change.gid.unwrap_or(m.gid);
            m.atime = change.atime.unwrap_or(m.atime);
            m.mtime = change.mtime.unwrap_or(m.mtime);
            m.ctime = now;
        });
        Ok(())
    }

    fn dir(&self) -> Option<&dyn DirOps> {
        (self.kind == FileType::Directory).then_some(self as &dyn DirOps)
    }

    fn xattrs(&self) -> Option<&dyn XattrOps> {
        Some(self)
    }

    fn readlink(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        match (&self.lower, self.kind) {
            (_, kind) if kind != FileType::Symlink => Err(Errno::EINVAL),
            (Some(lower), _) => lower.readlink(caller),
            (None, _) => Ok(self.target.clone()),
        }
    }

    fn open(self: Arc<Self>, caller: &Caller<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        if self.kind != FileType::Regular {
            return Err(Errno::ENXIO);
        }
        if self.content.get().is_none() {
            match &self.lower {
                Some(lower) if !flags.writable() => {
                    let lower = lower.clone().open(caller, flags)?;
                    return Ok(Arc::new(LowerFile { node: self, lower }));
                }
                _ => {
                    self.own_meta()?;
                    self.copy_up()?;
                }
            }
        }
        let strips = !caller.creds.has_cap(crate::vfs::perm::CAP_FSETID);
        Ok(Arc::new(MemFile::new(self, strips)))
    }

    fn hold_content(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>, Errno> {
        match (self.content.get(), &self.lower) {
            (None, Some(lower)) => lower.hold_content(),
            _ => Ok(None),
        }
    }

    fn read_content(&self, offset: u64, dst: &mut [u8]) -> Result<usize, Errno> {
        match (self.content.get(), &self.lower) {
            (Some(content), _) => content.read_at(&mut IoSink::kernel(dst), offset),
            (None, Some(lower)) => lower.read_content(offset, dst),
            (None, None) => Err(Errno::EINVAL),
        }
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Node {
    fn plain_size(&self) -> u64 {
        match self.kind {
            FileType::Symlink => self.target.len() as u64,
            FileType::Directory => 20 * (2 + self.entries.lock().len() as u64),
            _ => 0,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.charged {
            self.fs.nodes.fetch_sub(1, Ordering::Relaxed);
        }
        self.forget();
        self.drop_children();
    }
}
