//! Objects by key and by id, and who may use them (`ipc/util.c`).

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ipc::{IPC_CREAT, IPC_EXCL};
use crate::kernel::creds::Creds;

/// Most objects of a kind (`IPCMNI`); ids are `sequence * IPCMNI + index`.
pub const IPCMNI: i32 = 32768;
const CAP_IPC_OWNER: u32 = 15;
const CAP_SYS_ADMIN: u32 = 21;
const IPC_PRIVATE: i32 = 0;

/// Owner and mode of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Perm {
    /// Key, 0 for a private one.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// Whose group made it.
    pub cgid: u32,
    /// Permission bits, and SHM_DEST and SHM_LOCKED of segments.
    pub mode: u32,
    /// The id's sequence number.
    pub seq: u16,
}

/// `struct ipc64_perm`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RawPerm {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl Perm {
    /// A new object's.
    #[must_use]
    pub fn new(key: i32, flags: u32, creds: &Creds) -> Self {
        let (uid, gid) = (creds.euid(), creds.egid());
        Perm { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777, seq: 0 }
    }

    /// As programs see it.
    #[must_use]
    pub fn raw(&self) -> RawPerm {
        let Perm { key, uid, gid, cuid, cgid, mode, seq } = *self;
        RawPerm { key, uid, gid, cuid, cgid, mode, seq, pad: [0; 3], unused: [0; 2] }
    }

    /// Whether `creds` may do what `flags` ask for: bits of `rwx`, in any of the three places (`ipcperms`).
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check(&self, creds: &Creds, flags: u32) -> Result<(), Errno> {
        let wanted = flags >> 6 | flags >> 3 | flags;
        let granted = if creds.euid() == self.cuid || creds.euid() == self.uid {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 != 0 && !creds.has_cap(CAP_IPC_OWNER) { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// Whether `creds` may change or remove it.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_owner(&self, creds: &Creds) -> Result<(), Errno> {
        let owner = creds.euid() == self.cuid || creds.euid() == self.uid;
        if owner || creds.has_cap(CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// What IPC_SET changes.
    pub fn set(&mut self, from: &RawPerm) {
        (self.uid, self.gid) = (from.uid, from.gid);
        self.mode = self.mode & !0o777 | from.mode & 0o777;
    }
}

struct Entry<T> {
    id: i32,
    key: i32,
    object: Arc<T>,
}

/// The objects of one kind.
pub struct Ids<T> {
    entries: BTreeMap<i32, Entry<T>>,
    seq: u16,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Ids { entries: BTreeMap::new(), seq: 0 }
    }
}

/// What `xxxget` found.
pub enum Found<T> {
    /// An object with that key.
    Old(i32, Arc<T>),
    /// None, and it may be made.
    New,
}

impl<T> Ids<T> {
    /// What `xxxget(key, flags)` leads to.
    ///
    /// # Errors
    /// `ENOENT`; `EEXIST`.
    pub fn find(&self, key: i32, flags: u32) -> Result<Found<T>, Errno> {
        if key == IPC_PRIVATE {
            return Ok(Found::New);
        }
        match self.entries.values().find(|e| e.key == key) {
            Some(_) if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL => Err(Errno::EEXIST),
            Some(entry) => Ok(Found::Old(entry.id, entry.object.clone())),
            None if flags & IPC_CREAT == 0 => Err(Errno::ENOENT),
            None => Ok(Found::New),
        }
    }

    /// Adds an object, which `make` makes knowing its id and sequence number.
    ///
    /// # Errors
    /// `ENOSPC` at `limit` objects.
    pub fn add(&mut self, key: i32, limit: usize, make: impl FnOnce(i32, u16) -> Arc<T>) -> Result<i32, Errno> {
        if self.entries.len() >= limit {
            return Err(Errno::ENOSPC);
        }
        let index = (0..IPCMNI).find(|i| !self.entries.contains_key(i)).ok_or(Errno::ENOSPC)?;
        let seq = self.seq;
        self.seq = (seq + 1) & 0x7fff;
        let id = i32::from(seq) * IPCMNI + index;
        self.entries.insert(index, Entry { id, key, object: make(id, seq) });
        Ok(id)
    }

    /// The object with this id.
    ///
    /// # Errors
    /// `EINVAL` for none; `EIDRM` for one that was removed and whose place is taken.
    pub fn get(&self, id: i32) -> Result<Arc<T>, Errno> {
        let entry = (id >= 0).then(|| self.entries.get(&(id % IPCMNI))).flatten().ok_or(Errno::EINVAL)?;
        if entry.id == id { Ok(entry.object.clone()) } else { Err(Errno::EIDRM) }
    }

    /// The object at this index (`SHM_STAT` and its like), and its id.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn at_index(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        self.entries.get(&index).map(|e| (e.id, e.object.clone())).ok_or(Errno::EINVAL)
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: i32) -> Option<Arc<T>> {
        let index = id.checked_rem(IPCMNI)?;
        let same = self.entries.get(&index).is_some_and(|e| e.id == id);
        same.then(|| self.entries.remove(&index)).flatten().map(|e| e.object)
    }

    /// Makes an object's key free: it is found by its id only.
    pub fn forget_key(&mut self, id: i32) {
        if let Some(entry) = self.entries.get_mut(&(id % IPCMNI)).filter(|e| e.id == id) {
            entry.key = IPC_PRIVATE;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The highest index in use, 0 where there is none.
    #[must_use]
    pub fn highest(&self) -> i32 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// The sequence number of the next object.
    #[must_use]
    pub fn seq(&self) -> u16 {
        self.seq
    }

    /// Goes on with this sequence number.
    pub fn set_seq(&mut self, seq: u16) {
        self.seq = seq & 0x7fff;
    }

    /// All objects, with ids and keys.
    pub fn keyed(&self) -> impl Iterator<Item = (i32, i32, &Arc<T>)> {
        self.entries.values().map(|e| (e.id, e.key, &e.object))
    }

    /// Adds an object that has an id already; `false` where that is none, or is taken.
    pub fn insert(&mut self, id: i32, key: i32, object: Arc<T>) -> bool {
        let free = id >= 0 && !self.entries.contains_key(&(id % IPCMNI));
        if free {
            self.entries.insert(id % IPCMNI, Entry { id, key, object });
        }
        free
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Arc<T>)> {
        self.entries.values().map(|e| (e.id, &e.object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_come_back_at_once() {
        let mut ids: Ids<i32> = Ids::default();
        let first = ids.add(5, 10, |id, _| Arc::new(id)).unwrap_or(-1);
        assert!(matches!(ids.find(5, 0), Ok(Found::Old(id, _)) if id == first));
        assert_eq!(ids.find(5, IPC_CREAT | IPC_EXCL).err(), Some(Errno::EEXIST));
        drop(ids.remove(first));
        assert_eq!(ids.get(first).err(), Some(Errno::EINVAL));
        let second = ids.add(5, 10, |id, _| Arc::new(id)).unwrap_or(-1);
        assert_ne!(first, second);
        assert_eq!(ids.get(first).err(), Some(Errno::EIDRM));
        assert_eq!(ids.get(-1).err(), Some(Errno::EINVAL));
    }
}
