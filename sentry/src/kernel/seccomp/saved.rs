//! System call filters as saved state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use super::bpf::{Insn, Program};
use super::{DISABLED, FILTER, Filter, Seccomp};
use crate::checkpoint::Unusable;
use crate::sync::{Level, Mutex};

/// [`Seccomp`]: the mode, and the filters, the oldest first. Tasks that share filters get copies of their own.
#[derive(Serialize, Deserialize)]
pub struct SeccompState {
    mode: u8,
    filters: Vec<Vec<Insn>>,
}

impl Seccomp {
    /// Its state.
    #[must_use]
    pub fn save(&self) -> SeccompState {
        let Seccomp { mode, filter } = self;
        let mut filters = Vec::new();
        let newest = filter.lock().clone();
        let mut at = newest.as_ref();
        while let Some(filter) = at {
            let Filter { program, before, total: _, count: _ } = &**filter;
            filters.push(program.insns().to_vec());
            at = before.as_ref();
        }
        filters.reverse();
        SeccompState { mode: mode.load(Ordering::Relaxed), filters }
    }
}

impl SeccompState {
    /// The filters, checked again.
    ///
    /// # Errors
    /// A program that no guest could have set.
    pub fn restore(self) -> Result<Seccomp, Unusable> {
        let bad = |_| Unusable::Corrupt("a seccomp filter");
        let mut newest: Option<Arc<Filter>> = None;
        for insns in self.filters {
            newest = Some(Filter::new(Program::new(insns).map_err(bad)?, newest).map_err(bad)?);
        }
        if self.mode > FILTER || (self.mode == FILTER) != newest.is_some() && self.mode != DISABLED {
            return Err(Unusable::Corrupt("a seccomp mode"));
        }
        Ok(Seccomp { mode: AtomicU8::new(self.mode), filter: Mutex::new(Level::Leaf, newest) })
    }
}
