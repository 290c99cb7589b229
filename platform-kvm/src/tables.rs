//! The page tables of one address space.
//!
//! Entries of upper tables are never changed once they are set (until the whole space is emptied), because a KVM that
//! shadows page tables would not notice. So a table, once hung in, stays, and a place that once had small pages is
//! not given a large one again.

use std::sync::Arc;

use abi::{AddrRange, Errno};
use memory::{FileKind, Frame};
use platform::Prot;

use crate::layout::*;
use crate::pte;
use crate::stub;
use crate::table_pool::TablePool;
use crate::vm::Vm;

/// Guest-physical ranges whose translations were replaced or removed, merged where they touch.
#[derive(Default)]
pub struct Stale {
    /// Starts and lengths, in the order they were found.
    pub runs: Vec<(u64, u64)>,
}

impl Stale {
    fn push(&mut self, gpa: u64, len: u64) {
        if let Some((start, have)) = self.runs.last_mut() {
            if *start + *have == gpa {
                *have += len;
                return;
            }
            if gpa + len == *start {
                *start = gpa;
                *have += len;
                return;
            }
        }
        self.runs.push((gpa, len));
    }

    /// Whether nothing was replaced.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// Page tables with their pool.
pub struct Tables {
    vm: Arc<Vm>,
    pool: Arc<TablePool>,
    root: u64,
    pages: Vec<u64>,
}

impl Tables {
    /// Tables that map nothing but the private area.
    ///
    /// # Errors
    /// `ENOMEM` when the pool is exhausted.
    pub fn new(vm: Arc<Vm>, pool: Arc<TablePool>) -> Result<Self, Errno> {
        let root = pool.alloc().ok_or(Errno::ENOMEM)?;
        pool.area().store(root + RESERVED_SLOT as u64 * 8, stub::reserved_entry());
        Ok(Tables { vm, pool, root, pages: Vec::new() })
    }

    /// The guest-physical address of the root.
    pub fn cr3(&self) -> u64 {
        TablePool::gpa(self.root)
    }

    fn entry_at(table: u64, va: u64, level: u32) -> u64 {
        table + (va >> (12 + 9 * level) & 511) * 8
    }

    /// The place of the page-directory entry for `va`, with its upper tables made.
    fn directory_entry(&mut self, va: u64) -> Result<u64, Errno> {
        let mut table = self.root;
        for level in [3, 2] {
            let at = Self::entry_at(table, va, level);
            table = match self.pool.area().load(at) {
                entry if pte::present(entry) => TablePool::page(entry),
                _ => self.hang(at)?,
            };
        }
        Ok(Self::entry_at(table, va, 1))
    }

    fn hang(&mut self, at: u64) -> Result<u64, Errno> {
        let page = self.pool.alloc().ok_or(Errno::ENOMEM)?;
        self.pages.push(page);
        self.pool.area().store(at, pte::table(TablePool::gpa(page)));
        Ok(page)
    }

    /// As [`Tables::directory_entry`], where the tables exist.
    fn find_directory_entry(&self, va: u64) -> Option<u64> {
        let mut table = self.root;
        for level in [3, 2] {
            let entry = self.pool.area().load(Self::entry_at(table, va, level));
            if !pte::present(entry) {
                return None;
            }
            table = TablePool::page(entry);
        }
        Some(Self::entry_at(table, va, 1))
    }

    /// Makes `range` show the frames from `frame` on. What it replaced goes to `stale`.
    ///
    /// # Errors
    /// `ENOMEM` when the pool or the VM's room for windows is exhausted; some pages may then be mapped.
    pub fn map(
        &mut self,
        range: AddrRange,
        frame: &Frame,
        prot: Prot,
        pkey: u8,
        stale: &mut Stale,
    ) -> Result<(), Errno> {
        let prot = if frame.file.is_writable() { prot } else { prot - Prot::WRITE };
        let flags = pte::leaf_flags(prot, pkey);
        // A donated file may shrink, page by page.
        let large = frame.file.kind() != FileKind::Donated && flags != 0;
        let mut va = range.start;
        while va < range.end {
            let offset = frame.offset.checked_add(va - range.start).ok_or(Errno::ENOMEM)?;
            let (gpa, room) = self.vm.window(&frame.file, offset)?;
            let end = range.end.min(va + room);
            if large && frame.file.kind() == FileKind::Image {
                advise_huge(frame, offset, AddrRange::new(va, end));
            }
            self.map_run(AddrRange::new(va, end), gpa, flags, large, stale)?;
            va = end;
        }
        Ok(())
    }

    fn map_run(&mut self, range: AddrRange, gpa: u64, flags: u64, large: bool, stale: &mut Stale) -> Result<(), Errno> {
        let mut va = range.start;
        while va < range.end {
            let end = range.end.min((va & !(LARGE - 1)) + LARGE);
            let at = self.directory_entry(va)?;
            let old = self.pool.area().load(at);
            let to = gpa + (va - range.start);
            if large && end - va == LARGE && to.is_multiple_of(LARGE) && (!pte::present(old) || pte::is_large(old)) {
                self.set_leaf(at, old, to | flags | pte::LARGE_PAGE, LARGE, stale);
            } else {
                let table = self.small_table(at, old, stale)?;
                self.map_small(table, AddrRange::new(va, end), to, flags, stale);
            }
            va = end;
        }
        Ok(())
    }

    fn set_leaf(&self, at: u64, old: u64, new: u64, len: u64, stale: &mut Stale) {
        let new = if pte::present(new) { new } else { 0 };
        if old == new {
            return;
        }
        self.pool.area().store(at, new);
        if pte::present(old) && !pte::is_upgrade(old, new) {
            stale.push(pte::addr(old), len);
        }
    }

    fn map_small(&self, table: u64, range: AddrRange, gpa: u64, flags: u64, stale: &mut Stale) {
        let mut to = gpa;
        let first = Self::entry_at(table, range.start, 0);
        for i in 0..range.len() / PAGE {
            let at = first + i * 8;
            self.set_leaf(at, self.pool.area().load(at), to | flags, PAGE, stale);
            to += PAGE;
        }
    }

    /// The page table below the directory entry at `at`; a large page there is split.
    fn small_table(&mut self, at: u64, old: u64, stale: &mut Stale) -> Result<u64, Errno> {
        if !pte::present(old) {
            return self.hang(at);
        }
        if !pte::is_large(old) {
            return Ok(TablePool::page(old));
        }
        let page = self.pool.alloc().ok_or(Errno::ENOMEM)?;
        self.pages.push(page);
        let small = old & !pte::LARGE_PAGE;
        for i in 0..512 {
            self.pool.area().store(page + i * 8, small + i * PAGE);
        }
        self.pool.area().store(at, pte::table(TablePool::gpa(page)));
        stale.push(pte::addr(old), LARGE);
        Ok(page)
    }

    /// Removes all translations of `range`. What it removed goes to `stale`.
    ///
    /// # Errors
    /// `ENOMEM` when a large page had to be split and the pool is exhausted.
    pub fn unmap(&mut self, range: AddrRange, stale: &mut Stale) -> Result<(), Errno> {
        let mut va = range.start;
        while va < range.end {
            let Some(at) = self.find_directory_entry(va) else {
                va = self.next_populated(va).min(range.end);
                continue;
            };
            let end = range.end.min((va & !(LARGE - 1)) + LARGE);
            let old = self.pool.area().load(at);
            if pte::is_large(old) && end - va == LARGE {
                self.set_leaf(at, old, 0, LARGE, stale);
            } else if pte::present(old) {
                let table = self.small_table(at, old, stale)?;
                self.map_small(table, AddrRange::new(va, end), 0, 0, stale);
            }
            va = end;
        }
        Ok(())
    }

    /// The first address after `va`'s missing directory (or directory-pointer) table.
    fn next_populated(&self, va: u64) -> u64 {
        let top = self.pool.area().load(Self::entry_at(self.root, va, 3));
        let span = if pte::present(top) { 1u64 << 30 } else { 1 << 39 };
        (va & !(span - 1)) + span
    }

    /// The leaf entry for `va`, and the guest-physical address of the byte there.
    pub fn lookup(&self, va: u64) -> Option<(u64, u64)> {
        if va >= platform::USER_END {
            return None;
        }
        let at = self.find_directory_entry(va)?;
        let entry = self.pool.area().load(at);
        if pte::is_large(entry) {
            return Some((entry, pte::addr(entry) + va % LARGE));
        }
        if !pte::present(entry) {
            return None;
        }
        let entry = self.pool.area().load(Self::entry_at(TablePool::page(entry), va, 0));
        pte::present(entry).then(|| (entry, pte::addr(entry) + va % PAGE))
    }

    /// Tables for vCPUs that run no guest: besides the private area, ring 3 reaches the XSAVE images here.
    ///
    /// # Errors
    /// `ENOMEM` when the pool is exhausted.
    pub fn idle(vm: Arc<Vm>, pool: Arc<TablePool>) -> Result<Self, Errno> {
        let mut tables = Self::new(vm, pool)?;
        let flags = pte::leaf_flags(Prot::READ | Prot::WRITE, 0);
        for page in 0..(MAX_CPUS * 2) as u64 {
            let gpa = private_gpa(cpu_page((page / 2) as usize) + 2 + page % 2);
            tables.set_raw(XSAVE_VA + page * PAGE, gpa | flags)?;
        }
        Ok(tables)
    }

    /// Sets a small leaf as it stands.
    ///
    /// # Errors
    /// `ENOMEM` when the pool is exhausted.
    pub fn set_raw(&mut self, va: u64, entry: u64) -> Result<(), Errno> {
        let at = self.directory_entry(va)?;
        let old = self.pool.area().load(at);
        let table = self.small_table(at, old, &mut Stale::default())?;
        self.pool.area().store(Self::entry_at(table, va, 0), entry);
        Ok(())
    }

    /// Calls `f(va, guest-physical, length)` for every leaf.
    pub fn for_each_leaf(&self, mut f: impl FnMut(u64, u64, u64)) {
        let area = self.pool.area();
        let present = |table: u64, slots: u64| {
            (0..slots).map(move |i| (i, area.load(table + i * 8))).filter(|&(_, e)| pte::present(e))
        };
        for (i4, e4) in present(self.root, RESERVED_SLOT as u64) {
            for (i3, e3) in present(TablePool::page(e4), 512) {
                for (i2, e2) in present(TablePool::page(e3), 512) {
                    let va = i4 << 39 | i3 << 30 | i2 << 21;
                    if pte::is_large(e2) {
                        f(va, pte::addr(e2), LARGE);
                        continue;
                    }
                    for (i1, e1) in present(TablePool::page(e2), 512) {
                        f(va | i1 << 12, pte::addr(e1), PAGE);
                    }
                }
            }
        }
    }

    /// Removes everything. The tables taken out are returned: they may be freed once no CPU walks them any more.
    #[must_use]
    pub fn clear(&mut self) -> Vec<u64> {
        for i in 0..RESERVED_SLOT as u64 {
            self.pool.area().store(self.root + i * 8, 0);
        }
        std::mem::take(&mut self.pages)
    }
}

/// Asks the host for huge pages of the image where `range`, which shows it from `offset` on, gets large entries.
fn advise_huge(frame: &Frame, offset: u64, range: AddrRange) {
    if range.start % LARGE != offset % LARGE {
        return;
    }
    let (start, end) = (range.start.next_multiple_of(LARGE), range.end & !(LARGE - 1));
    if start < end {
        frame.file.advise_huge(offset + (start - range.start), end - start);
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.pool.free(self.pages.drain(..).chain([self.root]));
    }
}
