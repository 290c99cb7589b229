//! Several images as one read-only tree, as overlayfs merges its lower layers (`Documentation/filesystems/overlayfs.rst`).
//!
//! A directory shows what all layers have under its name, down to the first that has something else there or is marked
//! opaque. A whiteout (a character device 0, 0) hides what lies below it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use abi::Errno;

use crate::vfs::inode::DirEntry;
use crate::vfs::{Attr, Caller, DirOps, FileOps, FileType, Inode, OpenFlags, StatFs, XattrOps};

/// Most layers (overlayfs takes 500; inode numbers leave room for these).
const MAX_LAYERS: usize = 255;
/// Where the number of the layer stands in inode numbers, so that files of two layers are not taken for one.
const LAYER_SHIFT: u32 = 40;

/// An inode of the merged tree.
pub struct Layered {
    /// What it shows, with the number of its layer.
    top: (u64, Arc<dyn Inode>),
    /// The directories that are merged with it, downwards.
    below: Vec<(u64, Arc<dyn Inode>)>,
}

fn is_dir(inode: &Arc<dyn Inode>) -> bool {
    inode.attr().kind == FileType::Directory
}

fn is_whiteout(inode: &Arc<dyn Inode>) -> bool {
    let attr = inode.attr();
    attr.kind == FileType::CharDevice && attr.rdev == 0
}

fn is_opaque(inode: &Arc<dyn Inode>) -> bool {
    let marked = |xattrs: &dyn XattrOps| {
        [b"trusted.overlay.opaque".as_slice(), b"user.overlay.opaque"]
            .iter()
            .any(|name| xattrs.get(name).is_ok_and(|value| value == b"y"))
    };
    inode.xattrs().is_some_and(marked)
}

impl Layered {
    /// The root of a tree of these roots, the lowest first.
    ///
    /// # Errors
    /// `EINVAL` for none or too many of them; `ENOTDIR`.
    pub fn root(layers: Vec<Arc<dyn Inode>>) -> Result<Arc<dyn Inode>, Errno> {
        if layers.len() > MAX_LAYERS {
            return Err(Errno::EINVAL);
        }
        if !layers.iter().all(is_dir) {
            return Err(Errno::ENOTDIR);
        }
        let mut below: Vec<_> = (0u64..).zip(layers).collect();
        let top = below.pop().ok_or(Errno::EINVAL)?;
        below.reverse();
        Ok(Arc::new(Layered { top, below }))
    }

    fn stack(&self) -> impl Iterator<Item = &(u64, Arc<dyn Inode>)> {
        std::iter::once(&self.top).chain(&self.below)
    }
}

impl Inode for Layered {
    fn attr(&self) -> Attr {
        let mut attr = self.top.1.attr();
        attr.key.ino |= self.top.0 << LAYER_SHIFT;
        attr
    }

    fn dir(&self) -> Option<&dyn DirOps> {
        is_dir(&self.top.1).then_some(self)
    }

    fn xattrs(&self) -> Option<&dyn XattrOps> {
        self.top.1.xattrs()
    }

    fn readlink(&self, cx: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        self.top.1.readlink(cx)
    }

    fn open(self: Arc<Self>, cx: &Caller<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        self.top.1.clone().open(cx, flags)
    }

    fn read_content(&self, offset: u64, dst: &mut [u8]) -> Result<usize, Errno> {
        self.top.1.read_content(offset, dst)
    }

    fn statfs(&self) -> StatFs {
        self.top.1.statfs()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl DirOps for Layered {
    fn lookup(&self, cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let mut stack: Vec<(u64, Arc<dyn Inode>)> = Vec::new();
        for (layer, dir) in self.stack() {
            let found = match dir.dir().ok_or(Errno::ENOTDIR)?.lookup(cx, name) {
                Ok(found) => found,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            // A directory is merged with directories only.
            if is_whiteout(&found) || !stack.is_empty() && !is_dir(&found) {
                break;
            }
            let last = !is_dir(&found) || is_opaque(&found);
            stack.push((*layer, found));
            if last {
                break;
            }
        }
        let mut stack = stack.into_iter();
        let top = stack.next().ok_or(Errno::ENOENT)?;
        Ok(Arc::new(Layered { top, below: stack.collect() }))
    }

    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        // By name, `None` where a layer above hides it: the same order at every call, whatever came before.
        let mut names: BTreeMap<Vec<u8>, Option<(u64, FileType)>> = BTreeMap::new();
        for (layer, dir) in self.stack() {
            let dir = dir.dir().ok_or(Errno::ENOTDIR)?;
            let mut devices = Vec::new();
            dir.list(cx, 0, &mut |entry| {
                if let Entry::Vacant(place) = names.entry(entry.name) {
                    if entry.kind == FileType::CharDevice {
                        devices.push(place.key().clone());
                    }
                    place.insert(Some((entry.ino | layer << LAYER_SHIFT, entry.kind)));
                }
                true
            })?;
            for name in devices {
                if dir.lookup(cx, &name).is_ok_and(|inode| is_whiteout(&inode)) {
                    names.insert(name, None);
                }
            }
        }
        let shown = names.into_iter().filter_map(|(name, entry)| entry.map(|(ino, kind)| (name, ino, kind)));
        for (at, (name, ino, kind)) in (0u64..).zip(shown) {
            if at >= from && !emit(DirEntry { name, ino, kind, next: at + 1 }) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use memory::{Backing, MemoryFile};

    use super::*;
    use crate::fs::tmpfs::{Limits, TmpFs};
    use crate::vfs::{NewNode, Vfs, boot};

    /// A tmpfs that plays an image, with these nodes in its root: directories end in `/`, whiteouts begin with `-`.
    fn layer(vfs: &Vfs, caller: &Caller<'_>, names: &[&str]) -> Arc<dyn Inode> {
        let memory = MemoryFile::new(Backing::Anonymous, 1 << 20).unwrap();
        let sb = TmpFs::mount(vfs, &memory, "tmpfs", b"x", (0o755, 0, 0), Limits::default());
        let root = sb.root.inode().clone();
        for name in names {
            let mut at = root.clone();
            let whiteout = name.starts_with('-');
            let mut parts = name.trim_start_matches('-').trim_end_matches('/').split('/').peekable();
            while let Some(part) = parts.next() {
                let kind = match (parts.peek().is_some() || name.ends_with('/'), whiteout) {
                    (true, _) => FileType::Directory,
                    (false, true) => FileType::CharDevice,
                    _ => FileType::Regular,
                };
                let node = NewNode { kind, perm: 0o755, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
                let dir = at.dir().unwrap();
                let next = dir.lookup(caller, part.as_bytes());
                let next = next.or_else(|_| dir.create(caller, part.as_bytes(), &node)).unwrap();
                at = next;
            }
        }
        // The file system goes with its super block, the nodes with who holds them.
        std::mem::forget(sb);
        root
    }

    fn names(caller: &Caller<'_>, inode: &Arc<dyn Inode>) -> Vec<String> {
        let (mut all, mut from) = (Vec::new(), 0);
        // One entry a call, as with the smallest buffer.
        loop {
            let mut found = None;
            let mut one = |entry: DirEntry| {
                found = Some(entry);
                false
            };
            inode.dir().unwrap().list(caller, from, &mut one).unwrap();
            let Some(entry) = found else { return all };
            from = entry.next;
            all.push(String::from_utf8(entry.name).unwrap());
        }
    }

    #[test]
    fn layers_merge_hide_and_replace() {
        let vfs = Vfs::new();
        let memory = MemoryFile::new(Backing::Anonymous, 1 << 20).unwrap();
        let caller = Caller::kernel(&vfs, boot::empty_root(&vfs, &memory));
        let low = layer(&vfs, &caller, &["a", "b", "dir/one", "dir/two", "gone/x", "was-dir/y"]);
        let high = layer(&vfs, &caller, &["c", "-b", "dir/three", "dir/-", "-gone", "was-dir"]);
        let middle = layer(&vfs, &caller, &["-c", "-dir/two", "z"]);
        let root = Layered::root(vec![low, middle, high]).unwrap();
        assert_eq!(names(&caller, &root), ["a", "c", "dir", "was-dir", "z"]);
        let look = |name: &[u8]| root.dir().unwrap().lookup(&caller, name);
        assert!(matches!(look(b"b"), Err(Errno::ENOENT)));
        assert!(matches!(look(b"gone"), Err(Errno::ENOENT)));
        assert_eq!(look(b"was-dir").unwrap().attr().kind, FileType::Regular);
        let dir = look(b"dir").unwrap();
        assert_eq!(names(&caller, &dir), ["-", "one", "three"]);
        let numbers: std::collections::HashSet<u64> =
            [&b"a"[..], b"c", b"z"].iter().map(|name| look(name).unwrap().attr().key.ino).collect();
        assert_eq!(numbers.len(), 3);
        assert!(matches!(Layered::root(Vec::new()), Err(Errno::EINVAL)));
    }
}
