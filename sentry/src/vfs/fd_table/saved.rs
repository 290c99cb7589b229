//! Descriptor tables as saved state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, FdNum, FdTable, NR_OPEN, Slots};
use crate::checkpoint::{Id, Object, Refused, Restorer, Saver, Unusable};
use crate::vfs::saved::FileState;

/// [`FdTable`]: number, open file, close-on-exec.
#[derive(Serialize, Deserialize)]
pub struct FdTableState(Vec<(i32, Id<FileState>, bool)>);

impl Object for FdTable {
    type State = FdTableState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<FdTableState, Refused> {
        // Locks are refused as a whole, so an owner of them is like a new one.
        let FdTable { slots, lock_owner: _ } = &**self;
        let slots = slots.lock();
        let Slots { entries, lowest: _ } = &*slots;
        let open = entries.iter().zip(0i32..).filter_map(|(entry, fd)| Some((fd, entry.as_ref()?)));
        let state = open.map(|(fd, Entry { file, cloexec })| (fd, saver.files.id(file), *cloexec));
        Ok(FdTableState(state.collect()))
    }
}

impl FdTableState {
    /// The table.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<FdTable>, Unusable> {
        let table = FdTable::new();
        for (fd, file, cloexec) in self.0 {
            let file = restorer.file(file)?;
            let old = table.install_at(FdNum(fd), file, cloexec, NR_OPEN).map_err(Unusable::step("a descriptor"))?;
            if old.is_some() {
                return Err(Unusable::Corrupt("a descriptor twice"));
            }
        }
        Ok(Arc::new(table))
    }
}
