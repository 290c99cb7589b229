//! Builds from a directory. Walks by descriptor and never follows a symbolic link below the source, so a tree that
//! changes under us (or wants to lead us astray) cannot make us read outside it.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, major, minor};
use nix::unistd::{Whence, lseek64};

use super::data::Source;
use super::error::{BuildError, Result};
use super::tree::{Body, Meta, Node, NodeId, ROOT};
use super::xattrs::OwnedXattr;
use super::{Builder, Options, ProgressFn, Summary};
use crate::FileType;
use crate::inode::encode_dev;

/// Builds an image of the directory `src` at `out`, which appears complete or not at all.
pub fn from_dir<'p>(src: &Path, out: &Path, options: &Options, progress: &'p mut ProgressFn<'p>) -> Result<Summary> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(src, flags, Mode::empty()).map_err(|errno| BuildError::read(src, errno))?;
    let stat = fstat(&root).map_err(|errno| BuildError::read(src, errno))?;
    let mut builder = Builder::new(out, progress)?;
    let node = builder.tree.get_mut(ROOT);
    node.meta = meta(&stat, src)?;
    node.xattrs = xattrs(&root, src)?;
    builder.files += 1;
    let output = nix::sys::stat::stat(out).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let walk = Walk { builder, one_file_system: options.one_file_system, output, links: HashMap::new() };
    walk.run(root, &stat, src)?.finish()
}

/// A directory being walked.
struct Level {
    fd: OwnedFd,
    node: NodeId,
    device: u64,
    /// Names still to visit, last first.
    names: Vec<CString>,
}

struct Walk<'p> {
    builder: Builder<'p>,
    one_file_system: bool,
    /// The image of an earlier build, when it lies inside the source: left out.
    output: Option<(u64, u64)>,
    /// Nodes of files that have more than one link.
    links: HashMap<(u64, u64), NodeId>,
}

impl<'p> Walk<'p> {
    fn run(mut self, root: OwnedFd, stat: &FileStat, src: &Path) -> Result<Builder<'p>> {
        let mut path = src.to_owned();
        let mut levels = vec![level(root, ROOT, stat.st_dev, &path)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                path.pop();
                continue;
            };
            path.push(OsStr::from_bytes(name.as_bytes()));
            match self.visit(level, &name, &path)? {
                Some(below) => levels.push(below),
                None => {
                    path.pop();
                }
            }
        }
        Ok(self.builder)
    }

    /// Adds the file `name`; returns the level to walk next when it is a directory.
    fn visit(&mut self, level: &Level, name: &CString, path: &Path) -> Result<Option<Level>> {
        let failed = |errno: Errno| BuildError::read(path, errno);
        let stat = fstatat(&level.fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        let identity = (stat.st_dev, stat.st_ino);
        if self.output == Some(identity) || self.builder.out.is_temporary(identity) {
            log::warn!("{} is the image being built: left out", path.display());
            return Ok(None);
        }
        self.builder.files += 1;
        self.builder.report(path)?;
        let file_type = file_type(&stat, path)?;
        let linked = file_type != FileType::Directory && stat.st_nlink > 1;
        if linked && let Some(&node) = self.links.get(&identity) {
            self.builder.tree.link(level.node, name.as_bytes(), node);
            return Ok(None);
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let flags = match file_type {
            FileType::Directory => flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            FileType::Regular => flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
            _ => flags | OFlag::O_PATH,
        };
        let fd = openat(&level.fd, name.as_c_str(), flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&fd).map_err(failed)?;
        if identity != (stat.st_dev, stat.st_ino) {
            return Err(BuildError::invalid(path, "changed while it was read"));
        }
        let node = self.add(file_type, &fd, &stat, path)?;
        self.builder.tree.link(level.node, name.as_bytes(), node);
        if linked {
            self.links.insert(identity, node);
        }
        if file_type != FileType::Directory {
            return Ok(None);
        }
        if self.one_file_system && stat.st_dev != level.device {
            log::warn!("{} is on another file system: its content is left out", path.display());
            return Ok(None);
        }
        self::level(fd, node, stat.st_dev, path).map(Some)
    }

    fn add(&mut self, file_type: FileType, fd: &OwnedFd, stat: &FileStat, path: &Path) -> Result<NodeId> {
        let body = match file_type {
            FileType::Directory => Body::Dir(Default::default()),
            FileType::Regular => {
                let file = File::from(fd.try_clone().map_err(|error| BuildError::read(path, error))?);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                // Only a file with fewer blocks than its size needs is asked for holes.
                let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
                Body::File(self.builder.store(path, size, &mut FileSource { file, size, sparse, data_end: 0 })?)
            }
            FileType::Symlink => {
                let target = readlinkat(fd, "").map_err(|errno| BuildError::read(path, errno))?;
                Body::Symlink(target.as_bytes().into())
            }
            FileType::CharDevice | FileType::BlockDevice => {
                let rdev = encode_dev(major(stat.st_rdev), minor(stat.st_rdev));
                let rdev = rdev.ok_or_else(|| BuildError::invalid(path, "device number too large for the format"))?;
                Body::Special(file_type, rdev)
            }
            FileType::Fifo | FileType::Socket => Body::Special(file_type, 0),
        };
        let node = Node { meta: meta(stat, path)?, xattrs: xattrs(fd, path)?, body };
        Ok(self.builder.tree.push(node))
    }
}

/// Opens a level: reads all names, sorted.
fn level(fd: OwnedFd, node: NodeId, device: u64, path: &Path) -> Result<Level> {
    let failed = |errno: Errno| BuildError::read(path, errno);
    let mut dir = Dir::openat(&fd, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(failed)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Level { fd, node, device, names })
}

fn file_type(stat: &FileStat, path: &Path) -> Result<FileType> {
    // The type bits are among the low 16.
    FileType::from_mode((stat.st_mode & 0xffff) as u16).ok_or_else(|| BuildError::invalid(path, "unknown file type"))
}

fn meta(stat: &FileStat, path: &Path) -> Result<Meta> {
    let nsec = u32::try_from(stat.st_mtime_nsec).ok().filter(|&nsec| nsec < 1_000_000_000);
    Ok(Meta {
        perm: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, nsec.ok_or_else(|| BuildError::invalid(path, "impossible modification time"))?),
    })
}

/// The extended attributes of an open file, sorted. Opened with `O_PATH`, only `/proc/self/fd` leads to them.
fn xattrs(fd: &OwnedFd, path: &Path) -> Result<Vec<OwnedXattr>> {
    let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let failed = |error| BuildError::read(path, error);
    let names = match xattr::list_deref(&link) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut xattrs = Vec::new();
    for name in names {
        // Removed since it was listed: None.
        let Some(value) = xattr::get_deref(&link, &name).map_err(failed)? else { continue };
        match OwnedXattr::new(name.as_bytes(), value) {
            Ok(xattr) => xattrs.push(xattr),
            Err(why) => log::warn!("{}: extended attribute {} left out: {why}", path.display(), name.display()),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// A file of the host as source of data.
struct FileSource {
    file: File,
    size: u64,
    sparse: bool,
    /// End of the stretch of data that was found last.
    data_end: u64,
}

impl Source for FileSource {
    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&mut self, offset: u64) -> io::Result<u64> {
        if !self.sparse || offset < self.data_end {
            return Ok(offset);
        }
        let from = i64::try_from(offset).unwrap_or(i64::MAX);
        match lseek64(&self.file, from, Whence::SeekData) {
            Ok(data) => {
                let end = lseek64(&self.file, data, Whence::SeekHole)?;
                self.data_end = u64::try_from(end).unwrap_or(0);
                Ok(u64::try_from(data).unwrap_or(offset).max(offset))
            }
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => Ok(self.size),
            // A file system that does not know: all is data.
            Err(_) => {
                self.sparse = false;
                Ok(offset)
            }
        }
    }
}
