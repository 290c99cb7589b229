//! What `mount(2)`, `umount2(2)` and `pivot_root(2)` do (`fs/namespace.c`).

use std::sync::Arc;

use abi::Errno;

use crate::fs::tmpfs::{Limits, TmpFs};
use crate::fs::{cgroup, dev, proc, sys, tty};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::fs_context::FsState;
use crate::vfs::inode::FileType;
use crate::vfs::mount::{Mount, MountFlags, SuperBlock};
use crate::vfs::mount_ns;
use crate::vfs::path::PathRef;

fn is_dir(dentry: &Dentry) -> bool {
    dentry.inode().attr().kind == FileType::Directory
}

/// Covers `place` with `mount`; a directory covers a directory, anything else what is none (`graft_tree`).
fn graft(caller: &Caller<'_>, mount: &Arc<Mount>, place: PathRef) -> Result<(), Errno> {
    if is_dir(&mount.root) != is_dir(&place.dentry) {
        return Err(Errno::ENOTDIR);
    }
    caller.vfs.mounts.attach(mount, place)
}

/// A bind mount: `source` shows at `place` too, with what is mounted below it where `recursive`. Answers the topmost.
///
/// # Errors
/// `ENOTDIR` for a directory on a file or the other way round; `ENOSPC`.
pub fn bind(caller: &Caller<'_>, source: &PathRef, place: PathRef, recursive: bool) -> Result<Arc<Mount>, Errno> {
    let table = &caller.vfs.mounts;
    let copy = |m: &Arc<Mount>, root: &Arc<Dentry>| table.detached(m.sb.clone(), root.clone(), m.flags());
    let top = copy(&source.mount, &source.dentry);
    // Listed before anything is attached: the copy may lie below its source.
    let below = if recursive { table.below(&source.mount) } else { Vec::new() };
    graft(caller, &top, place)?;
    let mut copies = vec![(source.mount.id, top.clone())];
    for mount in below {
        let Some(at) = mount.place() else { continue };
        if at.mount.id == source.mount.id && !at.dentry.is_within(&source.dentry) {
            continue;
        }
        let Some((_, parent)) = copies.iter().find(|(id, _)| *id == at.mount.id).cloned() else { continue };
        let fresh = copy(&mount, &mount.root);
        table.attach(&fresh, PathRef { mount: parent, dentry: at.dentry })?;
        copies.push((mount.id, fresh));
    }
    Ok(top)
}

/// Moves the mount whose root `source` is to `place`.
///
/// # Errors
/// `EINVAL` where it is no mount's root, or the first of all; `ELOOP` into itself; `ENOTDIR`.
pub fn relocate(caller: &Caller<'_>, source: &PathRef, place: PathRef) -> Result<(), Errno> {
    if !source.is_mount_root() || source.mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    if is_dir(&source.dentry) != is_dir(&place.dentry) {
        return Err(Errno::ENOTDIR);
    }
    let mut at = Some(place.clone());
    while let Some(p) = at {
        if Arc::ptr_eq(&p.mount, &source.mount) {
            return Err(Errno::ELOOP);
        }
        at = p.mount.place();
    }
    caller.vfs.mounts.relocate(&source.mount, place)
}

/// A number with the suffixes of tmpfs's size option, in bytes.
fn size(text: &str, total: u64) -> Result<u64, Errno> {
    if let Some(percent) = text.strip_suffix('%') {
        return Ok(total / 100 * percent.parse::<u64>().map_err(|_| Errno::EINVAL)?);
    }
    let (digits, shift) = match text.chars().last().map(|c| c.to_ascii_lowercase()) {
        Some('k') => (text.get(..text.len() - 1), 10),
        Some('m') => (text.get(..text.len() - 1), 20),
        Some('g') => (text.get(..text.len() - 1), 30),
        _ => (Some(text), 0),
    };
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or(Errno::EINVAL)?;
    number.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

fn tmpfs(kernel: &Kernel, caller: &Caller<'_>, source: &[u8], options: &str) -> Result<SuperBlock, Errno> {
    let total = kernel.memory.limit();
    let mut limits = Limits::default();
    let (mut perm, mut uid, mut gid) = (0o1777, caller.creds.fsuid(), caller.creds.fsgid());
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
        match name {
            // 0 is no limit.
            "size" => limits.size = Some(size(value, total)?).filter(|n| *n > 0),
            "nr_blocks" => limits.size = Some(size(value, total)?.saturating_mul(4096)).filter(|n| *n > 0),
            "nr_inodes" => limits.inodes = Some(size(value, total)?).filter(|n| *n > 0),
            "mode" => perm = number(8)? & 0o7777,
            "uid" => uid = number(10)?,
            "gid" => gid = number(10)?,
            "huge" | "mpol" | "noswap" | "inode32" | "inode64" | "seclabel" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(TmpFs::mount(caller.vfs, &kernel.memory, "tmpfs", source, (perm, uid, gid), limits))
}

/// A new file system of type `fstype`, and whether /dev's content belongs into it (devtmpfs).
///
/// # Errors
/// `ENODEV` for types that are not there; `EINVAL` for options.
pub fn super_block(
    kernel: &Arc<Kernel>,
    caller: &Caller<'_>,
    container: &Arc<Container>,
    (fstype, source, options): (&[u8], &[u8], &[u8]),
) -> Result<(SuperBlock, bool), Errno> {
    let options = std::str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
    let plain = |name: &'static str, perm| {
        TmpFs::mount(caller.vfs, &kernel.memory, name, source, (perm, 0, 0), Limits::default())
    };
    let sb = match fstype {
        b"tmpfs" | b"ramfs" => tmpfs(kernel, caller, source, if fstype == b"ramfs" { "" } else { options })?,
        b"devtmpfs" => return Ok((plain("devtmpfs", 0o755), true)),
        b"proc" => proc::mount(kernel, &container.ns),
        b"sysfs" => sys::mount(kernel),
        b"devpts" => tty::devpts::mount(kernel, &container.ptys),
        b"cgroup2" => cgroup::mount(kernel, container),
        b"mqueue" => plain("mqueue", 0o1777),
        _ => return Err(Errno::ENODEV),
    };
    Ok((sb, false))
}

/// Mounts a new file system of type `fstype` at `place`.
///
/// # Errors
/// As [`super_block`]; `ENOTDIR`.
pub fn mount_new(
    kernel: &Arc<Kernel>,
    caller: &Caller<'_>,
    what: (&[u8], &[u8], &[u8]),
    place: PathRef,
    flags: MountFlags,
) -> Result<(), Errno> {
    let container = caller.task.ok_or(Errno::EINVAL)?.container();
    let (sb, populate) = super_block(kernel, caller, container, what)?;
    let sb = Arc::new(sb);
    let mount = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), flags);
    if populate {
        dev::populate(&Caller::kernel(caller.vfs, mount.root_path()), &mount.root_path())?;
    }
    graft(caller, &mount, place)
}

/// Takes the mount whose root `place` is off the tree.
///
/// # Errors
/// `EINVAL` where it is no mount's root; `EBUSY` where it is in use, unless `lazy`.
pub fn unmount(caller: &Caller<'_>, place: PathRef, lazy: bool) -> Result<(), Errno> {
    if !place.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let mount = place.mount.clone();
    // It holds the mount, and so would look like a user.
    drop(place);
    if mount.place().is_none() {
        return Err(if lazy { Errno::EINVAL } else { Errno::EBUSY });
    }
    // Used by the table and by us; more is a working directory, an open file, something mounted below.
    if !lazy && Arc::strong_count(&mount) > 2 {
        return Err(Errno::EBUSY);
    }
    caller.vfs.mounts.detach(&mount, lazy)?;
    if !caller.vfs.mounts.all().iter().any(|m| Arc::ptr_eq(&m.sb, &mount.sb)) {
        mount.watches.unmounted(mount.sb.dev);
    }
    Ok(())
}

/// Makes `new` the root of the caller's namespace and hangs the old one at `put_old`, below it.
///
/// # Errors
/// `EINVAL`, `EBUSY`, `ENOTDIR` as `pivot_root(2)`.
pub fn pivot_root(kernel: &Kernel, caller: &Caller<'_>, new: &PathRef, put_old: &PathRef) -> Result<(), Errno> {
    let task = caller.task.ok_or(Errno::EINVAL)?;
    let fs = task.fs().ok_or(Errno::EINVAL)?;
    let state = fs.state.lock().clone();
    let table = &caller.vfs.mounts;
    let ns_root = mount_ns::root_of(table, &state)?;
    if !is_dir(&new.dentry) || !is_dir(&put_old.dentry) {
        return Err(Errno::ENOTDIR);
    }
    let root = &caller.root;
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
        return Err(Errno::EBUSY);
    }
    if !root.is_mount_root() || !Arc::ptr_eq(&root.mount, &ns_root) || !new.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    // The old root must lie at or below the new one.
    let mut at = put_old.clone();
    while !Arc::ptr_eq(&at.mount, &new.mount) {
        at = at.mount.place().ok_or(Errno::EINVAL)?;
    }
    table.pivot(&ns_root, &new.mount, put_old.clone())?;
    match &state.ns {
        Some(ns) => ns.set_root(new.mount.clone()),
        None => table.set_root(new.mount.clone()),
    }
    for other in kernel.tasks() {
        let Some(fs) = other.fs() else { continue };
        let mut state = fs.state.lock();
        let FsState { root: its_root, cwd, .. } = &mut *state;
        for place in [its_root, cwd] {
            if *place == *root {
                *place = new.clone();
            }
        }
    }
    Ok(())
}
