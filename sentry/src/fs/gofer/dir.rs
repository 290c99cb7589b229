//! Directories: names are looked up, listed and changed by the gofer, one change of a directory at a time.

use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::NewFile;
use gofer_proto::{Reply, Request, name};

use super::{Answer, GoferInode, attr};
use crate::kernel::trip;
use crate::vfs::rename::EXCHANGE;
use crate::vfs::{Attr, Caller, DirEntry, DirOps, FileType, Inode, NewNode, now};

/// Names remembered per directory before those that are gone are swept out.
const SWEEP: usize = 1024;

impl GoferInode {
    /// Asks for `name`: the file there now.
    fn look(&self, name: &[u8]) -> Result<Arc<GoferInode>, Errno> {
        let request = Request::Walk { node: self.node(), names: vec![name.to_vec()] };
        if !trip::knows(&self.fs, &request) {
            trip::hold(&[&self.lock], false)?;
        }
        let found = self.ask(request);
        if found.as_ref().err() != Some(&Errno::EIOCBQUEUED) {
            trip::release(&self.lock);
        }
        let answer = found?;
        match (&answer.reply, answer.inodes.first()) {
            (Reply::Walk { .. }, Some(inode)) => {
                self.remember(name, inode);
                Ok(inode.clone())
            }
            (Reply::Walk { errno, .. }, None) => Err(Errno::from_raw(i32::from(*errno))),
            _ => Err(Errno::EIO),
        }
    }

    fn remember(&self, name: &[u8], inode: &Arc<GoferInode>) {
        let mut children = self.children.lock();
        if children.len() % SWEEP == SWEEP - 1 {
            children.retain(|_, child| child.strong_count() > 0);
        }
        let old = children.insert(name.into(), Arc::downgrade(inode));
        drop(children);
        drop(old);
    }

    fn forget_child(&self, name: &[u8]) -> Option<Arc<GoferInode>> {
        self.children.lock().remove(name).and_then(|child| child.upgrade())
    }

    /// Asks for a change of this directory alone.
    fn change(&self, request: Request) -> Result<Arc<Answer>, Errno> {
        trip::hold(&[&self.lock], true)?;
        self.ask(request)
    }

    /// Notes, as the host's kernel has, that names changed.
    fn touched(&self, subdirs: i32) {
        let at = now();
        self.change_attr(|a: &mut Attr| {
            (a.mtime, a.ctime) = (at, at);
            a.nlink = a.nlink.saturating_add_signed(subdirs);
        });
    }

    /// Notes that a name of this file is gone or (`by` 1) was added.
    fn relinked(&self, by: i32) {
        let dir = self.kind == FileType::Directory;
        self.change_attr(|a| {
            a.nlink = if dir && by < 0 { 0 } else { a.nlink.saturating_add_signed(by) };
            a.ctime = now();
        });
    }
}

impl DirOps for GoferInode {
    fn lookup(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        name::check(name)?;
        Ok(self.look(name)?)
    }

    fn revalidate(&self, _cx: &Caller<'_>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<bool, Errno> {
        if !self.fs.is_shared() && !self.lock.is_suspect() {
            return Ok(true);
        }
        match self.look(name) {
            Ok(now) => Ok(Self::inode_of(inode).is_some_and(|then| std::ptr::eq(then, &*now))),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn list(&self, _cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let (mut cookie, mut emitted) = (from, false);
        loop {
            let asked = self.ask(Request::ReadDir { node: self.node(), cookie, attrs: false });
            let answer = match asked {
                Ok(answer) => answer,
                // What there is is enough for now: the next call goes on behind it.
                Err(_) if emitted => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let Reply::Items { items, end } = &answer.reply else { return Err(Errno::EIO) };
            for item in items {
                let (kind, next) = (attr::kind(item.kind), item.next);
                if !emit(DirEntry { name: item.name.clone(), ino: item.ino, kind, next }) {
                    return Ok(());
                }
                (cookie, emitted) = (next, true);
            }
            // Further pieces are the next call's: this one may be answered now.
            if *end || emitted {
                return Ok(());
            }
        }
    }

    fn create(&self, _cx: &Caller<'_>, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let new = NewFile { perm: node.perm & 0o7777, uid: node.uid, gid: node.gid };
        let (dir, name_of) = (self.node(), || name.to_vec());
        let request = match node.kind {
            FileType::Regular => Request::Create { dir, name: name_of(), new },
            FileType::Directory => Request::MkDir { dir, name: name_of(), new },
            FileType::Symlink => Request::Symlink { dir, name: name_of(), target: node.target.clone(), new },
            kind => Request::MkNod { dir, name: name_of(), kind: attr::host_kind(kind), new },
        };
        let answer = self.change(request)?;
        let inode = answer.inodes.first().ok_or(Errno::EIO)?.clone();
        if let Some(fd) = &answer.fd {
            inode.set_fresh(inode.share_fd(fd.clone(), true)?);
        }
        self.remember(name, &inode);
        self.touched(i32::from(node.kind == FileType::Directory));
        Ok(inode)
    }

    fn link(&self, _cx: &Caller<'_>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let target = Self::inode_of(inode).filter(|i| Arc::ptr_eq(&i.fs, &self.fs)).ok_or(Errno::EXDEV)?;
        self.change(Request::Link { node: target.node(), dir: self.node(), name: name.to_vec() })?;
        target.relinked(1);
        self.touched(0);
        Ok(())
    }

    fn unlink(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: false })?;
        if let Some(gone) = self.forget_child(name) {
            gone.relinked(-1);
        }
        self.touched(0);
        Ok(())
    }

    fn rmdir(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: true })?;
        if let Some(gone) = self.forget_child(name) {
            gone.relinked(-1);
        }
        self.touched(-1);
        Ok(())
    }

    fn rename(
        &self,
        _cx: &Caller<'_>,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let to = Self::inode_of(new_dir).filter(|i| Arc::ptr_eq(&i.fs, &self.fs)).ok_or(Errno::EXDEV)?;
        trip::hold(&[&self.lock, &to.lock], true)?;
        self.ask(Request::Rename {
            dir: self.node(),
            name: name.to_vec(),
            new_dir: to.node(),
            new_name: new_name.to_vec(),
            flags,
        })?;
        let moved = self.forget_child(name);
        let replaced = to.forget_child(new_name);
        let is_dir = |i: &Option<Arc<GoferInode>>| i.as_ref().is_some_and(|i| i.kind == FileType::Directory);
        let (mut ours, mut theirs) = (-i32::from(is_dir(&moved)), i32::from(is_dir(&moved)));
        if flags & EXCHANGE != 0 {
            ours += i32::from(is_dir(&replaced));
            theirs -= i32::from(is_dir(&replaced));
            if let Some(other) = &replaced {
                self.remember(name, other);
            }
        } else if let Some(gone) = &replaced {
            theirs -= i32::from(is_dir(&replaced));
            gone.relinked(-1);
        }
        if let Some(moved) = &moved {
            to.remember(new_name, moved);
            moved.change_attr(|a| a.ctime = now());
        }
        self.touched(ours);
        to.touched(theirs);
        Ok(())
    }
}
