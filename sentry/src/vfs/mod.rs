//! The file layer: inodes, open files, descriptors, names.
//!
//! `README.md` here teaches it.

pub mod anon;
pub mod boot;
pub mod caller;
pub mod change;
pub mod dentry;
pub mod dir_file;
pub mod fd_table;
pub mod file;
pub mod fs_context;
pub mod inode;
pub mod io;
pub mod kernel_use;
pub mod locks;
pub mod mount;
pub mod mount_ns;
pub mod mount_ops;
pub mod notify;
pub mod open;
pub mod path;
pub mod perm;
pub mod rename;
pub mod saved;
pub mod set_attr;
#[cfg(test)]
mod tests;
pub mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub use caller::{Caller, now};
pub use fd_table::{FdNum, FdTable};
pub use file::{FileDescription, FileOps, OpenFlags, Whence};
pub use fs_context::FsContext;
pub use inode::{Attr, DirEntry, DirOps, FileType, Inode, InodeKey, NewNode, SetAttr, StatFs, XattrOps};
pub use io::{IoCursor, IoSink, IoSource};
pub use kernel_use::{open_file, read_file, set_cwd};
pub use path::PathRef;

use crate::sync::{Level, Mutex};
use crate::vfs::dentry::{Dentry, DentryCache};
use crate::vfs::mount::{Mount, MountTable};

/// The tree of one kernel: mounts and cached names.
pub struct Vfs {
    /// What is mounted where.
    pub mounts: MountTable,
    /// Recently used names.
    pub dentries: DentryCache,
    /// Held over a rename, so that no directory becomes its own ancestor.
    rename: Mutex<()>,
    /// What inotify instances use.
    pub inotify: Arc<crate::fs::inotify::Usage>,
    next_dev: AtomicU32,
    /// Whether some file system's answers come from outside of the sandbox.
    remote: AtomicBool,
    anon: Arc<Mount>,
}

impl Default for Vfs {
    fn default() -> Self {
        let mounts = MountTable::default();
        let sb = Arc::new(anon::super_block());
        let anon = mounts.detached(sb.clone(), sb.root.clone(), anon::FLAGS);
        Vfs {
            mounts,
            dentries: DentryCache::default(),
            rename: Mutex::new(Level::Rename, ()),
            inotify: Arc::default(),
            next_dev: AtomicU32::new(20),
            remote: AtomicBool::new(false),
            anon,
        }
    }
}

impl Vfs {
    /// A tree without mounts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A device number for another file system without a device (major 0, as Linux's anonymous ones).
    #[must_use]
    pub fn new_dev(&self) -> u64 {
        nix::sys::stat::makedev(0, u64::from(self.next_dev.fetch_add(1, Ordering::Relaxed)))
    }

    /// How many device numbers were given out, for saved state.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.next_dev.load(Ordering::Relaxed)
    }

    /// Goes on with device numbers from `next` on.
    pub fn set_devices(&self, next: u32) {
        self.next_dev.store(next, Ordering::Relaxed);
    }

    /// Makes `dev` the next device number given out: a restored file system keeps its own.
    pub fn expect_dev(&self, dev: u64) {
        self.set_devices(u32::try_from(nix::sys::stat::minor(dev)).unwrap_or(0));
    }

    /// The place of a file that `memfd_create(2)` made: shown as `/memfd:NAME (deleted)`.
    #[must_use]
    pub fn memfd_path(&self, inode: Arc<dyn Inode>, name: &[u8]) -> PathRef {
        let name = [b"memfd:", name].concat();
        let dentry = Dentry::detached(inode, Some(self.anon.root.clone()), &name);
        dentry.set_deleted(true);
        self.anon_path(dentry)
    }

    /// Notes that calls may need answers from outside.
    pub fn set_remote(&self) {
        self.remote.store(true, Ordering::Relaxed);
    }

    /// Whether calls may need answers from outside.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.remote.load(Ordering::Relaxed)
    }

    fn anon_path(&self, dentry: Arc<Dentry>) -> PathRef {
        PathRef { mount: self.anon.clone(), dentry }
    }
}
