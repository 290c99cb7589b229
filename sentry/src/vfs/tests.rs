//! The tree, without tasks: an overlay over an image, and over nothing.

use std::sync::Arc;

use abi::Errno;
use memory::{Backing, MemoryFile};

use crate::fs::dev::DeviceRegistry;
use crate::fs::rofs::RofsFs;
use crate::fs::tmpfs::TmpFs;
use crate::kernel::creds::Creds;
use crate::vfs::mount::MountFlags;
use crate::vfs::open::{OpenHow, Opened, open};
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{
    Caller, FileDescription, FileType, IoSink, IoSource, OpenFlags, PathRef, SetAttr, Vfs, boot, change, rename,
};

/// A tree and what is needed to use it.
pub(crate) struct Tree {
    vfs: Vfs,
    devices: DeviceRegistry,
    root: PathRef,
}

impl Tree {
    pub(crate) fn empty() -> Self {
        Self::with_memory(64 << 20)
    }

    fn with_memory(limit: u64) -> Self {
        let vfs = Vfs::new();
        let memory = MemoryFile::new(Backing::Anonymous, limit).unwrap();
        let root = boot::empty_root(&vfs, &memory);
        Tree { vfs, devices: DeviceRegistry::default(), root }
    }

    /// An overlay over an image of `fill`'s directory.
    pub(crate) fn overlay(fill: impl FnOnce(&std::path::Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("src");
        std::fs::create_dir(&src).unwrap();
        fill(&src);
        let out = dir.path().join("image");
        let mut progress = |_: &rofs::build::Progress<'_>| std::ops::ControlFlow::Continue(());
        rofs::build::from_dir(&src, &out, &rofs::build::Options::default(), &mut progress).unwrap();
        let vfs = Vfs::new();
        let memory = MemoryFile::new(Backing::Anonymous, 64 << 20).unwrap();
        let fs = RofsFs::open(&vfs, &memory, std::fs::File::open(&out).unwrap()).unwrap();
        let sb = Arc::new(TmpFs::overlay(&vfs, &memory, fs.root().unwrap()));
        let mount = vfs.mounts.detached(sb.clone(), sb.root.clone(), MountFlags::empty());
        vfs.mounts.set_root(mount.clone());
        Tree { vfs, devices: DeviceRegistry::default(), root: mount.root_path() }
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::kernel(&self.vfs, self.root.clone())
    }

    fn user(&self) -> Caller<'_> {
        let mut caller = self.caller();
        caller.creds = Arc::new(Creds::user(1000, 1000, vec![1000]));
        caller.umask = 0o022;
        caller
    }

    fn path(&self, path: &str) -> Result<PathRef, Errno> {
        let caller = self.caller();
        Walk::new(&caller, self.root.clone(), Resolve::empty()).path(path.as_bytes(), true)
    }

    fn open_as(&self, caller: &Caller<'_>, path: &str, flags: OpenFlags) -> Result<Arc<FileDescription>, Errno> {
        let how = OpenHow { flags, mode: 0o644, ..OpenHow::default() };
        match open(caller, &self.devices, self.root.clone(), path.as_bytes(), how)? {
            Opened::File(file) => Ok(file),
            Opened::Fifo(..) => Err(Errno::ENXIO),
        }
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<FileDescription>, Errno> {
        self.open_as(&self.caller(), path, flags)
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<(), Errno> {
        let file = self.open(path, OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC)?;
        file.write(&mut IoSource::kernel(content)).map(|_| ())
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        read_all(&*self.open(path, OpenFlags::empty())?)
    }

    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let place = self.path(path)?;
        let mut names = Vec::new();
        place.inode().dir().ok_or(Errno::ENOTDIR)?.list(&self.caller(), 0, &mut |e| {
            names.push(String::from_utf8_lossy(&e.name).into_owned());
            true
        })?;
        names.sort();
        Ok(names)
    }

    pub(crate) fn mkdir(&self, path: &str) -> Result<(), Errno> {
        let caller = self.caller();
        change::make(&caller, self.root.clone(), path.as_bytes(), FileType::Directory, 0o755, |_| Ok(())).map(|_| ())
    }

    fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        let caller = self.caller();
        let fill = |node: &mut crate::vfs::NewNode| {
            node.target = target.as_bytes().to_vec();
            Ok(())
        };
        change::make(&caller, self.root.clone(), path.as_bytes(), FileType::Symlink, 0o777, fill).map(|_| ())
    }

    pub(crate) fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        change::link(&self.caller(), &self.path(old)?, self.root.clone(), new.as_bytes())
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<(), Errno> {
        change::unlink(&self.caller(), self.root.clone(), path.as_bytes())
    }

    pub(crate) fn rmdir(&self, path: &str) -> Result<(), Errno> {
        change::rmdir(&self.caller(), self.root.clone(), path.as_bytes())
    }

    pub(crate) fn rename(&self, old: &str, new: &str, flags: u32) -> Result<(), Errno> {
        let (from, to) = (self.root.clone(), self.root.clone());
        rename::rename(&self.caller(), (from, old.as_bytes()), (to, new.as_bytes()), flags)
    }
}

fn read_all(file: &FileDescription) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    let mut buf = [0u8; 1000];
    loop {
        let n = file.read(&mut IoSink::kernel(&mut buf))?;
        if n == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&buf[..n]);
    }
}

#[test]
fn names_are_made_and_removed() {
    let t = Tree::empty();
    t.mkdir("/a").unwrap();
    t.mkdir("/a/b/").unwrap();
    assert_eq!(t.mkdir("/a"), Err(Errno::EEXIST));
    assert_eq!(t.mkdir("/"), Err(Errno::EEXIST));
    assert_eq!(t.mkdir("/x/y"), Err(Errno::ENOENT));
    t.write("/a/f", b"hello").unwrap();
    assert_eq!(t.read("/a/../a/./f").unwrap(), b"hello");
    assert_eq!(t.read("/a/f/"), Err(Errno::ENOTDIR));
    assert_eq!(t.read("/a/f/g"), Err(Errno::ENOTDIR));
    assert_eq!(t.mkdir("/a/f/g"), Err(Errno::ENOTDIR));
    assert_eq!(t.unlink("/a"), Err(Errno::EISDIR));
    assert_eq!(t.rmdir("/a/f"), Err(Errno::ENOTDIR));
    assert_eq!(t.rmdir("/a"), Err(Errno::ENOTEMPTY));
    assert_eq!(t.rmdir("/a/b/."), Err(Errno::EINVAL));
    assert_eq!(t.rmdir("/a/b/.."), Err(Errno::ENOTEMPTY));
    t.rmdir("/a/b").unwrap();
    t.unlink("/a/f").unwrap();
    assert_eq!(t.unlink("/a/f"), Err(Errno::ENOENT));
    assert_eq!(t.list("/a").unwrap(), Vec::<String>::new());
    let long = "n".repeat(256);
    assert_eq!(t.write(&format!("/a/{long}"), b""), Err(Errno::ENAMETOOLONG));
    assert_eq!(t.read(&"/a".repeat(2100)), Err(Errno::ENAMETOOLONG));
}

#[test]
fn symlinks_are_followed_and_counted() {
    let t = Tree::empty();
    t.mkdir("/d").unwrap();
    t.write("/d/f", b"x").unwrap();
    t.symlink("d/f", "/l").unwrap();
    t.symlink("/d", "/ld").unwrap();
    t.symlink("loop", "/loop").unwrap();
    t.symlink("new", "/dangling").unwrap();
    assert_eq!(t.read("/l").unwrap(), b"x");
    assert_eq!(t.read("/ld/f").unwrap(), b"x");
    assert_eq!(t.read("/l/"), Err(Errno::ENOTDIR));
    assert_eq!(t.read("/loop"), Err(Errno::ELOOP));
    assert_eq!(t.read("/dangling"), Err(Errno::ENOENT));
    assert!(t.open("/l", OpenFlags::NOFOLLOW).is_err_and(|e| e == Errno::ELOOP));
    assert!(t.open("/l", OpenFlags::CREAT | OpenFlags::EXCL).is_err_and(|e| e == Errno::EEXIST));
    t.write("/dangling", b"through").unwrap();
    assert_eq!(t.read("/new").unwrap(), b"through");
    for i in 0..41 {
        t.symlink(&if i == 0 { "d/f".to_owned() } else { format!("s{}", i - 1) }, &format!("/s{i}")).unwrap();
    }
    assert_eq!(t.read("/s39").unwrap(), b"x");
    assert_eq!(t.read("/s40"), Err(Errno::ELOOP));
}

#[test]
fn renames_keep_the_tree_a_tree() {
    let t = Tree::empty();
    for d in ["/a", "/a/b", "/a/b/c", "/e"] {
        t.mkdir(d).unwrap();
    }
    t.write("/f", b"1").unwrap();
    t.write("/g", b"2").unwrap();
    assert_eq!(t.rename("/a", "/a/b/c/a", 0), Err(Errno::EINVAL));
    assert_eq!(t.rename("/a/b", "/a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(t.rename("/f", "/e", 0), Err(Errno::EISDIR));
    assert_eq!(t.rename("/e", "/f", 0), Err(Errno::ENOTDIR));
    assert_eq!(t.rename("/f", "/g", rename::NOREPLACE), Err(Errno::EEXIST));
    t.rename("/f", "/g", rename::EXCHANGE).unwrap();
    assert_eq!((t.read("/f").unwrap(), t.read("/g").unwrap()), (b"2".to_vec(), b"1".to_vec()));
    let held = t.open("/g", OpenFlags::empty()).unwrap();
    t.rename("/f", "/g", 0).unwrap();
    assert_eq!(read_all(&held).unwrap(), b"1");
    assert!(held.path.as_ref().unwrap().display(&t.root).ends_with(b"/g (deleted)"));
    assert_eq!(t.read("/g").unwrap(), b"2");
    t.rename("/a/b", "/e", 0).unwrap();
    assert_eq!(t.list("/e").unwrap(), ["c"]);
    assert_eq!(t.path("/e/c").unwrap().display(&t.root), b"/e/c");
    let nlink = |p: &str| t.path(p).unwrap().inode().attr().nlink;
    assert_eq!((nlink("/"), nlink("/a"), nlink("/e")), (4, 2, 3));
}

#[test]
fn users_need_permission() {
    let t = Tree::empty();
    t.mkdir("/secret").unwrap();
    t.write("/secret/f", b"s").unwrap();
    t.path("/secret").unwrap().inode().set_attr(&SetAttr { perm: Some(0o700), ..SetAttr::default() }).unwrap();
    let user = t.user();
    let open = |path: &str, flags| t.open_as(&user, path, flags).map(|_| ());
    assert_eq!(open("/secret/f", OpenFlags::empty()), Err(Errno::EACCES));
    assert_eq!(open("/secret/none", OpenFlags::empty()), Err(Errno::EACCES));
    assert_eq!(open("/new", OpenFlags::CREAT | OpenFlags::WRONLY), Err(Errno::EACCES));
    t.mkdir("/tmp").unwrap();
    t.path("/tmp").unwrap().inode().set_attr(&SetAttr { perm: Some(0o1777), ..SetAttr::default() }).unwrap();
    t.write("/tmp/roots", b"").unwrap();
    open("/tmp/mine", OpenFlags::CREAT | OpenFlags::WRONLY).unwrap();
    let unlink = |path: &str| change::unlink(&user, t.root.clone(), path.as_bytes());
    assert_eq!(unlink("/tmp/roots"), Err(Errno::EPERM));
    unlink("/tmp/mine").unwrap();
}

fn sample(dir: &std::path::Path) {
    use std::fs;
    fs::create_dir_all(dir.join("etc/sub")).unwrap();
    fs::write(dir.join("etc/passwd"), b"root").unwrap();
    fs::write(dir.join("etc/sub/deep"), b"deep").unwrap();
    fs::write(dir.join("big"), vec![7u8; 300_000]).unwrap();
    fs::hard_link(dir.join("big"), dir.join("big2")).unwrap();
}

#[test]
fn the_overlay_shows_changes_over_the_image() {
    let t = Tree::overlay(sample);
    let ino = |p: &str| t.path(p).unwrap().inode().attr().key;
    let before = ino("/etc/passwd");
    let old = t.open("/etc/passwd", OpenFlags::empty()).unwrap();
    t.write("/etc/passwd", b"changed").unwrap();
    // Who had it open sees the change too, as on any other file system.
    assert_eq!(read_all(&old).unwrap(), b"changed");
    assert_eq!(t.read("/etc/passwd").unwrap(), b"changed");
    assert_eq!(ino("/etc/passwd"), before);
    // Hard links of the image stay together.
    assert_eq!(ino("/big"), ino("/big2"));
    let file = t.open("/big", OpenFlags::RDWR).unwrap();
    file.write(&mut IoSource::kernel(b"XYZ")).unwrap();
    let seen = t.read("/big2").unwrap();
    assert_eq!((&seen[..4], seen.len()), (b"XYZ\x07".as_slice(), 300_000));
    t.unlink("/big").unwrap();
    assert_eq!(t.read("/big"), Err(Errno::ENOENT));
    assert_eq!(t.path("/big2").unwrap().inode().attr().nlink, 1);
    assert_eq!(t.read("/big2").unwrap().len(), 300_000);
    // Directories of the image move with what is in them.
    t.rename("/etc", "/config", 0).unwrap();
    assert_eq!(t.read("/config/sub/deep").unwrap(), b"deep");
    assert_eq!(t.read("/config/passwd").unwrap(), b"changed");
    assert_eq!(t.list("/").unwrap(), ["big2", "config"]);
    // A new directory where one of the image was is empty.
    t.mkdir("/etc").unwrap();
    assert_eq!(t.list("/etc").unwrap(), Vec::<String>::new());
    assert_eq!(t.rmdir("/config/sub"), Err(Errno::ENOTEMPTY));
    t.unlink("/config/sub/deep").unwrap();
    t.rmdir("/config/sub").unwrap();
    assert_eq!(t.list("/config").unwrap(), ["passwd"]);
}

#[test]
fn changes_survive_an_empty_dentry_cache() {
    let t = Tree::overlay(sample);
    t.path("/etc/sub/deep").unwrap().inode().set_attr(&SetAttr { perm: Some(0o600), ..SetAttr::default() }).unwrap();
    t.unlink("/etc/passwd").unwrap();
    t.write("/etc/sub/new", b"n").unwrap();
    t.vfs.dentries.clear();
    assert_eq!(t.path("/etc/sub/deep").unwrap().inode().attr().perm, 0o600);
    assert_eq!(t.read("/etc/sub/deep").unwrap(), b"deep");
    assert_eq!(t.list("/etc").unwrap(), ["sub"]);
    assert_eq!(t.read("/etc/sub/new").unwrap(), b"n");
}

#[test]
fn a_long_chain_of_directories_is_dropped_without_recursion() {
    let t = Tree::with_memory(1 << 30);
    let caller = t.caller();
    let mut at = t.root.clone();
    for _ in 0..50_000 {
        at = change::make(&caller, at, b"d", FileType::Directory, 0o755, |_| Ok(())).unwrap();
    }
    t.vfs.dentries.clear();
    drop(at);
    t.vfs.dentries.clear();
    drop(caller);
    drop(t);
}

#[test]
fn mounts_are_crossed_both_ways() {
    let t = Tree::empty();
    let caller = t.caller();
    t.mkdir("/mnt").unwrap();
    t.write("/mnt/under", b"u").unwrap();
    let memory = MemoryFile::new(Backing::Anonymous, 1 << 20).unwrap();
    let sb = TmpFs::mount(&t.vfs, &memory, "tmpfs", b"x", (0o755, 0, 0), crate::fs::tmpfs::Limits::default());
    let mount = boot::mount_at(&caller, b"/mnt", sb, MountFlags::empty()).unwrap();
    t.write("/mnt/over", b"o").unwrap();
    assert_eq!(t.list("/mnt").unwrap(), ["over"]);
    assert_eq!(t.read("/mnt/../mnt/over").unwrap(), b"o");
    assert_eq!(t.path("/mnt/over").unwrap().display(&t.root), b"/mnt/over");
    assert_eq!(t.rmdir("/mnt"), Err(Errno::EBUSY));
    assert_eq!(t.rename("/mnt/over", "/over", 0), Err(Errno::EXDEV));
    assert_eq!(t.link("/mnt/over", "/over"), Err(Errno::EXDEV));
    mount.set_flags(MountFlags::RDONLY);
    assert_eq!(t.write("/mnt/new", b""), Err(Errno::EROFS));
    assert_eq!(t.unlink("/mnt/over"), Err(Errno::EROFS));
    t.vfs.mounts.detach(&mount, false).unwrap();
    assert_eq!(t.list("/mnt").unwrap(), ["under"]);
}
