//! The first tree: the image below a writable layer, and the kernel's own file systems on it.

use std::fs::File;
use std::sync::Arc;

use abi::Errno;

use crate::fs::rofs::{OpenError, RofsFs};
use crate::fs::tmpfs::{Limits, TmpFs};
use crate::fs::{dev, proc, sys, tty};
use crate::kernel::Kernel;
use crate::vfs::caller::Caller;
use crate::vfs::inode::FileType;
use crate::vfs::mount::{Mount, MountFlags, SuperBlock};
use crate::vfs::path::PathRef;
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{IoSource, OpenFlags, Vfs, change, open};

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The image.
    #[error("the image cannot be used: {0}")]
    Image(#[from] OpenError),
    /// A step of preparing the tree.
    #[error("cannot prepare {path} in the sandbox: {errno}")]
    Tree {
        /// What was to be made.
        path: String,
        /// Why it was not.
        errno: Errno,
    },
}

fn failed(path: &[u8]) -> impl Fn(Errno) -> BootError {
    let path = String::from_utf8_lossy(path).into_owned();
    move |errno| BootError::Tree { path: path.clone(), errno }
}

/// Builds the tree of a sandbox: `image` as a writable root, /proc, /sys, /dev and what belongs into it, and the
/// generated `files` (path, mode, content).
///
/// # Errors
/// See [`BootError`].
pub fn build_root(kernel: &Arc<Kernel>, image: File, files: &[(Vec<u8>, u32, Vec<u8>)]) -> Result<PathRef, BootError> {
    let vfs = &kernel.vfs;
    let fs = RofsFs::open(vfs, &kernel.memory, image)?;
    let lower = fs.root().map_err(failed(b"/"))?;
    let sb = Arc::new(TmpFs::overlay(vfs, &kernel.memory, lower));
    let mount = vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::RELATIME);
    vfs.mounts.set_root(mount.clone());
    let root = mount.root_path();
    let caller = Caller::kernel(vfs, root.clone());
    mount_kernel_trees(kernel, &caller)?;
    for (path, mode, content) in files {
        write_file(kernel, &caller, path, *mode, content).map_err(failed(path))?;
    }
    Ok(root)
}

fn mount_kernel_trees(kernel: &Arc<Kernel>, caller: &Caller<'_>) -> Result<(), BootError> {
    let vfs = &kernel.vfs;
    let guarded = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    let tmpfs = |name: &'static str, source: &[u8], perm| {
        TmpFs::mount(vfs, &kernel.memory, name, source, (perm, 0, 0), Limits::default())
    };
    tty::device::register(kernel);
    mount_at(caller, b"/proc", proc::mount(kernel), guarded)?;
    mount_at(caller, b"/sys", sys::mount(kernel), guarded)?;
    let dev_flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RELATIME;
    let dev = mount_at(caller, b"/dev", tmpfs("tmpfs", b"tmpfs", 0o755), dev_flags)?;
    dev::populate(caller, &dev.root_path()).map_err(failed(b"/dev"))?;
    mount_at(
        caller,
        b"/dev/pts",
        tty::devpts::mount(kernel),
        MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RELATIME,
    )?;
    mount_at(caller, b"/dev/shm", tmpfs("tmpfs", b"shm", 0o1777), guarded)?;
    Ok(())
}

/// Mounts `sb` on the directory `path`, made where it is not there.
///
/// # Errors
/// See [`BootError`].
pub fn mount_at(caller: &Caller<'_>, path: &[u8], sb: SuperBlock, flags: MountFlags) -> Result<Arc<Mount>, BootError> {
    let sb = Arc::new(sb);
    let mount = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), flags);
    let place = ensure_dir(caller, path).map_err(failed(path))?;
    caller.vfs.mounts.attach(&mount, place).map_err(failed(path))?;
    Ok(mount)
}

fn ensure_dir(caller: &Caller<'_>, path: &[u8]) -> Result<PathRef, Errno> {
    match change::make(caller, caller.root.clone(), path, FileType::Directory, 0o755, |_| Ok(())) {
        Ok(place) => Ok(place),
        Err(Errno::EEXIST) => {
            let place = Walk::new(caller, caller.root.clone(), Resolve::empty()).path(path, true)?;
            if place.inode().attr().kind == FileType::Directory { Ok(place) } else { Err(Errno::ENOTDIR) }
        }
        Err(errno) => Err(errno),
    }
}

fn write_file(kernel: &Kernel, caller: &Caller<'_>, path: &[u8], mode: u32, content: &[u8]) -> Result<(), Errno> {
    if let Some(slash) = path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
        ensure_dir(caller, path.get(..slash).unwrap_or_default())?;
    }
    // What is there is replaced, not followed: the image may have a symlink that leads anywhere.
    match change::unlink(caller, caller.root.clone(), path) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
    let how = open::OpenHow { flags, mode, ..open::OpenHow::default() };
    match open::open(caller, &kernel.devices, caller.root.clone(), path, how)? {
        open::Opened::File(file) => file.write(&mut IoSource::kernel(content)).map(|_| ()),
        open::Opened::Fifo(..) => Err(Errno::EINVAL),
    }
}

/// A tree with an empty writable root, for tests.
#[must_use]
pub fn empty_root(vfs: &Vfs, memory: &Arc<memory::MemoryFile>) -> PathRef {
    let sb = Arc::new(TmpFs::mount(vfs, memory, "tmpfs", b"none", (0o755, 0, 0), Limits::default()));
    let mount = vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::empty());
    vfs.mounts.set_root(mount.clone());
    mount.root_path()
}
