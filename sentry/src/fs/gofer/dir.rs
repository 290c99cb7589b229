//! Directories: names are looked up, listed and changed by the gofer, one change of a directory at a time.

use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::NewFile;
use gofer_proto::{Reply, Request, name};

use super::{Answer, GoferInode, attr};
use crate::kernel::trip;
use crate::vfs::{Caller, DirEntry, DirOps, FileType, Inode, NewNode};

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
            (Reply::Walk { .. }, Some(inode)) => Ok(inode.clone()),
            (Reply::Walk { errno, .. }, None) => Err(Errno::from_raw(i32::from(*errno))),
            _ => Err(Errno::EIO),
        }
    }

    /// Asks for a change of this directory alone.
    fn change(&self, request: Request) -> Result<Arc<Answer>, Errno> {
        trip::hold(&[&self.lock], true)?;
        self.ask(request)
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
        self.forget_attr();
        Ok(inode)
    }

    fn create_unnamed(&self, _cx: &Caller<'_>, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let new = NewFile { perm: node.perm & 0o7777, uid: node.uid, gid: node.gid };
        let answer = self.ask(Request::CreateUnnamed { dir: self.node(), new })?;
        let inode = answer.inodes.first().ok_or(Errno::EIO)?.clone();
        inode.set_fresh(inode.share_fd(answer.fd.clone().ok_or(Errno::EIO)?, true)?);
        Ok(inode)
    }

    fn link(&self, _cx: &Caller<'_>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let target = Self::inode_of(inode).filter(|i| Arc::ptr_eq(&i.fs, &self.fs)).ok_or(Errno::EXDEV)?;
        self.change(Request::Link { node: target.node(), dir: self.node(), name: name.to_vec() })?;
        target.forget_attr();
        self.forget_attr();
        Ok(())
    }

    fn unlink(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: false })?;
        self.forget_attr();
        Ok(())
    }

    fn rmdir(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: true })?;
        self.forget_attr();
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
        self.forget_attr();
        to.forget_attr();
        Ok(())
    }
}
