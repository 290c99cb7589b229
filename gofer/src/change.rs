//! Requests that change what is there.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::{Change, Kind, Reply, Time};
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, renameat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, fdatasync, fsync, ftruncate, linkat, unlinkat};

use crate::error::{Result, host, sys};
use crate::look::component;
use crate::nodes::Node;
use crate::server::{Outcome, Server};

impl Server {
    pub fn set_attr(&self, node: &Node, change: &Change) -> Result<Outcome> {
        self.writable(node)?;
        // In this order: a change of owner takes set-id bits away, and a change of length touches times.
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            fchownat(node.fd(), c"", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(host)?;
        }
        if let Some(perm) = change.perm {
            self.set_mode(node.fd(), perm)?;
        }
        if let Some(size) = change.size {
            self.truncate(node, size)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            self.set_times(node.fd(), change.atime, change.mtime)?;
        }
        Ok(Reply::Attr(self.attr_of(&node.fd())?).into())
    }

    fn truncate(&self, node: &Node, size: u64) -> Result<()> {
        match node.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        let size = i64::try_from(size).map_err(|_| Errno::EINVAL)?;
        let fd = self.magic.reopen(node.fd(), OFlag::O_WRONLY).map_err(sys)?;
        ftruncate(&fd, size).map_err(host)
    }

    fn set_times(&self, fd: BorrowedFd<'_>, atime: Option<Time>, mtime: Option<Time>) -> Result<()> {
        let time = |t: Option<Time>| match t {
            None => Ok(TimeSpec::UTIME_OMIT),
            Some(t) if t.nsec < 1_000_000_000 => Ok(TimeSpec::new(t.sec, i64::from(t.nsec))),
            Some(_) => Err(Errno::EINVAL),
        };
        let (atime, mtime) = (time(atime)?, time(mtime)?);
        let name = self.magic.name(fd);
        utimensat(self.magic.fd(), name.as_str(), &atime, &mtime, UtimensatFlags::FollowSymlink).map_err(host)
    }

    pub fn link(&self, node: &Node, dir: &Arc<Node>, name: &[u8]) -> Result<Outcome> {
        let (dir, name) = (self.parent(dir)?, component(name)?);
        if node.mount != dir.mount {
            return Err(Errno::EXDEV);
        }
        if node.kind == Kind::Directory {
            return Err(Errno::EPERM);
        }
        let direct = linkat(node.fd(), c"", dir.fd(), name.as_c_str(), AtFlags::AT_EMPTY_PATH);
        match direct {
            // Without CAP_DAC_READ_SEARCH the direct way is refused (linkat(2)).
            Err(nix::errno::Errno::ENOENT) => {
                let source = self.magic.name(node.fd());
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(self.magic.fd(), source.as_str(), dir.fd(), name.as_c_str(), follow).map_err(host)?;
            }
            other => other.map_err(host)?,
        }
        Ok(Reply::Done.into())
    }

    pub fn unlink(&self, dir: &Arc<Node>, name: &[u8], is_dir: bool) -> Result<Outcome> {
        let (dir, name) = (self.parent(dir)?, component(name)?);
        let flag = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        unlinkat(dir.fd(), name.as_c_str(), flag).map_err(host)?;
        Ok(Reply::Done.into())
    }

    pub fn rename(&self, old: (&Arc<Node>, &[u8]), new: (&Arc<Node>, &[u8]), flags: u32) -> Result<Outcome> {
        let (dir, name) = (self.parent(old.0)?, component(old.1)?);
        let (new_dir, new_name) = (self.parent(new.0)?, component(new.1)?);
        if dir.mount != new_dir.mount {
            return Err(Errno::EXDEV);
        }
        let allowed = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        let flags = RenameFlags::from_bits(flags).filter(|f| allowed.contains(*f)).ok_or(Errno::EINVAL)?;
        renameat2(dir.fd(), name.as_c_str(), new_dir.fd(), new_name.as_c_str(), flags).map_err(host)?;
        Ok(Reply::Done.into())
    }

    pub fn sync(&self, node: &Node, data_only: bool) -> Result<Outcome> {
        let flags = match node.kind {
            Kind::Regular => OFlag::O_RDONLY,
            Kind::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            _ => return Err(Errno::EINVAL),
        };
        let fd = self.magic.reopen(node.fd(), flags).map_err(sys)?;
        if data_only { fdatasync(fd.as_fd()) } else { fsync(fd.as_fd()) }.map_err(host)?;
        Ok(Reply::Done.into())
    }

    pub fn allocate(&self, node: &Node, mode: u32, offset: u64, len: u64) -> Result<Outcome> {
        self.writable(node)?;
        if node.kind != Kind::Regular {
            return Err(Errno::ENODEV);
        }
        let (offset, len) = (i64::try_from(offset), i64::try_from(len));
        let (Ok(offset), Ok(len)) = (offset, len) else { return Err(Errno::EFBIG) };
        let mode = FallocateFlags::from_bits(mode.cast_signed()).ok_or(Errno::EOPNOTSUPP)?;
        let fd = self.magic.reopen(node.fd(), OFlag::O_RDWR).map_err(sys)?;
        fallocate(&fd, mode, offset, len).map_err(host)?;
        Ok(Reply::Done.into())
    }
}
