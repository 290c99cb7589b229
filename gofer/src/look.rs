//! Requests that change nothing.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::message::{Attr, DirItem, Entry, Kind, NodeId, OpenMode, Reply, StatFs, Time};
use gofer_proto::{MAX_WALK, MAX_XATTR, name};
use hostsys::{dirent, opath};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, fstat, fstatat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Whence, lseek};

use crate::error::{Result, host, sys};
use crate::nodes::{Node, Stream};
use crate::server::{Outcome, Server};

/// Bytes of raw entries in one listing's answer, so chosen that they fit a message with their files and without.
const LIST_WITH_FILES: usize = 10 * 1024;
const LIST_PLAIN: usize = 24 * 1024;
/// Bytes of a listing's answer that its files may take, and what one takes besides its target.
const FILES_ROOM: usize = 40 * 1024;
const FILE_ROOM: usize = 128;

/// Host attributes as the protocol has them.
pub fn attr(stat: &FileStat) -> Result<Attr> {
    let time = |sec: i64, nsec: i64| Time { sec, nsec: u32::try_from(nsec.clamp(0, 999_999_999)).unwrap_or(0) };
    Ok(Attr {
        dev: stat.st_dev,
        ino: stat.st_ino,
        kind: Kind::from_mode(stat.st_mode).ok_or(Errno::EIO)?,
        perm: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        size: stat.st_size.max(0).cast_unsigned(),
        blocks: stat.st_blocks.max(0).cast_unsigned(),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        rdev: stat.st_rdev,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// `name` for the host, if it is one component.
///
/// # Errors
/// `EINVAL`; `ENAMETOOLONG`.
pub fn component(name: &[u8]) -> Result<CString> {
    name::check(name)?;
    CString::new(name).map_err(|_| Errno::EINVAL)
}

fn attribute_name(name: &[u8]) -> Result<CString> {
    name::check_xattr(name)?;
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// How a name is looked for.
type Find = fn(BorrowedFd<'_>, &CStr) -> hostsys::Result<OwnedFd>;

impl Server {
    /// Attributes of what `fd` holds.
    pub fn attr_of(&self, fd: &impl AsFd) -> Result<Attr> {
        attr(&fstat(fd.as_fd()).map_err(host)?)
    }

    /// Takes the file behind an O_PATH descriptor in.
    pub fn hold(&self, fd: OwnedFd, mount: usize) -> Result<Entry> {
        let attr = self.attr_of(&fd)?;
        let target = match attr.kind {
            Kind::Symlink => Some(opath::read_link(fd.as_fd()).map_err(sys)?),
            _ => None,
        };
        let id = self.nodes.lock().insert(Node::new(fd, mount, attr.kind))?;
        Ok(Entry { id, attr, target })
    }

    /// Finds `name` in `dir` and takes it in.
    pub fn find(&self, dir: &Node, name: &[u8]) -> Result<Entry> {
        let fd = opath::find(dir.fd(), &component(name)?).map_err(sys)?;
        self.hold(fd, dir.mount)
    }

    pub fn walk(&self, node: &Arc<Node>, names: &[Vec<u8>]) -> Result<Outcome> {
        self.walk_by(node, names, opath::find)
    }

    /// [`Server::walk`] as far as the host knows the names without asking a disk or a server.
    ///
    /// # Errors
    /// `EAGAIN` where it does not.
    pub fn walk_cached(&self, node: &Arc<Node>, names: &[Vec<u8>]) -> Result<Outcome> {
        let outcome = self.walk_by(node, names, opath::find_cached)?;
        if matches!(&outcome.reply, Reply::Walk { errno, .. } if i32::from(*errno) == libc::EAGAIN) {
            self.let_go(&outcome.reply);
            return Err(Errno::EAGAIN);
        }
        Ok(outcome)
    }

    fn walk_by(&self, node: &Arc<Node>, names: &[Vec<u8>], find: Find) -> Result<Outcome> {
        if names.is_empty() || names.len() > MAX_WALK {
            return Err(Errno::EINVAL);
        }
        // All names are checked before the first is used.
        names.iter().try_for_each(|n| name::check(n))?;
        let mut at = node.as_dir()?.clone();
        let mut found: Vec<Entry> = Vec::with_capacity(names.len());
        let mut errno = 0;
        for name in names {
            let fd = component(name).and_then(|name| find(at.fd(), &name).map_err(sys));
            match fd.and_then(|fd| self.hold(fd, at.mount)) {
                Ok(entry) => {
                    let (id, kind) = (entry.id, entry.attr.kind);
                    found.push(entry);
                    if kind != Kind::Directory {
                        break;
                    }
                    at = self.nodes.lock().get(id)?;
                }
                Err(e) => {
                    errno = u16::try_from(e.raw()).unwrap_or(0);
                    break;
                }
            }
        }
        Ok(Reply::Walk { found, errno }.into())
    }

    pub fn get_attr(&self, node: &Node) -> Result<Outcome> {
        Ok(Reply::Attr(self.attr_of(&node.fd())?).into())
    }

    pub fn stat_fs(&self, node: &Node) -> Result<Outcome> {
        let fs = fstatfs(node.fd()).map_err(host)?;
        Ok(Reply::StatFs(StatFs {
            magic: fs.filesystem_type().0.cast_unsigned(),
            bsize: u64::try_from(fs.block_size()).unwrap_or(4096),
            blocks: [fs.blocks(), fs.blocks_free(), fs.blocks_available()],
            files: [fs.files(), fs.files_free()],
            namelen: u64::try_from(fs.maximum_name_length()).unwrap_or(255),
        })
        .into())
    }

    pub fn open(&self, node: &Node, mode: OpenMode) -> Result<Outcome> {
        // Opening anything else has effects on the host, or gives a way out of what is served.
        match node.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR),
            Kind::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        }
        let flags = match mode {
            OpenMode::Read => OFlag::O_RDONLY,
            OpenMode::ReadWrite => {
                self.writable(node)?;
                OFlag::O_RDWR
            }
        };
        let fd = self.magic.reopen(node.fd(), flags).map_err(sys)?;
        Ok(Outcome { reply: Reply::Donated(self.attr_of(&fd)?), fd: Some(fd) })
    }

    pub fn read_link(&self, node: &Node) -> Result<Outcome> {
        if node.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::Bytes(opath::read_link(node.fd()).map_err(sys)?).into())
    }

    pub fn read_dir(&self, id: NodeId, node: &Arc<Node>, cookie: u64, files: bool) -> Result<Outcome> {
        let node = node.as_dir()?;
        let seek = i64::try_from(cookie).map_err(|_| Errno::EINVAL)?;
        // Nobody else has the stream while it is taken: another listing of the directory opens its own.
        let taken = self.nodes.lock().take_stream(id);
        let mut stream = match taken {
            Some(stream) => stream,
            None => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let fd = opath::open_in(node.fd(), c".", flags, nix::sys::stat::Mode::empty()).map_err(sys)?;
                Stream { fd, at: 0 }
            }
        };
        // From the start always seeks: that is what makes a file system look again.
        if stream.at != cookie || cookie == 0 {
            lseek(&stream.fd, seek, Whence::SeekSet).map_err(host)?;
        }
        let space = if files { LIST_WITH_FILES } else { LIST_PLAIN };
        loop {
            let raw = dirent::read_dir(stream.fd.as_fd(), space).map_err(sys)?;
            let end = raw.is_empty();
            if let Some(last) = raw.last() {
                stream.at = last.next.cast_unsigned();
            }
            let mut room = if files { FILES_ROOM } else { 0 };
            let items: Vec<_> = raw.iter().filter_map(|e| self.item(node, e, &mut room)).collect();
            // A piece that held nothing but dots is not an end.
            if items.is_empty() && !end {
                continue;
            }
            if !end {
                self.nodes.lock().keep_stream(id, stream);
            }
            return Ok(Reply::Items { items, end }.into());
        }
    }

    /// A raw entry as it is told, with its file while there is room for it; none for `.` and `..`.
    fn item(&self, dir: &Node, raw: &dirent::RawEntry, room: &mut usize) -> Option<DirItem> {
        name::check(&raw.name).ok()?;
        let next = raw.next.cast_unsigned();
        let file = || self.find(dir, &raw.name).ok();
        let entry = room.checked_sub(FILE_ROOM).and_then(|_| file());
        if let Some(entry) = entry {
            let (kind, ino) = (entry.attr.kind, entry.attr.ino);
            let takes = FILE_ROOM + entry.target.as_ref().map_or(0, Vec::len);
            let fits = room.checked_sub(takes);
            if fits.is_none() {
                self.nodes.lock().remove(entry.id);
            }
            *room = fits.unwrap_or(0);
            return Some(DirItem { name: raw.name.clone(), ino, kind, next, entry: fits.map(|_| entry) });
        }
        // Not all file systems list types.
        let kind = Kind::from_mode(u32::from(raw.kind) << 12).or_else(|| {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
            fstatat(dir.fd(), raw.name.as_slice(), flags).ok().and_then(|stat| Kind::from_mode(stat.st_mode))
        })?;
        Some(DirItem { name: raw.name.clone(), ino: raw.ino, kind, next, entry: None })
    }

    pub fn get_xattr(&self, node: &Node, name: &[u8]) -> Result<Outcome> {
        let name = attribute_name(name)?;
        Ok(Reply::Bytes(self.magic.xattr(node.fd(), &name, MAX_XATTR).map_err(sys)?).into())
    }

    pub fn list_xattr(&self, node: &Node) -> Result<Outcome> {
        Ok(Reply::Names(self.magic.xattrs(node.fd(), MAX_XATTR).map_err(sys)?).into())
    }

    pub fn set_xattr(&self, node: &Node, name: &[u8], value: &[u8], flags: u32) -> Result<Outcome> {
        let name = attribute_name(name)?;
        self.writable(node)?;
        let known = (libc::XATTR_CREATE | libc::XATTR_REPLACE).cast_unsigned();
        if flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        self.magic.set_xattr(node.fd(), &name, value, flags.cast_signed()).map_err(sys)?;
        Ok(Reply::Done.into())
    }

    pub fn remove_xattr(&self, node: &Node, name: &[u8]) -> Result<Outcome> {
        let name = attribute_name(name)?;
        self.writable(node)?;
        self.magic.remove_xattr(node.fd(), &name).map_err(sys)?;
        Ok(Reply::Done.into())
    }
}
