//! Descriptor tables as saved state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, FdNum, FdTable, NR_OPEN, Slots};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::vfs::locks::LockOwner;
use crate::vfs::saved::FileState;

/// [`FdTable`]: number, open file, close-on-exec.
#[derive(Serialize, Deserialize)]
pub struct FdTableState {
    open: Vec<(i32, Id<FileState>, bool)>,
    lock_owner: Option<u64>,
}

impl Object for FdTable {
    type State = FdTableState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<FdTableState, Refused> {
        let FdTable { slots, lock_owner } = &**self;
        let slots = slots.lock();
        let Slots { entries, lowest: _ } = &*slots;
        let open = entries.iter().zip(0i32..).filter_map(|(entry, fd)| Some((fd, entry.as_ref()?)));
        let open = open.map(|(fd, Entry { file, cloexec })| (fd, saver.files.id(file), *cloexec)).collect();
        Ok(FdTableState { open, lock_owner: lock_owner.number() })
    }
}

impl FdTableState {
    /// The table.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<FdTable>, Unusable> {
        let mut table = FdTable::new();
        table.lock_owner = LockOwner::restored(&restorer.kernel.file_locks, self.lock_owner);
        for (fd, file, cloexec) in self.open {
            let file = restorer.file(file)?;
            let old = table.install_at(FdNum(fd), file, cloexec, NR_OPEN).map_err(Unusable::step("a descriptor"))?;
            if old.is_some() {
                return Err(Unusable::Corrupt("a descriptor twice"));
            }
        }
        Ok(Arc::new(table))
    }
}
