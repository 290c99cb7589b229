//! The pages that guest page tables are made of.
//!
//! All address spaces share one pool with a limit, so that a guest cannot make the host hold page tables without bound.
//! A KVM that shadows guest page tables remembers what a page said when it was used as a table. There, a page that
//! an address space gave back is only used again after KVM forgot everything ([`Vm::forget_shadows`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::host_area::HostArea;
use crate::layout::*;
use crate::vm::Vm;

#[derive(Default)]
struct State {
    free: Vec<u64>,
    stale: Vec<u64>,
    next: u64,
    backed: u64,
    used: u64,
}

/// The pool. Pages are named by their offset in it.
pub struct TablePool {
    vm: Arc<Vm>,
    area: HostArea,
    limit: AtomicU64,
    state: Mutex<State>,
    shadowed: AtomicBool,
}

/// Pages that wait for KVM to forget them before the pool makes it do so.
const STALE_MAX: usize = 2048;

impl TablePool {
    /// A pool of at most `limit` bytes, which may be made to be `most` later.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(vm: Arc<Vm>, limit: u64, most: u64) -> io::Result<Self> {
        let area = HostArea::new(most.next_multiple_of(TABLE_BLOCK).min(WINDOWS_GPA - TABLES_GPA))?;
        let limit = AtomicU64::new(limit.next_multiple_of(TABLE_BLOCK));
        Ok(TablePool { vm, area, limit, state: Mutex::default(), shadowed: AtomicBool::new(true) })
    }

    /// Changes how many bytes there may be.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit.next_multiple_of(TABLE_BLOCK).min(self.area.len()), Ordering::Relaxed);
    }

    fn is_full(&self, state: &State) -> bool {
        state.next >= self.limit.load(Ordering::Relaxed).min(self.area.len())
    }

    /// Tells whether KVM shadows guest page tables.
    pub fn set_shadowed(&self, shadowed: bool) {
        self.shadowed.store(shadowed, Ordering::Relaxed);
    }

    /// Whether KVM shadows guest page tables, and does not see the host change them.
    pub fn shadowed(&self) -> bool {
        self.shadowed.load(Ordering::Relaxed)
    }

    /// The memory of the tables.
    pub fn area(&self) -> &HostArea {
        &self.area
    }

    /// The guest-physical address of a page.
    pub fn gpa(page: u64) -> u64 {
        TABLES_GPA + page
    }

    /// The page that a table entry points to.
    pub fn page(entry: u64) -> u64 {
        crate::pte::addr(entry) - TABLES_GPA
    }

    /// Bytes of page tables in use.
    pub fn used(&self) -> u64 {
        self.state.lock().used * PAGE
    }

    /// A zeroed page; `None` when the pool is exhausted.
    pub fn alloc(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.free.is_empty() && (state.stale.len() >= STALE_MAX || self.is_full(&state)) {
            self.recycle(&mut state);
        }
        let page = match state.free.pop() {
            Some(page) => {
                self.area.zero_page(page);
                page
            }
            None => self.extend(&mut state)?,
        };
        state.used += 1;
        Some(page)
    }

    fn extend(&self, state: &mut State) -> Option<u64> {
        if self.is_full(state) {
            return None;
        }
        if state.next == state.backed {
            let (gpa, hva) = (TABLES_GPA + state.backed, self.area.host_addr(state.backed));
            if let Err(e) = self.vm.add_slot(gpa, hva, TABLE_BLOCK, false) {
                log::warn!("kvm: no memory slot for page tables: {e}");
                return None;
            }
            state.backed += TABLE_BLOCK;
        }
        state.next += PAGE;
        Some(state.next - PAGE)
    }

    fn recycle(&self, state: &mut State) {
        if state.stale.is_empty() {
            return;
        }
        self.vm.forget_shadows();
        let State { free, stale, .. } = state;
        free.append(stale);
    }

    /// Takes pages back. No CPU has them in its translation any more.
    pub fn free(&self, pages: impl IntoIterator<Item = u64>) {
        let mut state = self.state.lock();
        let State { free, stale, used, .. } = &mut *state;
        let list = if self.shadowed() { stale } else { free };
        let before = list.len();
        list.extend(pages);
        *used -= (list.len() - before) as u64;
    }
}
