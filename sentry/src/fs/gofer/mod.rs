//! Host directories, served by the gofer.
//!
//! `README.md` here teaches it.

mod attr;
mod brought;
mod dir;
mod donated;
mod file;
mod inode;
mod mapping;
mod mounts;
pub mod saved;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use gofer_proto::client::Done;
use gofer_proto::message::Entry;
use gofer_proto::{Client, Reply, Request};

use crate::kernel::io_pool::IoPool;
use crate::kernel::trip;
use crate::sync::{Level, Mutex};
use crate::vfs::mount::SuperBlock;
use crate::vfs::{StatFs, Vfs};

pub use file::GoferFile;
pub use inode::GoferInode;
pub use mounts::Connection;

/// Who else changes the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: names and attributes are cached.
    Exclusive,
    /// The host does: every use of a name asks again.
    #[default]
    Shared,
}

/// An answer of the gofer, taken in: files it brought are inodes, with what was known of them before.
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The descriptor that came with it.
    pub fd: Option<Arc<OwnedFd>>,
    /// The files it brought, in its order.
    pub inodes: Vec<Arc<GoferInode>>,
    used: AtomicBool,
}

impl Answer {
    /// Whether it is used for the first time: later runs of a call must not enter again what it says.
    pub(super) fn is_news(&self) -> bool {
        !self.used.swap(true, Ordering::Relaxed)
    }
}

/// A served directory.
pub struct GoferFs {
    client: Arc<Client>,
    io: Arc<IoPool>,
    vfs: DevNumbers,
    /// Its number at the gofer.
    index: u32,
    sharing: Sharing,
    readonly: bool,
    /// By the host's device and inode number.
    inodes: Mutex<HashMap<(u64, u64), Weak<GoferInode>>>,
    statfs: Mutex<StatFs>,
    /// Counts what is learnt of files, so that newer is known from older.
    ticks: AtomicU64,
    /// Host descriptors that the files of this file system hold, and how many they may.
    open: AtomicUsize,
    max_open: usize,
    shelf: brought::Shelf,
}

/// Device numbers of the guest for those of the host: a served directory may have mounts below it.
struct DevNumbers {
    first: u64,
    known: Mutex<Vec<u64>>,
}

impl DevNumbers {
    /// The guest's number for the host's `dev`. Beyond the first few file systems all are shown as the last.
    fn of(&self, dev: u64) -> u64 {
        let mut known = self.known.lock();
        let at = match known.iter().position(|d| *d == dev) {
            Some(at) => at,
            None => {
                known.push(dev);
                known.len() - 1
            }
        };
        // The root's own number, then numbers of a block that no other file system uses.
        if at == 0 { self.first } else { self.first + ((at.min(255) as u64) << 32) }
    }
}

impl GoferFs {
    /// The served directory (or file) number `mount`.
    ///
    /// # Errors
    /// What the gofer says.
    pub fn attach(
        vfs: &Vfs,
        (client, io): (&Arc<Client>, &Arc<IoPool>),
        mount: u32,
        (sharing, readonly): (Sharing, bool),
        max_open: usize,
    ) -> Result<(Arc<Self>, Arc<GoferInode>), Errno> {
        let fs = Arc::new(GoferFs {
            client: client.clone(),
            io: io.clone(),
            vfs: DevNumbers { first: vfs.new_dev(), known: Mutex::new(Level::Leaf, Vec::new()) },
            index: mount,
            sharing,
            readonly,
            inodes: Mutex::new(Level::Leaf, HashMap::new()),
            statfs: Mutex::new(Level::Leaf, StatFs::default()),
            ticks: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            max_open,
            shelf: brought::Shelf::default(),
        });
        let answer = fs.take(client.call(Request::Attach(mount)))?;
        let root = answer.inodes.into_iter().next().ok_or(Errno::EIO)?;
        if let Ok((Reply::StatFs(stat), _)) = client.call(Request::StatFs(root.node())) {
            *fs.statfs.lock() = attr::statfs(&stat);
        }
        Ok((fs, root))
    }

    /// The file system for mounting.
    #[must_use]
    pub fn super_block(&self, source: &[u8], root: Arc<GoferInode>) -> SuperBlock {
        let options = match self.sharing {
            Sharing::Exclusive => "cache=exclusive",
            Sharing::Shared => "cache=shared",
        };
        SuperBlock::new("gofer", source, options.to_owned(), self.readonly, root)
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The last tick.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Counts something learnt now.
    fn next_tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// The answer's.
    pub fn take(self: &Arc<Self>, done: Result<Done, Errno>) -> Result<Answer, Errno> {
        let (reply, fd) = done?;
        let began = trip::began(self);
        let inodes = reply.entries().map(|e| self.inode(e, began)).collect();
        Ok(Answer { reply, fd: fd.map(Arc::new), inodes, used: AtomicBool::new(false) })
    }

    /// The inode of a file that is now held as `entry.id`: the one we have, if we have one. It was asked for after the
    /// tick `began`.
    fn inode(self: &Arc<Self>, entry: &Entry, began: Option<u64>) -> Arc<GoferInode> {
        let key = (entry.attr.dev, entry.attr.ino);
        let dev = self.vfs.of(entry.attr.dev);
        let mut inodes = self.inodes.lock();
        let known = inodes.get(&key).and_then(Weak::upgrade);
        let same = known.as_ref().is_some_and(|i| i.is_kind(entry.attr.kind));
        let fresh = (!same).then(|| GoferInode::new(self, entry, dev));
        if let Some(fresh) = &fresh {
            inodes.insert(key, Arc::downgrade(fresh));
        }
        // An inode's end takes this lock too.
        drop(inodes);
        match (fresh, known) {
            (Some(fresh), _) => fresh,
            (None, Some(known)) => {
                // Held twice now: one of the two is enough.
                self.client.close(entry.id);
                known.learn(&entry.attr, began);
                known
            }
            (None, None) => GoferInode::new(self, entry, dev),
        }
    }

    fn forget(&self, inode: &GoferInode) {
        let mut inodes = self.inodes.lock();
        let key = inode.host_key();
        if inodes.get(&key).is_some_and(|w| std::ptr::eq(w.as_ptr(), inode)) {
            inodes.remove(&key);
        }
        drop(inodes);
        self.client.close(inode.node());
    }

    /// Counts one more host descriptor.
    fn charge_fd(&self) -> Result<(), Errno> {
        let add = |n: usize| (n < self.max_open).then_some(n + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(|_| ()).map_err(|_| Errno::ENFILE)
    }

    fn uncharge_fd(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
