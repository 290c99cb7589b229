//! What `/proc/PID/{maps,smaps,statm,status}` tell, as plain data.

use std::sync::Arc;

use abi::AddrRange;
use platform::Prot;

use crate::mm::vma::VmaFlags;
use crate::mm::{Mm, ProgramInfo};
use crate::vfs::{FileDescription, InodeKey};

/// One line of `/proc/PID/maps`, and what `smaps` adds.
#[derive(Clone)]
pub struct MapsEntry {
    /// Addresses.
    pub range: AddrRange,
    /// Access.
    pub prot: Prot,
    /// `s` or `p`.
    pub shared: bool,
    /// File offset; 0 for anonymous memory.
    pub offset: u64,
    /// Device and inode number; `None` for anonymous memory.
    pub key: Option<InodeKey>,
    /// The file, whose path is shown.
    pub file: Option<Arc<FileDescription>>,
    /// `[heap]`, `[stack]`, `[vdso]`, `[anon:NAME]`, `/dev/zero (deleted)`, where there is no file.
    pub label: Option<Vec<u8>>,
    /// Properties, for `VmFlags`.
    pub flags: VmaFlags,
    /// Bytes with a frame.
    pub resident: u64,
    /// Of which are private copies or anonymous memory.
    pub private: u64,
}

/// Sizes in bytes, as `/proc/PID/status` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmStats {
    /// VmSize.
    pub size: u64,
    /// VmPeak: the most that VmSize has been.
    pub most_size: u64,
    /// VmHWM: the most that VmRSS has been.
    pub most_rss: u64,
    /// VmLck.
    pub locked: u64,
    /// RssAnon.
    pub rss_anon: u64,
    /// RssFile.
    pub rss_file: u64,
    /// RssShmem: pages of files in memory and of shared anonymous memory.
    pub rss_shmem: u64,
    /// VmData: private writable mappings but stacks.
    pub data: u64,
    /// VmStk.
    pub stack: u64,
    /// VmExe: the program's text.
    pub exe: u64,
    /// VmLib: executable mappings but the program's text.
    pub lib: u64,
    /// Number of mappings.
    pub maps: usize,
}

impl MmStats {
    /// VmRSS.
    #[must_use]
    pub fn rss(&self) -> u64 {
        self.rss_anon + self.rss_file + self.rss_shmem
    }
}

fn resident(mm: &Mm, range: AddrRange) -> (u64, u64) {
    let pmas = mm.pmas.lock();
    let count = |(all, own): (u64, u64), (r, owned): (AddrRange, bool)| {
        let len = r.intersect(&range).len();
        (all + len, own + if owned { len } else { 0 })
    };
    pmas.map.overlapping(range).map(|(r, p)| (r, p.owned)).fold((0, 0), count)
}

impl Mm {
    /// The mappings, in order.
    #[must_use]
    pub fn maps(&self) -> Vec<MapsEntry> {
        let vmas = self.vmas.read();
        let heap = AddrRange::new(vmas.brk.start, vmas.brk.end.max(vmas.brk.start + 1));
        let start_stack = vmas.program.start_stack;
        let mut out = Vec::with_capacity(vmas.map.len());
        for (range, vma) in vmas.map.iter() {
            let label = match (&vma.file, &vma.name) {
                (Some(f), _) if f.file.is_some() => None,
                (_, Some(name)) if vma.flags.contains(VmaFlags::SPECIAL) => Some(name.to_vec()),
                (Some(_), _) => Some(b"/dev/zero (deleted)".to_vec()),
                (None, Some(name)) => Some([b"[anon:", &name[..], b"]"].concat()),
                (None, None) if range.overlaps(&heap) => Some(b"[heap]".to_vec()),
                (None, None) if range.contains(start_stack) => Some(b"[stack]".to_vec()),
                (None, None) => None,
            };
            let special = vma.flags.contains(VmaFlags::SPECIAL);
            let shown = vma.file.as_ref().filter(|_| !special);
            let (resident, private) = resident(self, range);
            out.push(MapsEntry {
                range,
                prot: vma.prot,
                shared: vma.is_shared(),
                offset: shown.map_or(0, |f| f.offset),
                key: shown.map(|f| f.mappable.key()),
                file: shown.and_then(|f| f.file.clone()),
                label,
                flags: vma.flags,
                resident,
                private,
            });
        }
        out
    }

    /// Whether the page `page` has a frame.
    #[must_use]
    pub fn has_frame(&self, page: AddrRange) -> bool {
        resident(self, page).0 > 0
    }

    /// Whether all of `range` is mapped.
    #[must_use]
    pub fn is_mapped(&self, range: AddrRange) -> bool {
        self.vmas.read().map.gaps(range).is_empty()
    }

    /// Sizes.
    #[must_use]
    pub fn stats(&self) -> MmStats {
        let vmas = self.vmas.read();
        let most_size = vmas.map.most_covered();
        let mut stats = MmStats { maps: vmas.map.len(), most_size, ..MmStats::default() };
        for (range, vma) in vmas.map.iter() {
            let len = range.len();
            stats.size += len;
            stats.locked += if vma.flags.contains(VmaFlags::LOCKED) { len } else { 0 };
            let stack = vma.flags.contains(VmaFlags::GROWSDOWN);
            if stack {
                stats.stack += len;
            } else if !vma.is_shared() && vma.prot.contains(Prot::WRITE) {
                stats.data += len;
            }
            if vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE) && !stack {
                let program = vmas.program.code.overlaps(&range);
                *(if program { &mut stats.exe } else { &mut stats.lib }) += len;
            }
        }
        let pmas = self.pmas.lock();
        stats.most_rss = pmas.map.most_covered();
        for (range, pma) in pmas.map.iter() {
            let ours = pma.frame.file.id() == self.memory.file().id();
            let part = match (pma.owned, ours) {
                (true, _) => &mut stats.rss_anon,
                (false, true) => &mut stats.rss_shmem,
                (false, false) => &mut stats.rss_file,
            };
            *part += range.len();
        }
        stats
    }

    /// The largest resident set that it has had, bytes (`hiwater_rss`).
    #[must_use]
    pub fn most_resident(&self) -> u64 {
        self.pmas.lock().map.most_covered()
    }

    /// Page tables, bytes, roughly: a table for every 2 MiB that has a page (`VmPTE`).
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        let (mut tables, mut last) = (3u64, u64::MAX);
        for (range, _) in self.pmas.lock().map.iter() {
            let (first, end) = (range.start >> 21, (range.end - 1) >> 21);
            tables += end - first + u64::from(first != last);
            last = end;
        }
        tables * abi::PAGE_SIZE
    }

    /// What the loader placed: executable, argument and environment ranges, auxiliary vector.
    #[must_use]
    pub fn program(&self) -> ProgramInfo {
        self.vmas.read().program.clone()
    }

    /// Changes what the loader noted (`prctl(PR_SET_MM)`).
    pub fn update_program(&self, change: impl FnOnce(&mut ProgramInfo)) {
        // A replaced executable is dropped outside of the lock.
        let mut program = self.program();
        change(&mut program);
        let old = std::mem::replace(&mut self.vmas.write().program, program);
        drop(old);
    }
}
