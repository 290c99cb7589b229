//! Shared memory segments (`ipc/shm.c`): memory objects that programs attach by number.

pub mod saved;

use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno};
use platform::{Access, Prot};

use crate::ipc::Ipc;
use crate::ipc::ids::Perm;
use crate::kernel::Kernel;
use crate::mm::map::{MapRequest, Place};
use crate::mm::mappable::{FileRange, Mappable, TranslateError, Translation};
use crate::mm::object::MemoryObject;
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::mm::{Mm, map};
use crate::sync::{Level, Mutex};
use crate::vfs::InodeKey;

/// Most segments (`SHMMNI`).
pub const SHMMNI: usize = 4096;
/// Largest segment (`SHMMAX`).
pub const SHMMAX: u64 = u64::MAX - (1 << 24);
/// `SHM_DEST`: goes with its last attachment.
pub const SHM_DEST: u32 = 0o1000;
/// `SHM_LOCKED`.
pub const SHM_LOCKED: u32 = 0o2000;
/// Device of the invisible file system that segments lie in; their id is the inode.
const SYSV_DEV: u64 = 0xff00_0001;

/// What changes in a segment.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Owner and mode.
    pub perm: Perm,
    /// Attached last, seconds.
    pub atime: i64,
    /// Detached last.
    pub dtime: i64,
    /// Changed last.
    pub ctime: i64,
    /// Who attached or detached last.
    pub lpid: i32,
}

/// A segment.
pub struct Segment {
    kernel: Weak<Kernel>,
    ipc: Weak<Ipc>,
    /// Its id.
    pub id: i32,
    /// Bytes asked for.
    pub size: u64,
    /// Process that made it.
    pub cpid: i32,
    object: Arc<MemoryObject>,
    /// The rest.
    pub state: Mutex<State>,
}

fn seconds(kernel: &Kernel) -> i64 {
    kernel.clock.realtime() / 1_000_000_000
}

impl Segment {
    /// A new segment.
    #[must_use]
    pub fn new((kernel, ipc): (&Arc<Kernel>, &Arc<Ipc>), id: i32, size: u64, cpid: i32, perm: Perm) -> Arc<Self> {
        let key = InodeKey { dev: SYSV_DEV, ino: u64::from(id.unsigned_abs()) };
        let state = State { perm, ctime: seconds(kernel), ..State::default() };
        let whole_pages = abi::page_up(size).unwrap_or(size);
        let object = MemoryObject::new(kernel.memory.clone(), key, whole_pages);
        let (kernel, ipc) = (Arc::downgrade(kernel), Arc::downgrade(ipc));
        Arc::new(Segment { kernel, ipc, id, size, cpid, object, state: Mutex::new(Level::Leaf, state) })
    }

    /// Attachments (`shm_nattch`).
    #[must_use]
    pub fn attachments(&self) -> usize {
        self.object.mappings()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.object.resident()
    }

    /// Maps it into `mm`; answers where.
    ///
    /// # Errors
    /// As `Mm::mmap`.
    pub fn attach(self: &Arc<Self>, mm: &Mm, place: Place, prot: Prot, pid: i32) -> Result<u64, Errno> {
        let mut vma = Vma::anonymous(prot, VmaFlags::SHARED);
        vma.max.set(Prot::WRITE, prot.contains(Prot::WRITE));
        vma.name = Some(map::name(format!("/SYSV{:08x} (deleted)", self.state.lock().perm.key).as_bytes()));
        vma.file = Some(FileBacking { mappable: self.clone(), offset: 0, file: None });
        let at = mm.mmap(MapRequest { place, len: self.size, vma, populate: false })?;
        if let Some(kernel) = self.kernel.upgrade() {
            let now = seconds(&kernel);
            let mut state = self.state.lock();
            (state.atime, state.lpid) = (now, pid);
        }
        Ok(at)
    }

    /// IPC_RMID: goes now, or with its last attachment; its key is free at once.
    pub fn mark_removed(&self) {
        self.state.lock().perm.mode |= SHM_DEST;
        let Some(ipc) = self.ipc.upgrade() else { return };
        ipc.shm.lock().forget_key(self.id);
        self.state.lock().perm.key = 0;
        self.remove_if_unused();
    }

    fn remove_if_unused(&self) {
        let Some(ipc) = self.ipc.upgrade() else { return };
        if self.state.lock().perm.mode & SHM_DEST != 0 && self.attachments() == 0 {
            let gone = ipc.shm.lock().remove(self.id);
            drop(gone);
        }
    }
}

/// Detaches what `shmat` attached at `addr`, in however many pieces it lies there now.
///
/// # Errors
/// `EINVAL` where no segment begins there.
pub fn detach(mm: &Mm, addr: u64, pid: i32, ipc: &Ipc) -> Result<(), Errno> {
    let pieces = mm.pieces_of_device(addr, SYSV_DEV);
    let Some((_, id)) = pieces.first().copied() else { return Err(Errno::EINVAL) };
    if let Some(segment) = i32::try_from(id).ok().and_then(|id| ipc.shm.lock().get(id).ok()) {
        segment.state.lock().lpid = pid;
    }
    for (range, _) in pieces {
        mm.munmap(range.start, range.len())?;
    }
    Ok(())
}

impl Mappable for Segment {
    fn translate(
        &self,
        range: FileRange,
        optional: FileRange,
        access: Access,
    ) -> Result<Vec<Translation>, TranslateError> {
        self.object.translate(range, optional, access)
    }

    fn add_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) -> Result<(), Errno> {
        self.object.add_mapping(mm, at, offset, writable)
    }

    fn remove_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) {
        self.object.remove_mapping(mm, at, offset, writable);
        if let Some(kernel) = self.kernel.upgrade() {
            self.state.lock().dtime = seconds(&kernel);
            self.remove_if_unused();
        }
    }

    fn key(&self) -> InodeKey {
        self.object.key()
    }

    fn punch(&self, range: FileRange) -> Result<(), Errno> {
        Mappable::punch(&*self.object, range)
    }

    fn save(
        self: Arc<Self>,
        saver: &mut crate::checkpoint::Saver,
    ) -> Result<crate::mm::saved::MappableState, crate::checkpoint::Refused> {
        Ok(crate::mm::saved::MappableState::Segment(saver.segments.id(&self)))
    }
}
