//! From a path and flags to an open file (`do_filp_open` in `fs/namei.c`).

use std::sync::Arc;

use abi::Errno;

use crate::fs::dev::DeviceRegistry;
use crate::vfs::anon;
use crate::vfs::caller::Caller;
use crate::vfs::change;
use crate::vfs::dentry::Dentry;
use crate::vfs::dir_file::{DirFile, PathFile};
use crate::vfs::file::{FileDescription, FileOps, OpenFlags};
use crate::vfs::inode::{Attr, FileType, SetAttr};
use crate::vfs::mount::MountFlags;
use crate::vfs::notify::event;
use crate::vfs::path::PathRef;
use crate::vfs::perm::{self, MAY_EXEC, MAY_READ, MAY_WRITE};
use crate::vfs::walk::{Last, Resolve, Walk};

/// How to open: `struct open_how`, checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// Flags.
    pub flags: OpenFlags,
    /// Permission bits for a new file, umask not applied yet.
    pub mode: u32,
    /// Limits of the walk.
    pub resolve: Resolve,
    /// For execution: execute permission instead of read.
    pub exec: bool,
}

/// What an open leads to.
pub enum Opened {
    /// An open file.
    File(Arc<FileDescription>),
    /// A FIFO, whose opening may wait for the other side.
    Fifo(PathRef, OpenFlags),
}

impl OpenHow {
    /// Checks flags as `build_open_flags` does; `open` and `openat` ignore unknown bits.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn checked(mut self) -> Result<Self, Errno> {
        let f = self.flags;
        if f.contains(OpenFlags::TMPFILE) {
            if !f.contains(OpenFlags::DIRECTORY) || f.contains(OpenFlags::CREAT) || !f.writable() {
                return Err(Errno::EINVAL);
            }
        } else if f.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if f.contains(OpenFlags::PATH) {
            let keep = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
            self.flags = f.intersection(keep);
        }
        self.mode &= 0o7777;
        Ok(self)
    }

    fn access(&self) -> u32 {
        if self.exec {
            return MAY_EXEC;
        }
        // Access mode 3 asks for both permissions and gives neither (open(2), NOTES).
        let mask = match self.flags.bits() & 3 {
            0 => MAY_READ,
            1 => MAY_WRITE,
            _ => MAY_READ | MAY_WRITE,
        };
        mask | if self.flags.contains(OpenFlags::TRUNC) { MAY_WRITE } else { 0 }
    }
}

/// Opens `path` from `start`.
///
/// # Errors
/// As `open(2)`.
pub fn open(
    caller: &Caller<'_>,
    devices: &DeviceRegistry,
    start: PathRef,
    path: &[u8],
    how: OpenHow,
) -> Result<Opened, Errno> {
    let how = how.checked()?;
    let mut walk = Walk::new(caller, start, how.resolve);
    if how.flags.contains(OpenFlags::TMPFILE) {
        return open_unnamed(caller, &mut walk, path, how);
    }
    if !how.flags.contains(OpenFlags::CREAT) {
        let place = walk.path(path, !how.flags.contains(OpenFlags::NOFOLLOW))?;
        return open_place(caller, devices, place, how, false);
    }
    let mut parent = walk.parent(path)?;
    loop {
        let Last::Name(name) = &parent.last else { return Err(Errno::EISDIR) };
        if parent.trailing {
            return Err(Errno::EISDIR);
        }
        let place = match walk.child(&parent.dir, name) {
            Ok(place) => place,
            Err(Errno::ENOENT) => match change::create_file(caller, &parent.dir, name, how.mode) {
                Ok(place) => return open_place(caller, devices, place, how, true),
                // Somebody else was faster; without O_EXCL theirs is as good.
                Err(Errno::EEXIST) if !how.flags.contains(OpenFlags::EXCL) => continue,
                Err(errno) => return Err(errno),
            },
            Err(errno) => return Err(errno),
        };
        if how.flags.contains(OpenFlags::EXCL) {
            return Err(Errno::EEXIST);
        }
        let is_link = place.inode().attr().kind == FileType::Symlink;
        if !is_link || how.flags.contains(OpenFlags::NOFOLLOW) {
            return open_place(caller, devices, place, how, false);
        }
        let dir = parent.dir.clone();
        match walk.follow_last(&dir, &place, false)? {
            Ok(place) => return open_place(caller, devices, place, how, false),
            Err(next) => parent = next,
        }
    }
}

/// Opens a place that has been found (`do_open`). `created`: we have just made it, so its mode does not matter.
///
/// # Errors
/// As `open(2)`.
pub fn open_place(
    caller: &Caller<'_>,
    devices: &DeviceRegistry,
    place: PathRef,
    how: OpenHow,
    created: bool,
) -> Result<Opened, Errno> {
    let attr = place.inode().attr();
    let flags = how.flags;
    let is_dir = attr.kind == FileType::Directory;
    if flags.contains(OpenFlags::CREAT) && is_dir {
        return Err(Errno::EISDIR);
    }
    if flags.contains(OpenFlags::DIRECTORY) && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    if flags.contains(OpenFlags::PATH) {
        let inode = place.inode().clone();
        return Ok(Opened::File(FileDescription::new(Arc::new(PathFile), flags, Some(place), Some(inode))));
    }
    may_open(caller, &place, &attr, how, created)?;
    if attr.kind == FileType::Fifo && !anon::is_anonymous(place.inode().as_ref()) {
        return Ok(Opened::Fifo(place, flags));
    }
    let ops = open_ops(caller, devices, &place, &attr, flags)?;
    // First what may have to wait: an open file is made, and told of, once.
    let truncates = flags.contains(OpenFlags::TRUNC) && attr.kind == FileType::Regular && !created;
    if truncates {
        truncate_opened(caller, &place, &attr)?;
    }
    let inode = place.inode().clone();
    let file = FileDescription::new(ops, flags, Some(place.clone()), Some(inode));
    if truncates {
        place.notify(event::MODIFY);
    }
    Ok(Opened::File(file))
}

fn may_open(caller: &Caller<'_>, place: &PathRef, attr: &Attr, how: OpenHow, created: bool) -> Result<(), Errno> {
    let access = how.access();
    match attr.kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if access & MAY_WRITE != 0 => return Err(Errno::EISDIR),
        FileType::Directory if how.exec => return Err(Errno::EACCES),
        FileType::CharDevice | FileType::BlockDevice if place.mount.flags().contains(MountFlags::NODEV) => {
            return Err(Errno::EACCES);
        }
        FileType::Regular => {}
        _ if how.exec => return Err(Errno::EACCES),
        _ => {}
    }
    if how.exec && place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    // An anonymous file has no name that could be guarded: whoever reaches it holds it.
    if !created && !anon::is_anonymous(place.inode().as_ref()) {
        perm::check(&caller.creds, place, access)?;
    }
    if how.flags.contains(OpenFlags::NOATIME) && !perm::is_owner(&caller.creds, attr) {
        return Err(Errno::EPERM);
    }
    if attr.kind == FileType::Regular && access & MAY_WRITE != 0 && place.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    Ok(())
}

fn open_ops(
    caller: &Caller<'_>,
    devices: &DeviceRegistry,
    place: &PathRef,
    attr: &Attr,
    flags: OpenFlags,
) -> Result<Arc<dyn FileOps>, Errno> {
    let inode = place.inode().clone();
    match attr.kind {
        _ if anon::is_anonymous(inode.as_ref()) => inode.open(caller, flags),
        FileType::CharDevice | FileType::BlockDevice => devices.open(caller, attr, flags),
        FileType::Socket => Err(Errno::ENXIO),
        FileType::Directory if inode.dir().is_some() => Ok(DirFile::new(inode)),
        _ => inode.open(caller, flags),
    }
}

fn truncate_opened(caller: &Caller<'_>, place: &PathRef, attr: &Attr) -> Result<(), Errno> {
    let mut change = SetAttr { size: Some(0), ..SetAttr::default() };
    if attr.perm & 0o6000 != 0 && !caller.creds.has_cap(perm::CAP_FSETID) {
        change.perm = Some(perm::without_set_id(attr.perm));
    }
    place.inode().set_attr(&change)
}

fn open_unnamed(caller: &Caller<'_>, walk: &mut Walk<'_>, path: &[u8], how: OpenHow) -> Result<Opened, Errno> {
    let dir = walk.path(path, true)?;
    if dir.inode().attr().kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if dir.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    perm::may_create(&caller.creds, &dir)?;
    let node = change::new_node(caller, &dir.inode().attr(), FileType::Regular, how.mode);
    let inode = dir.inode().dir().ok_or(Errno::ENOTDIR)?.create_unnamed(caller, &node)?;
    // Shown as `#INO (deleted)`, as Linux does.
    let name = format!("#{}", inode.attr().key.ino).into_bytes();
    let dentry = Dentry::detached(inode.clone(), Some(dir.dentry.clone()), &name);
    dentry.set_deleted(true);
    dentry.set_linkable(!how.flags.contains(OpenFlags::EXCL));
    let ops = inode.clone().open(caller, how.flags)?;
    let place = PathRef { mount: dir.mount, dentry };
    let flags = how.flags.difference(OpenFlags::DIRECTORY);
    Ok(Opened::File(FileDescription::new(ops, flags, Some(place), Some(inode))))
}
