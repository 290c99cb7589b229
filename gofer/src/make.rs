//! Requests that make files: the new file's owner is what the request says, never this process.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::MAX_TARGET;
use gofer_proto::message::{Entry, Kind, NewFile, Reply};
use hostsys::opath;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use crate::error::{Result, host, sys};
use crate::look::component;
use crate::nodes::Node;
use crate::server::{Outcome, Server};

/// Permissions until the owner is set.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Server {
    /// Sets owner and permissions of what `fd` holds, where they differ.
    pub fn own(&self, fd: BorrowedFd<'_>, new: &NewFile) -> Result<()> {
        let attr = self.attr_of(&fd)?;
        let ids = (Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(new.gid)));
        if (attr.uid, attr.gid) != (new.uid, new.gid) {
            match fchownat(fd, c"", ids.0, ids.1, AtFlags::AT_EMPTY_PATH) {
                Err(nix::errno::Errno::EPERM | nix::errno::Errno::EINVAL) if self.options.squash_owner => {}
                other => other.map_err(host)?,
            }
        }
        if attr.kind == Kind::Symlink {
            return Ok(());
        }
        self.set_mode(fd, new.perm)
    }

    /// `chmod(2)` of what `fd` holds.
    pub fn set_mode(&self, fd: BorrowedFd<'_>, perm: u32) -> Result<()> {
        let mode = Mode::from_bits_truncate(perm & 0o7777);
        let name = self.magic.name(fd);
        fchmodat(self.magic.fd(), name.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(host)
    }

    /// The directory `dir`, which may be changed.
    pub fn parent<'a>(&self, dir: &'a Arc<Node>) -> Result<&'a Node> {
        let dir = dir.as_dir()?;
        self.writable(dir)?;
        Ok(dir)
    }

    /// Takes in what was just made as `name`, gives it its owner, and takes it away again where that fails.
    pub fn adopt(&self, dir: &Node, name: &[u8], kind: Kind, new: &NewFile) -> Result<Entry> {
        let held = component(name).and_then(|n| opath::find(dir.fd(), &n).map_err(sys));
        let adopted = held.and_then(|fd| {
            // Somebody on the host may have put something else there meanwhile.
            if self.attr_of(&fd)?.kind != kind {
                return Err(Errno::ESTALE);
            }
            self.own(fd.as_fd(), new)?;
            self.hold(fd, dir.mount)
        });
        if adopted.as_ref().is_err_and(|e| *e != Errno::ESTALE) {
            let flag = if kind == Kind::Directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
            let _ = unlinkat(dir.fd(), name, flag);
        }
        adopted
    }

    pub fn create(&self, dir: &Arc<Node>, name: &[u8], new: &NewFile) -> Result<Outcome> {
        let (dir, c_name) = (self.parent(dir)?, component(name)?);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NONBLOCK;
        let fd = opath::open_in(dir.fd(), &c_name, flags, PRIVATE).map_err(sys)?;
        let made = self.own(fd.as_fd(), new).and_then(|()| {
            let held = self.magic.reopen(fd.as_fd(), OFlag::O_PATH).map_err(sys)?;
            self.hold(held, dir.mount)
        });
        match made {
            Ok(entry) => Ok(Outcome { reply: Reply::Created(entry), fd: Some(fd) }),
            Err(e) => {
                let _ = unlinkat(dir.fd(), c_name.as_c_str(), UnlinkatFlags::NoRemoveDir);
                Err(e)
            }
        }
    }

    pub fn create_unnamed(&self, dir: &Arc<Node>, new: &NewFile) -> Result<Outcome> {
        let dir = self.parent(dir)?;
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
        let fd = opath::open_in(dir.fd(), c".", flags, PRIVATE).map_err(sys)?;
        self.own(fd.as_fd(), new)?;
        let held = self.magic.reopen(fd.as_fd(), OFlag::O_PATH).map_err(sys)?;
        let entry = self.hold(held, dir.mount)?;
        Ok(Outcome { reply: Reply::Created(entry), fd: Some(fd) })
    }

    pub fn make_dir(&self, dir: &Arc<Node>, name: &[u8], new: &NewFile) -> Result<Outcome> {
        let (dir, c_name) = (self.parent(dir)?, component(name)?);
        mkdirat(dir.fd(), c_name.as_c_str(), Mode::S_IRWXU).map_err(host)?;
        Ok(Reply::Entry(self.adopt(dir, name, Kind::Directory, new)?).into())
    }

    pub fn make_node(&self, dir: &Arc<Node>, name: &[u8], kind: Kind, new: &NewFile) -> Result<Outcome> {
        let (dir, c_name) = (self.parent(dir)?, component(name)?);
        let flag = match kind {
            Kind::Regular => SFlag::S_IFREG,
            Kind::Fifo => SFlag::S_IFIFO,
            // A name only: the sandbox's own kernel is what answers behind it.
            Kind::Socket => SFlag::S_IFSOCK,
            // A device node would be the host's device.
            Kind::CharDevice | Kind::BlockDevice => return Err(Errno::EPERM),
            Kind::Directory | Kind::Symlink => return Err(Errno::EINVAL),
        };
        mknodat(dir.fd(), c_name.as_c_str(), flag, PRIVATE, 0).map_err(host)?;
        Ok(Reply::Entry(self.adopt(dir, name, kind, new)?).into())
    }

    pub fn symlink(&self, dir: &Arc<Node>, name: &[u8], target: &[u8], new: &NewFile) -> Result<Outcome> {
        let (dir, c_name) = (self.parent(dir)?, component(name)?);
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() > MAX_TARGET {
            return Err(Errno::ENAMETOOLONG);
        }
        if target.contains(&0) {
            return Err(Errno::EINVAL);
        }
        symlinkat(target, dir.fd(), c_name.as_c_str()).map_err(host)?;
        Ok(Reply::Entry(self.adopt(dir, name, Kind::Symlink, new)?).into())
    }
}
