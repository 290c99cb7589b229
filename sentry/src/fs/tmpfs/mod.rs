//! Files in memory: tmpfs, and (with a directory of another file system below) the overlay that makes a sandbox's
//! read-only image writable.
//!
//! A [`Node`] without a lower inode is an ordinary tmpfs inode. One with a lower inode shows that until it is changed;
//! then attributes and content are copied up, each when it has to be. `fs/README.md` tells how names, whiteouts,
//! renames and hard links of lower files work.

mod dir;
mod file;
mod lower;
mod lower_file;
mod node;
mod rename;
pub mod saved;
mod xattr;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use memory::MemoryFile;

use crate::sync::{Level, Mutex};
use crate::vfs::mount::SuperBlock;
use crate::vfs::{FileType, Inode, InodeKey, NewNode, StatFs, Vfs, now};

pub use file::{MemFile, seek_regular};
pub use lower_file::LowerFile;
pub use node::Node;

/// `TMPFS_MAGIC`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY_MAGIC: u64 = 0x794c_7630;
/// Inode numbers of files made here start above all that a lower file system uses.
const FIRST_INO_ABOVE_LOWER: u64 = 1 << 48;
/// What an inode costs the sentry, roughly, with its name: charged against the limit on inodes.
const NODE_COST: u64 = 1024;

/// Limits of a tmpfs, as its mount options say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Bytes; `None` for what the sandbox has.
    pub size: Option<u64>,
    /// Inodes; `None` for as many as an eighth of the sandbox's memory bears.
    pub inodes: Option<u64>,
}

/// A nodes-in-memory file system.
pub struct TmpFs {
    dev: u64,
    memory: Arc<MemoryFile>,
    limits: Limits,
    next_ino: AtomicU64,
    /// Held over every change to the tree.
    tree: Mutex<()>,
    /// Nodes that show a lower inode, by its key: one node however many names lead to it.
    by_lower: Mutex<HashMap<InodeKey, Slot>>,
    nodes: AtomicU64,
    /// Bytes of content, counted where there is a limit on them.
    used: AtomicU64,
    magic: u64,
}

/// Whether a node that shows a lower inode must be remembered.
enum Slot {
    /// It is as the lower one is: it may be made again.
    Unchanged(Weak<Node>),
    /// It has been changed.
    Changed(Arc<Node>),
}

impl TmpFs {
    fn new(vfs: &Vfs, memory: Arc<MemoryFile>, limits: Limits, stacked: bool) -> Arc<Self> {
        Arc::new(TmpFs {
            dev: vfs.new_dev(),
            memory,
            limits,
            next_ino: AtomicU64::new(if stacked { FIRST_INO_ABOVE_LOWER } else { 1 }),
            tree: Mutex::new(if stacked { Level::Overlay } else { Level::FsTree }, ()),
            by_lower: Mutex::new(Level::Leaf, HashMap::new()),
            nodes: AtomicU64::new(0),
            used: AtomicU64::new(0),
            magic: if stacked { OVERLAY_MAGIC } else { TMPFS_MAGIC },
        })
    }

    /// An empty tmpfs with a root directory of this mode and owner.
    #[must_use]
    pub fn mount(
        vfs: &Vfs,
        memory: &Arc<MemoryFile>,
        fstype: &'static str,
        source: &[u8],
        (perm, uid, gid): (u32, u32, u32),
        limits: Limits,
    ) -> SuperBlock {
        let fs = Self::new(vfs, memory.clone(), limits, false);
        let node = NewNode { kind: FileType::Directory, perm, uid, gid, rdev: 0, target: Vec::new() };
        let root = Node::unlimited(&fs, &node);
        root.meta_mut(|m| m.nlink = 2);
        SuperBlock::new(fstype, source, fs.options(), false, root)
    }

    /// A writable view of `lower`, whose changes stay in memory.
    #[must_use]
    pub fn overlay(vfs: &Vfs, memory: &Arc<MemoryFile>, lower: Arc<dyn Inode>) -> SuperBlock {
        let fs = Self::new(vfs, memory.clone(), Limits::default(), true);
        let root = fs.node_for(lower);
        let keeper = fs.clone();
        // The nodes that were changed hold the file system, and it them.
        SuperBlock::new("overlay", b"overlay", String::new(), false, root).on_drop(move || keeper.forget_all())
    }

    pub(crate) fn forget_all(&self) {
        let all = std::mem::take(&mut *self.by_lower.lock());
        drop(all);
    }

    fn options(&self) -> String {
        let size = self.limits.size.map(|s| format!("size={}k", s / 1024));
        let inodes = self.limits.inodes.map(|n| format!("nr_inodes={n}"));
        size.into_iter().chain(inodes).collect::<Vec<_>>().join(",")
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    fn max_nodes(&self) -> u64 {
        self.limits.inodes.unwrap_or((self.memory.limit() / 8 / NODE_COST).max(1024))
    }

    /// Charges one more inode.
    fn charge_node(&self) -> Result<(), Errno> {
        if self.memory.is_short(NODE_COST) {
            return Err(Errno::ENOSPC);
        }
        let max = self.max_nodes();
        let add = |n: u64| (n < max).then_some(n + 1);
        self.nodes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(|_| ()).map_err(|_| Errno::ENOSPC)
    }

    /// Bytes that still fit, where there is a limit on them.
    fn room(&self) -> Option<u64> {
        let limit = self.limits.size?.next_multiple_of(4096);
        Some(limit.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn statfs(&self) -> StatFs {
        let total = self.limits.size.unwrap_or(self.memory.limit()).div_ceil(4096);
        let memory = self.memory.limit().saturating_sub(self.memory.used()) / 4096;
        let free = self.room().map_or(memory, |room| memory.min(room / 4096));
        let (inodes, used) = (self.max_nodes(), self.nodes.load(Ordering::Relaxed));
        StatFs {
            magic: self.magic,
            bsize: 4096,
            blocks: [total, free.min(total), free.min(total)],
            files: [inodes, inodes.saturating_sub(used)],
            namelen: 255,
            flags: 0,
        }
    }
}

/// A regular file without a name, for `memfd_create(2)`: 0777, owned by `uid` and `gid`, `sealable` or sealed.
///
/// # Errors
/// `ENOSPC` past the limit on inodes.
pub fn unnamed_file(fs: &Arc<TmpFs>, perm: u32, uid: u32, gid: u32) -> Result<Arc<Node>, Errno> {
    let node = NewNode { kind: FileType::Regular, perm, uid, gid, rdev: 0, target: Vec::new() };
    let node = Node::create(fs, &node)?;
    node.meta_mut(|m| m.nlink = 0);
    Ok(node)
}

/// A file system of its own for files without names (memfds).
#[must_use]
pub fn kernel_mount(vfs: &Vfs, memory: &Arc<MemoryFile>) -> Arc<TmpFs> {
    TmpFs::new(vfs, memory.clone(), Limits::default(), false)
}

fn touch_now(times: &mut [&mut abi::Timespec]) {
    let now = now();
    for time in times.iter_mut() {
        **time = now;
    }
}
