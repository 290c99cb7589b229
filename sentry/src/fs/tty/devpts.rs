//! The devpts file system: `/dev/pts/N` for every open pty, and `/dev/pts/ptmx`.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::fs::pseudo::{Listing, PseudoDir, PseudoFs};
use crate::fs::tty::saved::Looks;
use crate::fs::tty::{Ptys, Tty};
use crate::kernel::Kernel;
use crate::sync::{Level, Mutex};
use crate::vfs::mount::SuperBlock;
use crate::vfs::{Attr, Caller, FileOps, FileType, Inode, OpenFlags, SetAttr, StatFs, now};

/// `DEVPTS_SUPER_MAGIC`.
const MAGIC: u64 = 0x1cd1;
/// `ptmx`'s inode number; that of N is N + 3.
const PTMX_INO: u64 = 2;
/// What distributions mount it with: `gid=5,mode=620`.
const TTY_GROUP: u32 = 5;

/// The file system, which shows `ptys`.
#[must_use]
pub fn mount(kernel: &Kernel, ptys: &Arc<Ptys>) -> SuperBlock {
    let fs = PseudoFs::new(kernel.vfs.new_dev(), MAGIC);
    let ptmx = Attr { rdev: nix::sys::stat::makedev(5, 2), ..fs.attr(fs.key(PTMX_INO), FileType::CharDevice, 0o666) };
    let ptmx = Arc::new(PtyNode { fs: fs.clone(), attr: Mutex::new(Level::Leaf, ptmx), tty: Weak::new() });
    let listing = Terminals { fs: fs.clone(), ptys: Arc::downgrade(ptys), ptmx };
    let root = PseudoDir::new(&fs, 0o755, listing);
    SuperBlock::new("devpts", b"devpts", "gid=5,mode=620,ptmxmode=666".to_owned(), false, root)
}

struct Terminals {
    fs: Arc<PseudoFs>,
    ptys: Weak<Ptys>,
    ptmx: Arc<PtyNode>,
}

impl Terminals {
    /// The inode of a pty: made at the first look, kept by the pty, so that its owner and mode stay.
    fn node(&self, caller: &Caller<'_>, tty: &Arc<Tty>) -> Arc<dyn Inode> {
        tty.node(|| {
            let now = now();
            let base = self.fs.attr(self.fs.key(u64::from(tty.index) + 3), FileType::CharDevice, 0o620);
            let attr = Attr {
                uid: tty.owner().unwrap_or(caller.creds.fsuid()),
                gid: TTY_GROUP,
                rdev: tty.device(),
                atime: now,
                mtime: now,
                ctime: now,
                ..base
            };
            let attr = tty.looks.map_or(attr, |Looks { perm, uid, gid }| Attr { perm, uid, gid, ..attr });
            Arc::new(PtyNode { fs: self.fs.clone(), attr: Mutex::new(Level::Leaf, attr), tty: Arc::downgrade(tty) })
        })
    }
}

impl Listing for Terminals {
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if name == b"ptmx" {
            return Ok(self.ptmx.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        // Only the canonical spelling is a name: "0", not "00" or "+0".
        let index: u32 = text.parse().ok().filter(|i: &u32| i.to_string() == text).ok_or(Errno::ENOENT)?;
        let tty = self.ptys.upgrade().ok_or(Errno::ENOENT)?.get(index).ok_or(Errno::ENOENT)?;
        Ok(self.node(caller, &tty))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<(Vec<u8>, u64, FileType)> {
        let indices = self.ptys.upgrade().map(|ptys| ptys.indices()).unwrap_or_default();
        let ptys = indices.into_iter();
        let entry = |i: u32| (i.to_string().into_bytes(), u64::from(i) + 3, FileType::CharDevice);
        std::iter::once((b"ptmx".to_vec(), PTMX_INO, FileType::CharDevice)).chain(ptys.map(entry)).collect()
    }
}

/// A device in devpts. Opening it goes by its number, through the device registry.
struct PtyNode {
    fs: Arc<PseudoFs>,
    attr: Mutex<Attr>,
    /// Its pty; nowhere for `ptmx`.
    tty: Weak<Tty>,
}

impl Inode for PtyNode {
    fn attr(&self) -> Attr {
        *self.attr.lock()
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let mut attr = self.attr.lock();
        attr.perm = change.perm.unwrap_or(attr.perm);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        attr.ctime = now();
        Ok(())
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    /// A pty's name goes when its master is closed, and its number is given again.
    fn cacheable(&self) -> bool {
        self.tty.strong_count() == 0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
