//! Descriptor tables (`CLONE_FILES` shares one).

pub mod saved;

use std::sync::Arc;

use abi::Errno;

use crate::kernel::trip::inputs;
use crate::sync::{Level, Mutex};
use crate::vfs::file::FileDescription;
use crate::vfs::locks::LockOwner;

/// A descriptor number as a guest gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdNum(pub i32);

#[derive(Clone)]
struct Entry {
    file: Arc<FileDescription>,
    cloexec: bool,
}

/// Open descriptors by number.
pub struct FdTable {
    slots: Mutex<Slots>,
    /// Holder of the record locks of the processes that use it.
    pub lock_owner: LockOwner,
}

#[derive(Clone, Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    /// No free slot lies below this.
    lowest: usize,
}

/// Most descriptors any table can have (`fs.nr_open`).
pub const NR_OPEN: u64 = 1 << 20;

impl Default for FdTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FdTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        FdTable { slots: Mutex::new(Level::FdTable, Slots::default()), lock_owner: LockOwner::default() }
    }

    /// A copy that changes apart and shares the open files (`fork`).
    #[must_use]
    pub fn fork(&self) -> Self {
        FdTable { slots: Mutex::new(Level::FdTable, self.slots.lock().clone()), lock_owner: LockOwner::default() }
    }

    /// How many are open, roughly: the table's length.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.lock().entries.len()
    }

    /// The open file of `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: FdNum) -> Result<Arc<FileDescription>, Errno> {
        inputs::file(std::ptr::from_ref(self).addr(), fd, || self.get_with_flags(fd).map(|(file, _)| file))
    }

    /// The open file of `fd` and whether it closes on exec.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get_with_flags(&self, fd: FdNum) -> Result<(Arc<FileDescription>, bool), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.lock();
        let entry = slots.entries.get(index).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        Ok((entry.file.clone(), entry.cloexec))
    }

    /// Opens at the lowest free number from `from` on, below `limit` (RLIMIT_NOFILE).
    ///
    /// # Errors
    /// `EMFILE` where none is free.
    pub fn install(&self, file: Arc<FileDescription>, cloexec: bool, from: u32, limit: u64) -> Result<FdNum, Errno> {
        let mut slots = self.slots.lock();
        let limit = usize::try_from(limit.min(NR_OPEN)).map_err(|_| Errno::EMFILE)?;
        let mut index = (from as usize).max(slots.lowest);
        while slots.entries.get(index).is_some_and(Option::is_some) {
            index += 1;
        }
        if index >= limit {
            return Err(Errno::EMFILE);
        }
        if slots.entries.len() <= index {
            slots.entries.resize(index + 1, None);
        }
        slots.entries[index] = Some(Entry { file, cloexec });
        if from as usize <= slots.lowest {
            slots.lowest = index + 1;
        }
        i32::try_from(index).map(FdNum).map_err(|_| Errno::EMFILE)
    }

    /// Opens at exactly `fd` (`dup2`), answering what was open there.
    ///
    /// # Errors
    /// `EBADF` where `fd` is negative or not below `limit`.
    pub fn install_at(
        &self,
        fd: FdNum,
        file: Arc<FileDescription>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Arc<FileDescription>>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        if slots.entries.len() <= index {
            slots.entries.resize(index + 1, None);
        }
        Ok(slots.entries[index].replace(Entry { file, cloexec }).map(|e| e.file))
    }

    /// Closes `fd`; the caller flushes and drops the file, outside all locks.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: FdNum) -> Result<Arc<FileDescription>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.lock();
        let entry = slots.entries.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?;
        slots.lowest = slots.lowest.min(index);
        Ok(entry.file)
    }

    /// Sets the close-on-exec flag of `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_cloexec(&self, fd: FdNum, cloexec: bool) -> Result<(), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.lock();
        let entry = slots.entries.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        entry.cloexec = cloexec;
        Ok(())
    }

    /// Takes out all descriptors from `first` to `last` that `pick` (given close-on-exec) wants.
    pub fn remove_range(&self, first: u32, last: u32, pick: impl Fn(bool) -> bool) -> Vec<Arc<FileDescription>> {
        let mut slots = self.slots.lock();
        let end = slots.entries.len().min((last as usize).saturating_add(1));
        let mut removed = Vec::new();
        for index in (first as usize)..end {
            if slots.entries[index].as_ref().is_some_and(|e| pick(e.cloexec)) {
                removed.extend(slots.entries[index].take().map(|e| e.file));
                slots.lowest = slots.lowest.min(index);
            }
        }
        removed
    }

    /// The open descriptor numbers, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        let open = slots.entries.iter().enumerate().filter(|(_, e)| e.is_some());
        open.filter_map(|(index, _)| i32::try_from(index).ok()).collect()
    }
}
