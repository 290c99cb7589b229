//! Pages that an image has not in a form that can be mapped: holes, and last pages with foreign bytes behind them.

use std::collections::HashMap;
use std::sync::Arc;

use abi::{AddrRange, PAGE_SIZE};
use memory::{Frame, MemoryFile};

use crate::mm::mappable::TranslateError;
use crate::sync::{Level, Mutex};

#[derive(Default)]
struct Pages {
    zero: Option<u64>,
    tails: HashMap<u64, u64>,
}

/// Copies in guest memory, charged to the guest; at most one page a file. They stay as long as the image is mounted.
pub(super) struct CopiedPages {
    memory: Arc<MemoryFile>,
    pages: Mutex<Pages>,
}

impl CopiedPages {
    pub(super) fn new(memory: Arc<MemoryFile>) -> Self {
        CopiedPages { memory, pages: Mutex::new(Level::Leaf, Pages::default()) }
    }

    fn allocate(&self) -> Result<u64, TranslateError> {
        self.memory.allocate(PAGE_SIZE, PAGE_SIZE).map_err(|_| TranslateError::NoMemory)
    }

    /// A page of zeros, the same for all holes.
    pub(super) fn zero(&self) -> Result<Frame, TranslateError> {
        let mut pages = self.pages.lock();
        let offset = match pages.zero {
            Some(offset) => offset,
            None => *pages.zero.insert(self.allocate()?),
        };
        Ok(self.memory.frame(offset))
    }

    /// The last page of file `nid`: `bytes`, then zeros.
    pub(super) fn tail(&self, nid: u64, bytes: &[u8]) -> Result<Frame, TranslateError> {
        let mut pages = self.pages.lock();
        let offset = match pages.tails.get(&nid) {
            Some(offset) => *offset,
            None => {
                let offset = self.allocate()?;
                let bytes = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
                self.memory.file().write(offset, bytes).map_err(|_| TranslateError::NoMemory)?;
                pages.tails.insert(nid, offset);
                offset
            }
        };
        Ok(self.memory.frame(offset))
    }
}

impl Drop for CopiedPages {
    fn drop(&mut self) {
        let pages = std::mem::take(self.pages.get_mut());
        for offset in pages.zero.into_iter().chain(pages.tails.into_values()) {
            self.memory.dec_ref(AddrRange::new(offset, offset + PAGE_SIZE));
        }
    }
}
