//! Nodes that show an inode of a file system below: finding them again, remembering them once changed, copying up.

use std::sync::Arc;

use abi::Errno;

use super::{Node, Slot, TmpFs};
use crate::vfs::{Caller, FileType, Inode, IoSource};

impl TmpFs {
    /// The one node that shows `lower`.
    pub(super) fn node_for(self: &Arc<Self>, lower: Arc<dyn Inode>) -> Arc<Node> {
        let key = lower.attr().key;
        let fresh = Node::showing(self, lower);
        let mut table = self.by_lower.lock();
        let known = match table.get(&key) {
            Some(Slot::Changed(node)) => Some(node.clone()),
            Some(Slot::Unchanged(node)) => node.upgrade(),
            None => None,
        };
        if known.is_none() {
            table.insert(key, Slot::Unchanged(Arc::downgrade(&fresh)));
        }
        drop(table);
        // Where one was known, `fresh` goes here, outside the lock that its Drop takes.
        known.unwrap_or(fresh)
    }
}

impl Node {
    /// Remembers a node that is about to be changed.
    pub(super) fn keep(&self) {
        self.keep_by_key();
    }

    /// Makes the table hold this node for good, where it shows a lower inode.
    pub(super) fn keep_by_key(&self) {
        let Some(lower) = &self.lower else { return };
        let key = lower.attr().key;
        let mut table = self.fs.by_lower.lock();
        let strong = match table.get(&key) {
            Some(Slot::Unchanged(node)) => node.upgrade().filter(|n| std::ptr::eq(Arc::as_ptr(n), self)),
            _ => None,
        };
        let old = strong.and_then(|node| table.insert(key, Slot::Changed(node)));
        drop(table);
        drop(old);
    }

    /// Lets go of a node whose last name is gone: no lookup can lead to it again.
    pub(super) fn release(&self) {
        let Some(lower) = &self.lower else { return };
        let key = lower.attr().key;
        let mut table = self.fs.by_lower.lock();
        let ours = match table.get(&key) {
            Some(Slot::Changed(node)) => std::ptr::eq(Arc::as_ptr(node), self),
            _ => false,
        };
        let old = if ours { table.remove(&key) } else { None };
        drop(table);
        drop(old);
    }

    /// Forgets an unchanged node that nobody uses.
    pub(super) fn forget(&self) {
        let Some(lower) = &self.lower else { return };
        let key = lower.attr().key;
        let mut table = self.fs.by_lower.lock();
        let ours = match table.get(&key) {
            Some(Slot::Unchanged(node)) => std::ptr::eq(node.as_ptr(), self),
            _ => false,
        };
        let old = if ours { table.remove(&key) } else { None };
        drop(table);
        drop(old);
    }

    /// Gives a regular file content of its own: a copy of the lower's, holes left out.
    ///
    /// # Errors
    /// `ENOSPC`; what reading below says.
    pub(super) fn copy_up(&self) -> Result<(), Errno> {
        let _one = self.writing.lock();
        self.copy_up_locked(u64::MAX)
    }

    /// The same for who holds `writing`; at most `limit` bytes, because the rest is about to be cut off.
    pub(super) fn copy_up_locked(&self, limit: u64) -> Result<(), Errno> {
        if self.kind != FileType::Regular || self.content.get().is_some() {
            return Ok(());
        }
        let Some(lower) = &self.lower else { return Ok(()) };
        let _held = if limit > 0 { lower.hold_content()? } else { None };
        self.keep_by_key();
        let object = crate::mm::object::MemoryObject::new(self.fs.memory.clone(), self.key, 0);
        let size = lower.attr().size;
        let wanted = size.min(limit);
        if wanted > 0 {
            let mut buf = vec![0u8; 64 << 10];
            let mut at = 0;
            while at < wanted {
                let n = lower.read_content(at, &mut buf)?;
                let piece = buf.get(..n).unwrap_or_default();
                if n == 0 {
                    break;
                }
                if piece.iter().any(|b| *b != 0) && object.write_at(&mut IoSource::kernel(piece), at)? < n {
                    return Err(Errno::ENOSPC);
                }
                at += n as u64;
            }
        }
        object.truncate(wanted)?;
        let _ = self.content.set(object);
        Ok(())
    }
}

/// The node behind an inode of `fs`.
pub(super) fn own<'a>(fs: &Arc<TmpFs>, inode: &'a Arc<dyn Inode>) -> Result<&'a Node, Errno> {
    let node = inode.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
    if Arc::ptr_eq(&node.fs, fs) { Ok(node) } else { Err(Errno::EXDEV) }
}

/// Looks a name up below, where there is something below.
pub(super) fn lookup_below(dir: &Node, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<Node>, Errno> {
    let lower = dir.lower.as_ref().ok_or(Errno::ENOENT)?;
    let found = lower.dir().ok_or(Errno::ENOTDIR)?.lookup(caller, name)?;
    Ok(dir.fs.node_for(found))
}
