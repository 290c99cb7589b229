//! Files of a served directory.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use abi::Errno;
use gofer_proto::message::{Entry, Kind, NodeId, OpenMode};
use gofer_proto::{MAX_XATTR, Reply, Request};
use nix::sys::stat::FileStat;

use super::brought::Brought;
use super::donated::Donated;
use super::file::GoferFile;
use super::mapping::Mappings;
use super::{GoferFs, attr};
use crate::kernel::trip::{self, DirLock};
use crate::sync::{Level, Mutex};
use crate::vfs::perm::CAP_FSETID;
use crate::vfs::{Attr, Caller, DirOps, FileOps, FileType, Inode, InodeKey, OpenFlags, SetAttr, StatFs, XattrOps, now};

/// A file that the gofer holds for us.
pub struct GoferInode {
    myself: Weak<GoferInode>,
    pub(super) fs: Arc<GoferFs>,
    node: NodeId,
    host: (u64, u64),
    pub(super) kind: FileType,
    target: Option<Vec<u8>>,
    attr: Mutex<Attr>,
    pub(super) lock: Arc<DirLock>,
    /// The file system's tick when its attributes were learnt; 0 where they are known to be old.
    learnt: AtomicU64,
    /// The tick of the last change of ours: what was asked for before it may say less.
    pub(super) changed: AtomicU64,
    /// Until when what a listing said of it is believed, in milliseconds of the clock of [`since_start`].
    listed: AtomicU64,
    /// What its listings brought along.
    pub(super) brought: Brought,
    donated: Mutex<Vec<Weak<Donated>>>,
    /// The descriptor that came with the file's creation, until it is opened.
    fresh: Mutex<Option<Arc<Donated>>>,
    /// Who maps it.
    pub(super) mappings: Mappings,
    /// Taken by appending writes, whose offset is the file's end.
    pub(super) writing: Mutex<()>,
}

impl GoferInode {
    pub(super) fn new(fs: &Arc<GoferFs>, entry: &Entry, dev: u64) -> Arc<Self> {
        let key = InodeKey { dev, ino: entry.attr.ino };
        Arc::new_cyclic(|myself| GoferInode {
            myself: myself.clone(),
            fs: fs.clone(),
            node: entry.id,
            host: (entry.attr.dev, entry.attr.ino),
            kind: attr::kind(entry.attr.kind),
            target: entry.target.clone(),
            attr: Mutex::new(Level::Leaf, attr::attr(&entry.attr, key)),
            lock: Arc::default(),
            learnt: AtomicU64::new(fs.next_tick()),
            changed: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            brought: Brought::default(),
            donated: Mutex::new(Level::Leaf, Vec::new()),
            fresh: Mutex::new(Level::Leaf, None),
            mappings: Mappings::default(),
            writing: Mutex::new(Level::File, ()),
        })
    }

    /// What the gofer holds it as.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Itself, counted.
    #[must_use]
    pub fn this(&self) -> Option<Arc<Self>> {
        self.myself.upgrade()
    }

    pub(super) fn host_key(&self) -> (u64, u64) {
        self.host
    }

    pub(super) fn is_kind(&self, kind: Kind) -> bool {
        self.kind == attr::kind(kind)
    }

    pub(super) fn ask(&self, request: Request) -> Result<Arc<super::Answer>, Errno> {
        trip::ask(&self.fs, request)
    }

    /// Takes newer attributes of the host's in.
    pub(super) fn update(&self, new: &gofer_proto::Attr) {
        let mut now = self.attr.lock();
        let shrunk = new.size < now.size;
        *now = attr::attr(new, now.key);
        drop(now);
        self.learnt.store(self.fs.next_tick(), Ordering::Release);
        if shrunk {
            self.mappings.invalidate_from(new.size);
        }
    }

    /// Takes attributes in that were asked for after the tick `began`, if nothing of ours changed them since.
    pub(super) fn learn(&self, new: &gofer_proto::Attr, began: Option<u64>) {
        if began.is_none_or(|began| self.changed.load(Ordering::Acquire) <= began) {
            self.update(new);
        }
    }

    /// Takes in what was asked for in the call under way; where a call of ours changed the file meanwhile, nobody knows
    /// which of the two came first, and the next call asks again.
    fn take_in(&self, new: &gofer_proto::Attr) {
        let raced = trip::began(&self.fs).is_some_and(|began| self.changed.load(Ordering::Acquire) > began);
        self.update(new);
        if raced {
            self.learnt.store(0, Ordering::Release);
        }
    }

    /// A listing has just said what it is.
    pub(super) fn listed(&self, life: Duration) {
        self.listed.store(millis(since_start() + life), Ordering::Release);
    }

    /// A call of ours changed it.
    pub(super) fn note_change(&self) {
        self.changed.store(self.fs.next_tick(), Ordering::Release);
    }

    /// Takes what `fstat` says in.
    pub(super) fn note(&self, stat: &FileStat) {
        attr::refresh(&mut self.attr.lock(), stat);
    }

    /// Its attributes changed in a way that only the host knows: whoever asks next hears of it.
    pub(super) fn forget_attr(&self) {
        self.learnt.store(0, Ordering::Release);
        self.note_change();
    }

    /// Whether its attributes are as new as the call under way may ask for.
    fn is_fresh(&self) -> bool {
        let learnt = self.learnt.load(Ordering::Acquire);
        let listed = || self.listed.load(Ordering::Acquire) > millis(since_start());
        learnt > 0 && (!self.fs.is_shared() || trip::began(&self.fs).is_none_or(|began| learnt > began) || listed())
    }

    pub(super) fn change_attr(&self, change: impl FnOnce(&mut Attr)) {
        change(&mut self.attr.lock());
    }

    /// A donated descriptor that is open already and does for `write`.
    fn shared_fd(&self, write: bool) -> Option<Arc<Donated>> {
        let mut donated = self.donated.lock();
        donated.retain(|d| d.strong_count() > 0);
        let found: Vec<_> = donated.iter().filter_map(Weak::upgrade).collect();
        drop(donated);
        found.into_iter().find(|d| d.writable || !write)
    }

    /// Remembers a descriptor for others that open the file.
    pub(super) fn share_fd(
        self: &Arc<Self>,
        fd: Arc<std::os::fd::OwnedFd>,
        writable: bool,
    ) -> Result<Arc<Donated>, Errno> {
        let donated = Donated::new(&self.fs, self, fd, writable)?;
        self.donated.lock().push(Arc::downgrade(&donated));
        Ok(donated)
    }

    /// Keeps the descriptor of a file just made until it is opened.
    pub(super) fn set_fresh(&self, donated: Arc<Donated>) {
        let old = self.fresh.lock().replace(donated);
        drop(old);
    }

    /// A descriptor for reading, or for both.
    pub(super) fn descriptor(self: &Arc<Self>, write: bool) -> Result<Arc<Donated>, Errno> {
        if let Some(shared) = self.shared_fd(write) {
            return Ok(shared);
        }
        let mode = if write { OpenMode::ReadWrite } else { OpenMode::Read };
        let answer = self.ask(Request::Open { node: self.node, mode })?;
        let Reply::Donated(new) = &answer.reply else { return Err(Errno::EIO) };
        if answer.is_news() {
            self.take_in(new);
        }
        let fd = answer.fd.clone().ok_or(Errno::EIO)?;
        self.share_fd(fd, write)
    }

    /// The file of a served directory that `inode` is, if it is one.
    #[must_use]
    pub fn inode_of(inode: &Arc<dyn Inode>) -> Option<&GoferInode> {
        inode.as_any().downcast_ref()
    }
}

/// Time since the first look at this clock.
fn since_start() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        self.put_away();
        self.fs.clone().forget(self);
    }
}

impl Inode for GoferInode {
    fn attr(&self) -> Attr {
        // Whoever has it open changes it without telling us: the host knows.
        if let Some(stat) = self.shared_fd(false).and_then(|d| d.stat().ok()) {
            self.note(&stat);
        }
        *self.attr.lock()
    }

    fn refresh(&self) -> Result<(), Errno> {
        if self.is_fresh() || self.shared_fd(false).is_some() {
            return Ok(());
        }
        let answer = self.ask(Request::GetAttr(self.node))?;
        match &answer.reply {
            Reply::Attr(new) if answer.is_news() => self.take_in(new),
            Reply::Attr(_) => {}
            _ => return Err(Errno::EIO),
        }
        Ok(())
    }

    fn name_changed(&self, taken: bool) {
        // What the host will say, for those who look before they ask.
        self.change_attr(|a| match a.kind {
            FileType::Directory if taken => a.nlink = 0,
            _ => a.nlink = a.nlink.saturating_sub(u32::from(taken)),
        });
        self.forget_attr();
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let request = Request::SetAttr { node: self.node, change: attr::change(change) };
        let answer = self.ask(request)?;
        if let Reply::Attr(new) = &answer.reply
            && answer.is_news()
        {
            self.update(new);
            self.note_change();
        }
        if let Some(size) = change.size {
            self.mappings.invalidate_from(size);
        }
        Ok(())
    }

    fn dir(&self) -> Option<&dyn DirOps> {
        (self.kind == FileType::Directory).then_some(self as &dyn DirOps)
    }

    fn xattrs(&self) -> Option<&dyn XattrOps> {
        Some(self)
    }

    fn readlink(&self, _cx: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        self.target.clone().ok_or(Errno::EINVAL)
    }

    fn open(self: Arc<Self>, cx: &Caller<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        if self.kind != FileType::Regular {
            return Err(Errno::ENXIO);
        }
        let fresh = self.fresh.lock().take();
        let donated = match fresh {
            Some(donated) => donated,
            None => self.descriptor(flags.writable())?,
        };
        let strips = !cx.creds.has_cap(CAP_FSETID);
        Ok(Arc::new(GoferFile::new(self, donated, strips)))
    }

    fn hold_content(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>, Errno> {
        let this = self.myself.upgrade().ok_or(Errno::ESTALE)?;
        Ok(Some(this.descriptor(false)?))
    }

    fn read_content(&self, offset: u64, dst: &mut [u8]) -> Result<usize, Errno> {
        let this = self.myself.upgrade().ok_or(Errno::ESTALE)?;
        Ok(this.descriptor(false)?.read(dst, offset, false)?.unwrap_or(0))
    }

    fn refresh_statfs(&self) -> Result<(), Errno> {
        let answer = self.ask(Request::StatFs(self.node))?;
        let Reply::StatFs(stat) = &answer.reply else { return Err(Errno::EIO) };
        *self.fs.statfs.lock() = attr::statfs(stat);
        Ok(())
    }

    fn statfs(&self) -> StatFs {
        *self.fs.statfs.lock()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl XattrOps for GoferInode {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let answer = self.ask(Request::GetXattr { node: self.node, name: name.to_vec() })?;
        if let Reply::Bytes(value) = &answer.reply { Ok(value.clone()) } else { Err(Errno::EIO) }
    }

    fn list(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let answer = self.ask(Request::ListXattr(self.node))?;
        if let Reply::Names(names) = &answer.reply { Ok(names.clone()) } else { Err(Errno::EIO) }
    }

    fn set(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        if value.len() > MAX_XATTR {
            return Err(Errno::ENOSPC);
        }
        let flags = flags.cast_unsigned();
        self.ask(Request::SetXattr { node: self.node, name: name.to_vec(), value: value.to_vec(), flags })?;
        self.change_attr(|a| a.ctime = now());
        self.note_change();
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.ask(Request::RemoveXattr { node: self.node, name: name.to_vec() })?;
        self.change_attr(|a| a.ctime = now());
        self.note_change();
        Ok(())
    }
}
