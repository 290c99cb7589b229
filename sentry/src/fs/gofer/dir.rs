//! Directories: names are looked up, listed and changed by the gofer, one change of a directory at a time.

use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::NewFile;
use gofer_proto::{MAX_WALK, Reply, Request, name};

use super::{Answer, GoferInode, attr};
use crate::kernel::trip;
use crate::vfs::{Caller, DirEntry, DirOps, FileType, Inode, NewNode};

impl GoferInode {
    /// Asks for `name`: the file there now.
    fn look(&self, name: &[u8]) -> Result<Arc<GoferInode>, Errno> {
        if let Some(found) = trip::ahead(self, name) {
            return found;
        }
        if let (Some(found), Some(dir)) = (self.brought(name), self.this()) {
            trip::note_ahead(vec![trip::Ahead { dir, name: name.to_vec(), found: Ok(found.clone()) }]);
            return Ok(found);
        }
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

/// Cookies from here on are hashes of the host's, without their last two bits: positions in a directory that the guest
/// holds leave room above for what an overlay adds, and ext4's fill 63 bits.
const HASHES: u64 = 1 << 61;

/// The host's cookie as the guest holds it.
pub(super) fn guest_cookie(host: u64) -> u64 {
    if host < HASHES { host } else { HASHES | (host >> 2 & (HASHES - 1)) }
}

/// And back. Who goes on from a hash that is a little smaller finds the same next entry, as names with neighbouring
/// hashes of 63 bits do not occur.
fn host_cookie(guest: u64) -> u64 {
    if guest < HASHES { guest } else { (guest & (HASHES - 1)) << 2 }
}

/// The names at the start of `rest` that one question can walk.
fn plain_names(rest: &[u8]) -> Vec<Vec<u8>> {
    let names = rest.split(|b| *b == b'/').filter(|n| !n.is_empty());
    names.take_while(|n| name::check(n).is_ok()).take(MAX_WALK).map(<[u8]>::to_vec).collect()
}

/// Hands a listing's entries from number `at` on to `emit`; answers whether it took them all.
fn hand_out(answer: &Answer, at: usize, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<bool, Errno> {
    let Reply::Items { items, .. } = &answer.reply else { return Err(Errno::EIO) };
    Ok(items.iter().skip(at).all(|item| {
        let (kind, next) = (attr::kind(item.kind), guest_cookie(item.next));
        emit(DirEntry { name: item.name.clone(), ino: item.ino, kind, next })
    }))
}

impl DirOps for GoferInode {
    fn look_ahead(&self, rest: &[u8]) -> Result<(), Errno> {
        // Where names are cached, most of them are known; without a trip nothing would keep what is found.
        if !self.fs.is_shared() || trip::began(&self.fs).is_none() {
            return Ok(());
        }
        let names = plain_names(rest);
        let Some(this) = self.this() else { return Ok(()) };
        if names.len() < 2 || names.first().is_some_and(|first| trip::ahead(self, first).is_some()) {
            return Ok(());
        }
        let answer = self.ask(Request::Walk { node: self.node(), names: names.clone() })?;
        let Reply::Walk { errno, .. } = &answer.reply else { return Err(Errno::EIO) };
        if !answer.is_news() {
            return Ok(());
        }
        let missing = Err(Errno::from_raw(i32::from(*errno)));
        let found = answer.inodes.iter().cloned().map(Ok).chain((*errno != 0).then_some(missing));
        let dirs = std::iter::once(&this).chain(&answer.inodes).cloned();
        let ahead = names.into_iter().zip(dirs).zip(found);
        trip::note_ahead(ahead.map(|((name, dir), found)| trip::Ahead { dir, name, found }).collect());
        Ok(())
    }

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
        if let Some((rest, at)) = self.rest(from) {
            return hand_out(&rest, at, emit).map(|_| ());
        }
        let began = trip::began(&self.fs);
        // Without a trip nobody would use the files.
        let entries = began.is_some() && self.wants_files();
        let answer = self.ask(Request::ReadDir { node: self.node(), cookie: host_cookie(from), entries })?;
        let all = hand_out(&answer, 0, emit)?;
        // Further pieces are the next call's: this one may be answered now.
        if let Some(began) = began
            && answer.is_news()
        {
            self.bring(&answer, began);
            if !all {
                self.keep_rest(&answer, began);
            }
        }
        Ok(())
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
        self.touched(name);
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
        self.touched(name);
        self.forget_attr();
        Ok(())
    }

    fn unlink(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: false })?;
        self.touched(name);
        self.forget_attr();
        Ok(())
    }

    fn rmdir(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<(), Errno> {
        self.change(Request::Unlink { dir: self.node(), name: name.to_vec(), is_dir: true })?;
        self.touched(name);
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
        self.touched(name);
        to.touched(new_name);
        self.forget_attr();
        to.forget_attr();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_stay_in_order_and_lead_back() {
        let hosts = [0, 1, 2, 1000, HASHES - 1, HASHES, HASHES + 4, 1 << 62, (1 << 62) + 8, i64::MAX as u64];
        for pair in hosts.windows(2) {
            assert!(guest_cookie(pair[0]) < guest_cookie(pair[1]), "{pair:x?}");
        }
        for host in hosts {
            assert!(guest_cookie(host) < 1 << 62);
            let back = host_cookie(guest_cookie(host));
            assert!(back <= host && host - back < 4, "{host:x} {back:x}");
        }
    }
}
