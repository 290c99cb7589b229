//! [`AddressSpace`] on KVM.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno};
use memory::FileKind;
use parking_lot::{Mutex, RwLock};
use platform::{AddressSpace, MapOp};

use crate::kick::CpuShared;
use crate::table_pool::TablePool;
use crate::tables::{Stale, Tables};
use crate::vm::Vm;
use crate::zap::Zapper;

/// What all address spaces and CPUs of a sandbox share.
pub struct Shared {
    /// The VM.
    pub vm: Arc<Vm>,
    /// Page-table pages.
    pub pool: Arc<TablePool>,
    /// Drops shadow translations.
    pub zapper: Zapper,
    /// All CPUs made so far.
    pub cpus: RwLock<Vec<Arc<CpuShared>>>,
    /// Tables that CPUs start on, and where their XSAVE images can be reached.
    pub idle: Tables,
}

/// A guest address space: page tables, and a count of the changes that CPUs must not miss.
pub struct KvmSpace {
    id: u64,
    cr3: u64,
    this: Weak<KvmSpace>,
    shared: Arc<Shared>,
    tables: Mutex<Tables>,
    changes: AtomicU64,
}

impl KvmSpace {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM` when the pool of page tables is exhausted.
    pub fn new(shared: &Arc<Shared>) -> Result<Arc<Self>, Errno> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let tables = Tables::new(shared.vm.clone(), shared.pool.clone())?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let cr3 = tables.cr3();
        Ok(Arc::new_cyclic(|this| KvmSpace {
            id,
            cr3,
            this: this.clone(),
            shared: shared.clone(),
            tables: Mutex::new(tables),
            changes: AtomicU64::new(0),
        }))
    }

    /// The owning pointer, from a reference that a trait object gave.
    pub fn arc(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// The space's name, never 0 and never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The root of its tables.
    pub fn cr3(&self) -> u64 {
        self.cr3
    }

    /// Counts the changes after which a CPU must flush its translations before it runs in the space again.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Makes sure that no CPU uses what `stale` says was replaced.
    fn flush(&self, stale: &Stale) {
        if stale.is_empty() {
            return;
        }
        if self.shared.pool.shadowed() {
            self.shared.zapper.zap(&self.shared.vm, &stale.runs);
        } else {
            self.flush_processors();
        }
    }

    /// Nested paging: the tables are the truth, and only processors' own caches may be behind.
    fn flush_processors(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        for cpu in self.shared.cpus.read().iter() {
            cpu.expel(self.id);
        }
    }

    /// Removes everything, with the lock held.
    fn clear(&self, tables: &mut Tables) {
        let pages = tables.clear();
        if self.shared.pool.shadowed() {
            self.shared.vm.forget_shadows();
        } else {
            self.flush_processors();
        }
        self.shared.pool.free(pages);
    }

    /// Reads guest code at `va`, as far as it is mapped, for decoding. Answers how many bytes there were.
    pub fn read_code(&self, va: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = va.checked_add(done as u64) else { break };
            let Some((_, gpa)) = self.tables.lock().lookup(at) else { break };
            let Some((window, offset)) = self.shared.vm.frame_at(gpa) else { break };
            let room = (crate::layout::PAGE - at % crate::layout::PAGE) as usize;
            let part = room.min(buf.len() - done);
            if window.file.read(offset, &mut buf[done..done + part]).is_err() {
                break;
            }
            done += part;
        }
        done
    }

    /// Unmaps every page whose frame the host cannot produce any more; answers where they were.
    pub fn remove_failing_pages(&self) -> Vec<u64> {
        let mut tables = self.tables.lock();
        let mut failing = Vec::new();
        tables.for_each_leaf(|va, gpa, _| {
            let Some((window, offset)) = self.shared.vm.frame_at(gpa) else { return };
            let mut byte = [0];
            if window.file.kind() != FileKind::Memory && window.file.read(offset, &mut byte).is_err() {
                failing.push(va);
            }
        });
        let mut stale = Stale::default();
        for &va in &failing {
            // Only small pages show files, so nothing is split and nothing can fail.
            let _ = tables.unmap(AddrRange::new(va, va + crate::layout::PAGE), &mut stale);
        }
        self.flush(&stale);
        failing
    }

    fn apply_all(&self, tables: &mut Tables, ops: &[MapOp], stale: &mut Stale) -> Result<(), Errno> {
        for op in ops {
            match op {
                MapOp::Map { range, frame, prot, pkey } => {
                    tables.map(check(*range)?, frame, *prot, *pkey, stale)?;
                }
                MapOp::Unmap { range } => tables.unmap(check(*range)?, stale)?,
            }
        }
        Ok(())
    }
}

/// The kernel above keeps guests below `USER_END`; a mistake there must not reach the private area.
fn check(range: AddrRange) -> Result<AddrRange, Errno> {
    let aligned = (range.start | range.end) & (crate::layout::PAGE - 1) == 0;
    if aligned && range.end <= platform::USER_END { Ok(range) } else { Err(Errno::ENOMEM) }
}

impl AddressSpace for KvmSpace {
    fn apply(&self, ops: &[MapOp]) -> Result<(), Errno> {
        let mut tables = self.tables.lock();
        let mut stale = Stale::default();
        let result = self.apply_all(&mut tables, ops, &mut stale);
        match result {
            Ok(()) => self.flush(&stale),
            Err(_) => self.clear(&mut tables),
        }
        result
    }

    fn invalidate(&self, range: AddrRange) {
        let mut tables = self.tables.lock();
        let mut stale = Stale::default();
        match check(range).and_then(|range| tables.unmap(range, &mut stale)) {
            Ok(()) => self.flush(&stale),
            Err(_) => self.clear(&mut tables),
        }
    }
}
