//! Building blocks of file systems whose content the kernel makes up: /proc and /sys.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Timespec};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Bytes, Refused, Saver};
use crate::sync::{Level, Mutex};
use crate::vfs::file::{FileDescription, Target};
use crate::vfs::{
    Attr, Caller, DirEntry, DirOps, FileOps, FileType, Inode, InodeKey, IoSink, IoSource, OpenFlags, SetAttr, StatFs,
    Whence, now,
};

/// A made-up file system.
pub struct PseudoFs {
    dev: u64,
    magic: u64,
    next_ino: AtomicU64,
    born: Timespec,
}

impl PseudoFs {
    /// A file system with this device number and magic number.
    #[must_use]
    pub fn new(dev: u64, magic: u64) -> Arc<Self> {
        Arc::new(PseudoFs { dev, magic, next_ino: AtomicU64::new(1), born: now() })
    }

    /// A key for one more inode.
    #[must_use]
    pub fn new_key(&self) -> InodeKey {
        InodeKey { dev: self.dev, ino: self.next_ino.fetch_add(1, Ordering::Relaxed) }
    }

    /// A key with an inode number of the caller's (above all that [`PseudoFs::new_key`] gives).
    #[must_use]
    pub fn key(&self, ino: u64) -> InodeKey {
        InodeKey { dev: self.dev, ino }
    }

    /// Attributes of an inode.
    #[must_use]
    pub fn attr(&self, key: InodeKey, kind: FileType, perm: u32) -> Attr {
        let time = self.born;
        let nlink = if kind == FileType::Directory { 2 } else { 1 };
        Attr {
            key,
            kind,
            perm,
            uid: 0,
            gid: 0,
            nlink,
            size: 0,
            blocks: 0,
            blksize: 1024,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    /// What `statfs` says.
    #[must_use]
    pub fn statfs(&self) -> StatFs {
        StatFs { magic: self.magic, bsize: 4096, namelen: 255, ..StatFs::default() }
    }
}

/// Makes a file's content.
pub type Render = Box<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what is written to a file.
pub type Store = Box<dyn Fn(&[u8]) -> Result<(), Errno> + Send + Sync>;

/// Says who may open a file, beyond its mode.
pub type Guard = Box<dyn Fn(&Caller<'_>) -> Result<(), Errno> + Send + Sync>;

/// A file whose content is made when it is read from its start.
pub struct PseudoFile {
    fs: Arc<PseudoFs>,
    attr: Attr,
    cacheable: bool,
    render: Render,
    store: Option<Store>,
    guard: Option<Guard>,
}

impl PseudoFile {
    /// A file with this mode.
    #[must_use]
    pub fn new(fs: &Arc<PseudoFs>, perm: u32, render: Render) -> Self {
        let attr = fs.attr(fs.new_key(), FileType::Regular, perm);
        PseudoFile { fs: fs.clone(), attr, cacheable: true, render, store: None, guard: None }
    }

    /// One with attributes of its own, which may go at any time.
    #[must_use]
    pub fn passing(fs: &Arc<PseudoFs>, attr: Attr, render: Render) -> Self {
        PseudoFile { fs: fs.clone(), attr, cacheable: false, render, store: None, guard: None }
    }

    /// The same, for whom `guard` lets.
    #[must_use]
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The same, and it takes writes.
    #[must_use]
    pub fn writable(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }
}

impl Inode for PseudoFile {
    fn attr(&self) -> Attr {
        self.attr
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        // O_TRUNC of a file that takes writes is common (`echo x > /proc/...`) and does nothing.
        let only_size = SetAttr { size: change.size, ..SetAttr::default() };
        if *change == only_size { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn open(self: Arc<Self>, caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        if let Some(guard) = &self.guard {
            guard(caller)?;
        }
        Ok(Arc::new(OpenPseudo { inode: self, text: Mutex::new(Level::Leaf, None) }))
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn cacheable(&self) -> bool {
        self.cacheable
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A made-up file, open.
pub struct OpenPseudo {
    inode: Arc<PseudoFile>,
    text: Mutex<Option<Arc<Vec<u8>>>>,
}

impl OpenPseudo {
    /// `inode` opened again, with the content that was made when it was read before.
    ///
    /// # Errors
    /// It is another kind of file now.
    pub fn again(inode: Arc<dyn Inode>, caller: &Caller<'_>, text: Option<Vec<u8>>) -> Result<Arc<dyn FileOps>, Errno> {
        let ops = inode.open(caller, OpenFlags::empty())?;
        let file = ops.as_any().downcast_ref::<OpenPseudo>().ok_or(Errno::ESTALE)?;
        *file.text.lock() = text.map(Arc::new);
        Ok(ops)
    }
}

impl FileOps for OpenPseudo {
    fn save(&self, file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let OpenPseudo { inode: _, text } = self;
        let text = text.lock().as_ref().map(|text| Bytes(text.to_vec()));
        Ok(OpsState::Pseudo { path: OpsState::path_of(file, saver)?, text })
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let known = if offset == 0 { None } else { self.text.lock().clone() };
        let text = match known {
            Some(text) => text,
            None => {
                let fresh = Arc::new((self.inode.render)()?);
                *self.text.lock() = Some(fresh.clone());
                fresh
            }
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        text.get(from..).map_or(Ok(0), |rest| dst.put(rest))
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        let store = self.inode.store.as_ref().ok_or(Errno::EIO)?;
        let mut text = vec![0u8; src.remaining().min(4096)];
        let n = src.take(&mut text)?;
        store(text.get(..n).unwrap_or_default())?;
        Ok(n)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            _ => return Err(Errno::EINVAL),
        };
        base.checked_add_signed(offset).filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::EINVAL)
    }

    fn truncate(&self, _file: &FileDescription, _size: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Says where a symlink leads.
pub type Lead = Box<dyn Fn(&Caller<'_>) -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Follows a magic link.
pub type Jump = Box<dyn Fn(&Caller<'_>) -> Result<Target, Errno> + Send + Sync>;

/// A symlink.
pub struct PseudoLink {
    fs: Arc<PseudoFs>,
    attr: Attr,
    cacheable: bool,
    lead: Lead,
    jump: Option<Jump>,
}

impl PseudoLink {
    /// A symlink whose text depends on who asks.
    #[must_use]
    pub fn new(fs: &Arc<PseudoFs>, lead: Lead) -> Self {
        let attr = fs.attr(fs.new_key(), FileType::Symlink, 0o777);
        PseudoLink { fs: fs.clone(), attr, cacheable: true, lead, jump: None }
    }

    /// A magic link: its text is for show.
    #[must_use]
    pub fn magic(fs: &Arc<PseudoFs>, attr: Attr, lead: Lead, jump: Jump) -> Self {
        PseudoLink { fs: fs.clone(), attr, cacheable: false, lead, jump: Some(jump) }
    }
}

impl Inode for PseudoLink {
    fn attr(&self) -> Attr {
        self.attr
    }

    fn readlink(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        (self.lead)(caller)
    }

    fn follow(&self, caller: &Caller<'_>) -> Option<Result<Target, Errno>> {
        self.jump.as_ref().map(|jump| jump(caller))
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ELOOP)
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn cacheable(&self) -> bool {
        self.cacheable
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An entry: name, inode number, type.
pub type Entry = (Vec<u8>, u64, FileType);

/// What a directory that changes by itself answers.
pub trait Listing: Send + Sync {
    /// The entry `name`.
    ///
    /// # Errors
    /// `ENOENT`.
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno>;

    /// All entries; the index in it is the cookie.
    fn entries(&self, caller: &Caller<'_>) -> Vec<Entry>;

    /// All entries from cookie `from` on, each with the cookie behind it. Overridden where entries come and go.
    fn from(&self, caller: &Caller<'_>, from: u64) -> Vec<(u64, Entry)> {
        let all = self.entries(caller).into_iter();
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        all.enumerate().skip(skip).map(|(index, e)| (index as u64 + 1, e)).collect()
    }
}

/// A directory.
pub struct PseudoDir<L> {
    fs: Arc<PseudoFs>,
    attr: Attr,
    cacheable: bool,
    listing: L,
}

impl<L: Listing + 'static> PseudoDir<L> {
    /// A directory that stays.
    #[must_use]
    pub fn new(fs: &Arc<PseudoFs>, perm: u32, listing: L) -> Arc<Self> {
        let attr = fs.attr(fs.new_key(), FileType::Directory, perm);
        Arc::new(PseudoDir { fs: fs.clone(), attr, cacheable: true, listing })
    }

    /// What makes its entries.
    #[must_use]
    pub fn listing(&self) -> &L {
        &self.listing
    }

    /// One with attributes of its own, which may go at any time.
    #[must_use]
    pub fn passing(fs: &Arc<PseudoFs>, attr: Attr, listing: L) -> Arc<Self> {
        Arc::new(PseudoDir { fs: fs.clone(), attr, cacheable: false, listing })
    }
}

impl<L: Listing + 'static> Inode for PseudoDir<L> {
    fn attr(&self) -> Attr {
        self.attr
    }

    fn dir(&self) -> Option<&dyn DirOps> {
        Some(self)
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::EISDIR)
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn cacheable(&self) -> bool {
        self.cacheable
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl<L: Listing + 'static> DirOps for PseudoDir<L> {
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.listing.lookup(caller, name)
    }

    fn list(&self, caller: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        for (next, (name, ino, kind)) in self.listing.from(caller, from) {
            if !emit(DirEntry { name, ino, kind, next }) {
                break;
            }
        }
        Ok(())
    }

    fn create(&self, _caller: &Caller<'_>, _name: &[u8], _node: &crate::vfs::NewNode) -> Result<Arc<dyn Inode>, Errno> {
        // As /proc and /sys say it.
        Err(Errno::ENOENT)
    }

    fn unlink(&self, _caller: &Caller<'_>, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn rmdir(&self, _caller: &Caller<'_>, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
}

/// Entries that never change.
pub struct Fixed(pub Vec<(&'static str, Arc<dyn Inode>)>);

impl Listing for Fixed {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let found = self.0.iter().find(|(n, _)| n.as_bytes() == name);
        found.map(|(_, inode)| inode.clone()).ok_or(Errno::ENOENT)
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let entry = |(name, inode): &(&'static str, Arc<dyn Inode>)| {
            let attr = inode.attr();
            (name.as_bytes().to_vec(), attr.key.ino, attr.kind)
        };
        self.0.iter().map(entry).collect()
    }
}

/// A symlink with a fixed text.
#[must_use]
pub fn fixed_link(fs: &Arc<PseudoFs>, target: &'static str) -> Arc<dyn Inode> {
    Arc::new(PseudoLink::new(fs, Box::new(move |_| Ok(target.as_bytes().to_vec()))))
}

/// A file with a fixed text.
#[must_use]
pub fn fixed_file(fs: &Arc<PseudoFs>, text: impl Into<Vec<u8>>) -> Arc<dyn Inode> {
    let text = text.into();
    Arc::new(PseudoFile::new(fs, 0o444, Box::new(move || Ok(text.clone()))))
}

/// A directory with fixed entries.
#[must_use]
pub fn fixed_dir(fs: &Arc<PseudoFs>, entries: Vec<(&'static str, Arc<dyn Inode>)>) -> Arc<dyn Inode> {
    PseudoDir::new(fs, 0o555, Fixed(entries))
}
