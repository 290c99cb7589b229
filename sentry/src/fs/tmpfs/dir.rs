//! Directories: entries of their own over those of the directory below.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use abi::Errno;

use super::lower::{lookup_below, own};
use super::{Node, touch_now};
use crate::vfs::{Caller, DirEntry, DirOps, FileType, Inode, NewNode};

/// Cookies of entries that lie only here; below are those of the directory below.
const OWN_COOKIES: u64 = 1 << 62;
/// Most hard links (`LINK_MAX` of most file systems).
const LINK_MAX: u32 = 65_000;

/// A name that is not as it is below.
pub(super) struct Entry {
    /// What it names; `None` hides the name below (a whiteout).
    pub(super) node: Option<Arc<Node>>,
    /// Whether the directory below has this name.
    pub(super) below: bool,
    /// Its place in listings, where the directory below has it not.
    pub(super) cookie: u64,
}

/// What a directory has of its own.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) map: HashMap<Vec<u8>, Entry>,
    pub(super) by_cookie: BTreeMap<u64, Vec<u8>>,
    pub(super) next_cookie: u64,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }

    fn take_nodes(&mut self) -> Vec<Arc<Node>> {
        self.by_cookie.clear();
        self.map.drain().filter_map(|(_, e)| e.node).collect()
    }
}

/// What a directory says of a name by itself.
enum Own {
    Node(Arc<Node>),
    Whiteout,
    Nothing,
}

impl Node {
    fn own_entry(&self, name: &[u8]) -> Own {
        match self.entries.lock().map.get(name) {
            Some(Entry { node: Some(node), .. }) => Own::Node(node.clone()),
            Some(_) => Own::Whiteout,
            None => Own::Nothing,
        }
    }

    /// The node that `name` leads to.
    pub(super) fn find(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<Node>, Errno> {
        match self.own_entry(name) {
            Own::Node(node) => Ok(node),
            Own::Whiteout => Err(Errno::ENOENT),
            Own::Nothing => lookup_below(self, caller, name),
        }
    }

    /// Whether the directory below has `name`, whatever this one says.
    fn is_below(&self, caller: &Caller<'_>, name: &[u8]) -> bool {
        let known = self.entries.lock().map.get(name).map(|e| e.below);
        known.unwrap_or_else(|| lookup_below(self, caller, name).is_ok())
    }

    /// Makes `name` lead to `node`, whatever it led to.
    pub(super) fn put_entry(&self, caller: &Caller<'_>, name: &[u8], node: Arc<Node>) {
        let below = self.is_below(caller, name);
        let mut entries = self.entries.lock();
        let cookie = match entries.map.get(name) {
            Some(e) => e.cookie,
            None => entries.next_cookie + 1,
        };
        entries.next_cookie = entries.next_cookie.max(cookie);
        if !below {
            entries.by_cookie.insert(cookie, name.to_vec());
        }
        let old = entries.map.insert(name.to_vec(), Entry { node: Some(node), below, cookie });
        drop(entries);
        drop(old);
    }

    /// Makes `name` lead nowhere.
    pub(super) fn remove_entry(&self, caller: &Caller<'_>, name: &[u8]) {
        let below = self.is_below(caller, name);
        let mut entries = self.entries.lock();
        let old = if below {
            let cookie = entries.next_cookie + 1;
            entries.next_cookie = cookie;
            entries.map.insert(name.to_vec(), Entry { node: None, below, cookie })
        } else {
            let old = entries.map.remove(name);
            if let Some(e) = &old {
                entries.by_cookie.remove(&e.cookie);
            }
            old
        };
        drop(entries);
        drop(old);
    }

    /// Whether a listing would be empty.
    pub(super) fn is_empty_dir(&self, caller: &Caller<'_>) -> Result<bool, Errno> {
        let mut empty = true;
        DirOps::list(self, caller, 0, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// One name less; a directory goes whole.
    pub(super) fn unlinked(&self) {
        self.keep_by_key();
        let is_dir = self.kind == FileType::Directory;
        let left = self.meta_mut(|m| {
            m.nlink = if is_dir { 0 } else { m.nlink.saturating_sub(1) };
            touch_now(&mut [&mut m.ctime]);
            m.nlink
        });
        if left == 0 {
            self.release();
        }
    }

    fn list_below(
        &self,
        caller: &Caller<'_>,
        from: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<bool, Errno> {
        let Some(lower) = self.lower.as_ref() else { return Ok(true) };
        let (mut go_on, mut at, mut some) = (true, from, true);
        while go_on && std::mem::take(&mut some) {
            self.list_piece(caller, lower.as_ref(), at, &mut |entry, next| {
                (at, some) = (next, true);
                go_on = entry.is_none_or(&mut *emit);
                go_on
            })?;
        }
        Ok(go_on)
    }

    /// Some entries of the directory below, and the cookies behind them: none for those that are hidden.
    fn list_piece(
        &self,
        caller: &Caller<'_>,
        lower: &dyn Inode,
        from: u64,
        emit: &mut dyn FnMut(Option<DirEntry>, u64) -> bool,
    ) -> Result<(), Errno> {
        lower.dir().ok_or(Errno::ENOTDIR)?.list(caller, from, &mut |mut entry| {
            let next = entry.next;
            match self.own_entry(&entry.name) {
                Own::Whiteout => return emit(None, next),
                Own::Node(node) => {
                    entry.ino = node.key.ino;
                    entry.kind = node.kind;
                }
                Own::Nothing => {}
            }
            entry.next = entry.next.min(OWN_COOKIES - 1);
            emit(Some(entry), next)
        })
    }

    fn list_own(&self, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) {
        let mut at = from;
        loop {
            let entry = {
                let entries = self.entries.lock();
                let Some((cookie, name)) = entries.by_cookie.range(at..).next() else { return };
                let node = entries.map.get(name).and_then(|e| e.node.as_ref());
                at = cookie + 1;
                node.map(|n| DirEntry { name: name.clone(), ino: n.key.ino, kind: n.kind, next: OWN_COOKIES + at })
            };
            if entry.is_some_and(|e| !emit(e)) {
                return;
            }
        }
    }

    /// Drops the nodes below a directory that nobody uses any more, without recursion.
    pub(super) fn drop_children(&mut self) {
        let mut stack = self.entries.get_mut().take_nodes();
        while let Some(node) = stack.pop() {
            if let Some(mut last) = Arc::into_inner(node) {
                stack.append(&mut last.entries.get_mut().take_nodes());
            }
        }
    }

    fn check_alive(&self) -> Result<(), Errno> {
        if self.is_dead() { Err(Errno::ENOENT) } else { Ok(()) }
    }

    fn check_new(&self, caller: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.check_alive()?;
        match self.find(caller, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl DirOps for Node {
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.find(caller, name).map(|node| node as Arc<dyn Inode>)
    }

    fn list(&self, caller: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        if from < OWN_COOKIES && !self.list_below(caller, from, emit)? {
            return Ok(());
        }
        self.list_own(from.saturating_sub(OWN_COOKIES), emit);
        Ok(())
    }

    fn create(&self, caller: &Caller<'_>, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let _tree = self.fs.tree.lock();
        self.check_new(caller, name)?;
        self.own_meta()?;
        let node = Node::create(&self.fs, new)?;
        self.put_entry(caller, name, node.clone());
        self.touch_dir();
        if new.kind == FileType::Directory {
            self.meta_mut(|m| m.nlink = m.nlink.saturating_add(1));
        }
        Ok(node)
    }

    fn create_unnamed(&self, _caller: &Caller<'_>, new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        self.check_alive()?;
        let node = Node::create(&self.fs, new)?;
        node.meta_mut(|m| m.nlink = 0);
        Ok(node)
    }

    fn link(&self, caller: &Caller<'_>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        own(&self.fs, inode)?;
        let node = inode.clone();
        let _tree = self.fs.tree.lock();
        self.check_new(caller, name)?;
        let node = own_arc(&node)?;
        self.own_meta()?;
        node.own_meta()?;
        node.keep_by_key();
        node.meta_mut(|m| {
            if m.nlink >= LINK_MAX {
                return Err(Errno::EMLINK);
            }
            m.nlink += 1;
            touch_now(&mut [&mut m.ctime]);
            Ok(())
        })?;
        self.put_entry(caller, name, node);
        self.touch_dir();
        Ok(())
    }

    fn unlink(&self, caller: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        let _tree = self.fs.tree.lock();
        let node = self.find(caller, name)?;
        if node.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.own_meta()?;
        node.own_meta()?;
        self.remove_entry(caller, name);
        node.unlinked();
        self.touch_dir();
        Ok(())
    }

    fn rmdir(&self, caller: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        let _tree = self.fs.tree.lock();
        let node = self.find(caller, name)?;
        if node.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !node.is_empty_dir(caller)? {
            return Err(Errno::ENOTEMPTY);
        }
        self.own_meta()?;
        node.own_meta()?;
        self.remove_entry(caller, name);
        node.unlinked();
        self.touch_dir();
        self.meta_mut(|m| m.nlink = m.nlink.saturating_sub(1));
        Ok(())
    }

    fn rename(
        &self,
        caller: &Caller<'_>,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let new_dir = own(&self.fs, new_dir)?;
        let _tree = self.fs.tree.lock();
        new_dir.check_alive()?;
        self.rename_to(caller, name, new_dir, new_name, flags)
    }
}

/// An inode of ours, by its own type.
fn own_arc(inode: &Arc<dyn Inode>) -> Result<Arc<Node>, Errno> {
    let node = inode.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
    node.myself.upgrade().ok_or(Errno::ENOENT)
}
