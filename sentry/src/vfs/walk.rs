//! From a path to a place: the walk of `path_resolution(7)`, as `fs/namei.c` does it.

use std::sync::Arc;

use abi::Errno;

use crate::kernel::trip::inputs::{self, Place};
use crate::vfs::anon;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::Target;
use crate::vfs::inode::{FileType, Inode};
use crate::vfs::path::PathRef;
use crate::vfs::perm::{self, MAY_EXEC};

/// Longest name (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest path without its NUL (`PATH_MAX - 1`).
pub const PATH_MAX: usize = 4095;
/// Most symlinks on a walk (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// `openat2(2)`'s RESOLVE_* flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Resolve: u64 {
        /// Stay on one mount.
        const NO_XDEV = 1;
        /// No magic links.
        const NO_MAGICLINKS = 2;
        /// No symlinks at all.
        const NO_SYMLINKS = 4;
        /// Nothing above the start.
        const BENEATH = 8;
        /// The start is `/`.
        const IN_ROOT = 16;
        /// Only what is cached.
        const CACHED = 32;
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name(Vec<u8>),
    /// `.`.
    Dot,
    /// `..`.
    DotDot,
    /// There is none: the path is all slashes.
    Root,
}

/// A path resolved to all but its last component.
#[derive(Clone)]
pub struct Parent {
    /// The directory.
    pub dir: PathRef,
    /// The rest.
    pub last: Last,
    /// Whether slashes follow it: it must be a directory.
    pub trailing: bool,
}

/// Where a link leads.
enum Link {
    Text(Vec<u8>),
    Jump(PathRef),
}

/// A walk under way: counts symlinks over all its parts.
pub struct Walk<'a> {
    caller: &'a Caller<'a>,
    root: PathRef,
    start: PathRef,
    links: u32,
    resolve: Resolve,
}

impl<'a> Walk<'a> {
    /// A walk from `start` (for relative paths).
    #[must_use]
    pub fn new(caller: &'a Caller<'a>, start: PathRef, resolve: Resolve) -> Self {
        let scoped = resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        let root = if scoped { start.clone() } else { caller.root.clone() };
        Walk { caller, root, start, links: 0, resolve }
    }

    /// Resolves the whole path.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTDIR`; `EACCES`; `ELOOP`; `ENAMETOOLONG`; `EXDEV` where [`Resolve`] forbids the way.
    pub fn path(&mut self, path: &[u8], follow: bool) -> Result<PathRef, Errno> {
        let start = self.start.clone();
        let same = |to: &Place| matches!(to, Place::Path(_, followed) if *followed == follow);
        let walk = || {
            let parent = self.parent_from(start.clone(), path)?;
            self.last(parent, follow).map(|place| Place::Path(place, follow))
        };
        match inputs::place(&start, path, same, walk)? {
            Place::Path(place, _) => Ok(place),
            Place::Parent(_) => Err(Errno::EIO),
        }
    }

    /// Resolves all but the last component.
    ///
    /// # Errors
    /// As [`Walk::path`].
    pub fn parent(&mut self, path: &[u8]) -> Result<Parent, Errno> {
        let start = self.start.clone();
        let same = |to: &Place| matches!(to, Place::Parent(_));
        match inputs::place(&start, path, same, || self.parent_from(start.clone(), path).map(Place::Parent))? {
            Place::Parent(parent) => Ok(parent),
            Place::Path(..) => Err(Errno::EIO),
        }
    }

    fn parent_from(&mut self, start: PathRef, path: &[u8]) -> Result<Parent, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() > PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut dir = if path[0] == b'/' { self.jump_root(&start)? } else { start };
        let mut rest = path.to_vec();
        loop {
            let Some(begin) = rest.iter().position(|b| *b != b'/') else {
                return Ok(Parent { dir, last: Last::Root, trailing: false });
            };
            let tail = rest.get(begin..).unwrap_or_default();
            let end = tail.iter().position(|b| *b == b'/').unwrap_or(tail.len());
            let (name, after) = tail.split_at(end);
            self.may_search(&dir)?;
            if after.iter().all(|b| *b == b'/') {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(name.to_vec()),
                };
                return Ok(Parent { dir, last, trailing: !after.is_empty() });
            }
            if let Some(ops) = dir.inode().dir() {
                ops.look_ahead(tail)?;
            }
            let mut next = after.to_vec();
            match name {
                b"." => {}
                b".." => dir = self.dotdot(dir)?,
                _ => {
                    let child = self.child(&dir, name)?;
                    if child.inode().attr().kind != FileType::Symlink {
                        dir = child;
                    } else {
                        match self.link(&child)? {
                            Link::Jump(path) => dir = path,
                            Link::Text(mut target) => {
                                if target.first() == Some(&b'/') {
                                    dir = self.jump_root(&dir)?;
                                }
                                target.extend_from_slice(after);
                                next = target;
                            }
                        }
                    }
                }
            }
            rest = next;
        }
    }

    /// Resolves what [`Walk::parent`] left. A symlink is followed where `follow` or slashes behind it say so.
    ///
    /// # Errors
    /// As [`Walk::path`].
    pub fn last(&mut self, mut parent: Parent, follow: bool) -> Result<PathRef, Errno> {
        loop {
            let path = match &parent.last {
                Last::Root | Last::Dot => parent.dir,
                Last::DotDot => self.dotdot(parent.dir)?,
                Last::Name(name) => {
                    let child = self.child(&parent.dir, name)?;
                    if (follow || parent.trailing) && child.inode().attr().kind == FileType::Symlink {
                        match self.follow_last(&parent.dir, &child, parent.trailing)? {
                            Ok(path) => path,
                            Err(next) => {
                                parent = next;
                                continue;
                            }
                        }
                    } else {
                        child
                    }
                }
            };
            if parent.trailing && path.inode().attr().kind != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(path);
        }
    }

    /// Follows `link`, the last component of a path in `dir`: either a place, or the parent of where its text leads.
    ///
    /// # Errors
    /// As [`Walk::path`].
    pub fn follow_last(
        &mut self,
        dir: &PathRef,
        link: &PathRef,
        trailing: bool,
    ) -> Result<Result<PathRef, Parent>, Errno> {
        match self.link(link)? {
            Link::Jump(path) => Ok(Ok(path)),
            Link::Text(target) => {
                let mut parent = self.parent_from(dir.clone(), &target)?;
                parent.trailing |= trailing;
                Ok(Err(parent))
            }
        }
    }

    fn link(&mut self, link: &PathRef) -> Result<Link, Errno> {
        self.links += 1;
        if self.links > MAX_LINKS || self.resolve.contains(Resolve::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if let Some(target) = link.inode().follow(self.caller) {
            if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            let path = match target? {
                Target::Path(path) => path,
                Target::File(file) => anon::path_of(self.caller.vfs, file)?,
            };
            if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            self.same_mount(&link.mount, &path)?;
            return Ok(Link::Jump(path));
        }
        let target = link.inode().readlink(self.caller)?;
        if target.is_empty() { Err(Errno::ENOENT) } else { Ok(Link::Text(target)) }
    }

    fn jump_root(&self, from: &PathRef) -> Result<PathRef, Errno> {
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        self.same_mount(&from.mount, &self.root)?;
        Ok(self.root.clone())
    }

    fn same_mount(&self, mount: &Arc<crate::vfs::mount::Mount>, to: &PathRef) -> Result<(), Errno> {
        let crosses = self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(mount, &to.mount);
        if crosses { Err(Errno::EXDEV) } else { Ok(()) }
    }

    fn may_search(&self, dir: &PathRef) -> Result<(), Errno> {
        let attr = dir.inode().attr();
        if attr.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        perm::check_mode(&self.caller.creds, &attr, MAY_EXEC)
    }

    fn dotdot(&self, mut at: PathRef) -> Result<PathRef, Errno> {
        loop {
            if at == self.root {
                let beneath = self.resolve.contains(Resolve::BENEATH);
                return if beneath { Err(Errno::EXDEV) } else { Ok(at) };
            }
            if !at.is_mount_root() {
                if let Some(parent) = at.dentry.parent() {
                    at.dentry = parent;
                }
                return self.topmost(at);
            }
            match at.mount.place() {
                Some(place) => {
                    self.same_mount(&at.mount, &place)?;
                    at = place;
                }
                None => return Ok(at),
            }
        }
    }

    /// What covers `path`, as high as it goes.
    fn topmost(&self, mut path: PathRef) -> Result<PathRef, Errno> {
        while let Some(mount) = self.caller.vfs.mounts.at(&path) {
            let to = mount.root_path();
            self.same_mount(&path.mount, &to)?;
            path = to;
        }
        Ok(path)
    }

    /// The entry `name` of `dir`, mounts on it crossed, symlinks not followed.
    ///
    /// # Errors
    /// `ENOENT`; `ENAMETOOLONG`; `ENOTDIR`.
    pub fn child(&self, dir: &PathRef, name: &[u8]) -> Result<PathRef, Errno> {
        let dentry = lookup(self.caller, &dir.dentry, name)?;
        self.topmost(PathRef { mount: dir.mount.clone(), dentry })
    }
}

/// The entry `name` of the directory `dir`, from the cache or its file system.
///
/// # Errors
/// `ENOENT`; `ENAMETOOLONG`; `ENOTDIR`.
pub fn lookup(caller: &Caller<'_>, dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let find = || -> Result<Arc<dyn Inode>, Errno> { dir.inode().dir().ok_or(Errno::ENOTDIR)?.lookup(caller, name) };
    for _ in 0..8 {
        let version = match dir.cached(name) {
            // What something is mounted on stays, whatever became of it outside.
            Ok(dentry) if dentry.is_mountpoint() || still_there(caller, dir, name, &dentry)? => return Ok(dentry),
            Ok(_) => {
                dir.removed(name);
                continue;
            }
            Err(version) => version,
        };
        if let Some(dentry) = dir.insert(&caller.vfs.dentries, name, find()?, version) {
            return Ok(dentry);
        }
    }
    // A directory in constant change: what is found now is as good an answer as any.
    Ok(Dentry::detached(find()?, Some(dir.clone()), name))
}

fn still_there(caller: &Caller<'_>, dir: &Arc<Dentry>, name: &[u8], child: &Arc<Dentry>) -> Result<bool, Errno> {
    dir.inode().dir().map_or(Ok(true), |ops| ops.revalidate(caller, name, child.inode()))
}
