//! A container's file tree: its root, its mounts in their order, then the files, devices and covers on top.

use std::fs::File;
use std::sync::Arc;

use abi::Errno;

use crate::boot::spec::{ContainerSpec, DeviceSpec, GoferTree, MountKind, MountSpec, ProcessSpec, Root};
use crate::fs::gofer::Connection;
use crate::fs::rofs::{Layered, RofsFs};
use crate::fs::tmpfs::TmpFs;
use crate::kernel::Kernel;
use crate::kernel::container::{Container, copy_up};
use crate::vfs::boot::{ensure_dirs, ensure_file, write_file};
use crate::vfs::fs_context::FsState;
use crate::vfs::mount::{Mount, MountFlags, SuperBlock};
use crate::vfs::mount_ns::MountNs;
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{Caller, FileType, NewNode, PathRef, change, mount_ops};

type Refusal = (Errno, String);

/// What a step on `path` says when it fails.
fn failed(doing: &'static str, path: &[u8]) -> impl Fn(Errno) -> Refusal {
    let path = String::from_utf8_lossy(path).into_owned();
    move |errno| (errno, format!("{doing} {path} in the container: {}", errno.text()))
}

impl Kernel {
    /// Builds the tree of `container`; answers its first process.
    ///
    /// # Errors
    /// The image is no image (EUCLEAN); what cannot be made or mounted, by its path.
    pub(super) fn build_tree(
        self: &Arc<Self>,
        container: &Arc<Container>,
        spec: ContainerSpec,
    ) -> Result<ProcessSpec, Refusal> {
        crate::fs::tty::device::register(self);
        let fault = |fault| (Errno::EIO, format!("the gofer: {fault}"));
        let mut gofer = spec.gofer.map(|socket| Connection::new(self, socket)).transpose().map_err(fault)?;
        let mount = root_mount(self, gofer.as_ref(), spec.root)?;
        let ns = MountNs::new(&self.vfs.mounts, mount.clone());
        let root = mount.root_path();
        // Kept from here on: whoever fails takes it apart with the container.
        let tree = FsState { root: root.clone(), cwd: root.clone(), umask: 0o022, ns: Some(ns) };
        container.state.lock().tree = Some(tree);
        let caller = Caller::kernel(&self.vfs, root);
        {
            let mut names = container.ns.uts.names.lock();
            if !spec.hostname.is_empty() {
                names.hostname = spec.hostname;
            }
            if !spec.domainname.is_empty() {
                names.domainname = spec.domainname;
            }
        }
        for mount in spec.mounts {
            let destination = mount.destination.clone();
            add_mount((self, gofer.as_ref()), &caller, container, mount).map_err(failed("mounting", &destination))?;
        }
        for device in &spec.devices {
            add_device(&caller, device).map_err(failed("making the device", &device.path))?;
        }
        for (path, mode, content) in &spec.files {
            write_file(self, &caller, path, *mode, content).map_err(failed("making", path))?;
        }
        for (name, value) in &spec.sysctls {
            set_parameter(self, &caller, name, value).map_err(failed("setting", name.as_bytes()))?;
        }
        for path in &spec.readonly_paths {
            make_readonly(&caller, path).map_err(failed("making read-only", path))?;
        }
        mask(self, &caller, &spec.masked_paths)?;
        if spec.readonly_root {
            mount.set_flags(mount.flags() | MountFlags::RDONLY);
        }
        if let Some(gofer) = &mut gofer {
            // From here on nobody waits for it on a thread.
            gofer.drive(self).map_err(|e| (Errno::EIO, format!("the gofer: {e}")))?;
        }
        container.state.lock().gofer = gofer;
        Ok(spec.process)
    }
}

fn open_image(kernel: &Kernel, image: File) -> Result<Arc<RofsFs>, Refusal> {
    RofsFs::open(&kernel.vfs, &kernel.memory, image)
        .map_err(|e| (Errno::EUCLEAN, format!("the image cannot be used: {e}")))
}

fn root_mount(kernel: &Arc<Kernel>, gofer: Option<&Connection>, root: Root) -> Result<Arc<Mount>, Refusal> {
    let no_gofer = || (Errno::EINVAL, "the root file system: there is no gofer".to_owned());
    let overlaid = |lower| {
        let sb = Arc::new(TmpFs::overlay(&kernel.vfs, &kernel.memory, lower));
        kernel.vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::RELATIME)
    };
    let layers = match root {
        Root::Image(image) => vec![image],
        Root::Layers(layers) => layers,
        Root::Gofer(tree) => {
            let gofer = gofer.ok_or_else(no_gofer)?;
            let sb = Arc::new(gofer.tree(&kernel.vfs, tree, b"root").map_err(failed("opening", b"/"))?);
            return Ok(kernel.vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::RELATIME));
        }
        Root::GoferBelow(tree) => {
            let tree = GoferTree { exclusive: true, ..tree };
            let lower = gofer.ok_or_else(no_gofer)?.lower(&kernel.vfs, tree).map_err(failed("opening", b"/"))?;
            return Ok(overlaid(lower));
        }
    };
    let root_of = |image| open_image(kernel, image)?.root().map_err(failed("opening", b"/"));
    let mut roots = layers.into_iter().map(root_of).collect::<Result<Vec<_>, _>>()?;
    let lower = match (roots.pop(), roots.is_empty()) {
        (Some(only), true) => only,
        (top, _) => {
            roots.extend(top);
            Layered::root(roots).map_err(failed("merging the layers of", b"/"))?
        }
    };
    Ok(overlaid(lower))
}

/// The place that `path` leads to, symlinks and all, as seen from inside.
fn find(caller: &Caller<'_>, path: &[u8]) -> Result<PathRef, Errno> {
    Walk::new(caller, caller.root.clone(), Resolve::empty()).path(path, true)
}

fn add_mount(
    (kernel, gofer): (&Arc<Kernel>, Option<&Connection>),
    caller: &Caller<'_>,
    container: &Arc<Container>,
    spec: MountSpec,
) -> Result<(), Errno> {
    if let MountKind::Bind { source, recursive } = &spec.kind {
        let source = find(caller, source)?;
        let place = destination(caller, &spec.destination, &source)?;
        let top = mount_ops::bind(caller, &source, place, *recursive)?;
        top.set_flags(top.flags() | spec.flags);
        return Ok(());
    }
    let (sb, device_files) = super_block((kernel, gofer), caller, container, &spec)?;
    let sb = Arc::new(sb);
    let mount = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), spec.flags);
    if device_files {
        crate::fs::dev::populate(&Caller::kernel(caller.vfs, mount.root_path()), &mount.root_path())?;
    }
    let place = destination(caller, &spec.destination, &mount.root_path())?;
    if spec.copy_up {
        copy_up::copy(kernel, &place, &mount.root_path())?;
    }
    caller.vfs.mounts.attach(&mount, place)
}

/// The file system that a mount shows, and whether /dev's content is to be made in it.
fn super_block(
    (kernel, gofer): (&Arc<Kernel>, Option<&Connection>),
    caller: &Caller<'_>,
    container: &Arc<Container>,
    spec: &MountSpec,
) -> Result<(SuperBlock, bool), Errno> {
    let fstype: &[u8] = match &spec.kind {
        MountKind::Proc => b"proc",
        MountKind::Sysfs => b"sysfs",
        MountKind::Tmpfs | MountKind::Dev => b"tmpfs",
        MountKind::Devpts => b"devpts",
        MountKind::Mqueue => b"mqueue",
        MountKind::Cgroup => b"cgroup2",
        MountKind::Image(file) => {
            let file = file.try_clone().map_err(|_| Errno::EMFILE)?;
            let image = open_image(kernel, file).map_err(|(errno, _)| errno)?;
            return Ok((image.super_block()?, false));
        }
        MountKind::Gofer(tree) => {
            return Ok((gofer.ok_or(Errno::EINVAL)?.tree(caller.vfs, *tree, &spec.source)?, false));
        }
        MountKind::Bind { .. } => return Err(Errno::EINVAL),
    };
    let what = (fstype, spec.source.as_slice(), spec.data.as_bytes());
    Ok((mount_ops::super_block(kernel, caller, container, what)?.0, matches!(spec.kind, MountKind::Dev)))
}

/// The place of a mount, made where it is missing: a directory or an empty file, as what will cover it is.
fn destination(caller: &Caller<'_>, path: &[u8], what: &PathRef) -> Result<PathRef, Errno> {
    if what.inode().attr().kind == FileType::Directory { ensure_dirs(caller, path) } else { ensure_file(caller, path) }
}

fn add_device(caller: &Caller<'_>, spec: &DeviceSpec) -> Result<(), Errno> {
    let kind = match spec.kind {
        b'c' | b'u' => FileType::CharDevice,
        b'b' => FileType::BlockDevice,
        b'p' => FileType::Fifo,
        _ => return Err(Errno::EINVAL),
    };
    if let Some(slash) = spec.path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
        ensure_dirs(caller, spec.path.get(..slash).unwrap_or_default())?;
    }
    match change::unlink(caller, caller.root.clone(), &spec.path) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let fill = |node: &mut NewNode| {
        node.rdev = nix::sys::stat::makedev(u64::from(spec.major), u64::from(spec.minor));
        (node.uid, node.gid) = (spec.uid, spec.gid);
        Ok(())
    };
    change::make(caller, caller.root.clone(), &spec.path, kind, spec.mode & 0o7777, fill).map(|_| ())
}

/// Writes a kernel parameter where the container's own procfs has it.
fn set_parameter(kernel: &Arc<Kernel>, caller: &Caller<'_>, name: &str, value: &str) -> Result<(), Errno> {
    // As sysctl(8): dots separate, and slashes stand for dots within a name.
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path = format!("/proc/sys/{}", name.chars().map(swap).collect::<String>());
    crate::vfs::boot::overwrite(kernel, caller, path.as_bytes(), value.as_bytes())
}

fn make_readonly(caller: &Caller<'_>, path: &[u8]) -> Result<(), Errno> {
    let place = match find(caller, path) {
        Ok(place) => place,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let top = mount_ops::bind(caller, &place, place.clone(), true)?;
    top.set_flags(top.flags() | MountFlags::RDONLY);
    Ok(())
}

/// Covers files by /dev/null, directories by an empty read-only tmpfs.
fn mask(kernel: &Arc<Kernel>, caller: &Caller<'_>, paths: &[Vec<u8>]) -> Result<(), Refusal> {
    let tmpfs = || {
        let limits = crate::fs::tmpfs::Limits { inodes: Some(2), ..Default::default() };
        Arc::new(TmpFs::mount(caller.vfs, &kernel.memory, "tmpfs", b"tmpfs", (0o755, 0, 0), limits))
    };
    let mut null = None;
    for path in paths {
        let place = match find(caller, path) {
            Ok(place) => place,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(errno) => return Err(failed("masking", path)(errno)),
        };
        let covered = if place.inode().attr().kind == FileType::Directory {
            let sb = tmpfs();
            let flags = MountFlags::RDONLY | MountFlags::RELATIME;
            let cover = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), flags);
            caller.vfs.mounts.attach(&cover, place)
        } else {
            let source = match &null {
                Some(place) => PathRef::clone(place),
                None => null.insert(null_device(caller, tmpfs()).map_err(failed("masking", path))?).clone(),
            };
            mount_ops::bind(caller, &source, place, false).map(|_| ())
        };
        covered.map_err(failed("masking", path))?;
    }
    Ok(())
}

/// A /dev/null of the kernel's own, in a tmpfs that is mounted nowhere.
fn null_device(caller: &Caller<'_>, sb: Arc<SuperBlock>) -> Result<PathRef, Errno> {
    let mount = caller.vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::RELATIME);
    let inside = Caller::kernel(caller.vfs, mount.root_path());
    let fill = |node: &mut NewNode| {
        node.rdev = nix::sys::stat::makedev(1, 3);
        Ok(())
    };
    change::make(&inside, mount.root_path(), b"null", FileType::CharDevice, 0o666, fill)
}
