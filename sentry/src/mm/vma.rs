//! Intent: what the guest asked for at a range of addresses.

use std::sync::Arc;

use memory::RangeValue;
use platform::{Access, Prot};

use crate::mm::mappable::Mappable;
use crate::vfs::FileDescription;

bitflags::bitflags! {
    /// Properties of a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmaFlags: u32 {
        /// Stores reach the file, or everybody who shares the memory.
        const SHARED = 1;
        /// A stack: grows down on faults below it.
        const GROWSDOWN = 1 << 1;
        /// `mlock`ed.
        const LOCKED = 1 << 2;
        /// `mlock2(MLOCK_ONFAULT)`.
        const LOCK_ON_FAULT = 1 << 3;
        /// MADV_DONTFORK.
        const DONTFORK = 1 << 4;
        /// MADV_WIPEONFORK.
        const WIPEONFORK = 1 << 5;
        /// MADV_DONTDUMP.
        const DONTDUMP = 1 << 6;
        /// MAP_NORESERVE.
        const NORESERVE = 1 << 7;
        /// MADV_HUGEPAGE.
        const HUGEPAGE = 1 << 8;
        /// MADV_NOHUGEPAGE.
        const NOHUGEPAGE = 1 << 9;
        /// The brk heap.
        const HEAP = 1 << 10;
        /// The kernel's own (vDSO, vvar): cannot be grown, shown by name.
        const SPECIAL = 1 << 11;
        /// MADV_SEQUENTIAL.
        const SEQUENTIAL = 1 << 12;
        /// MADV_RANDOM.
        const RANDOM = 1 << 13;
        /// MADV_MERGEABLE.
        const MERGEABLE = 1 << 14;
        /// MAP_SYNC.
        const SYNC = 1 << 15;
    }
}

/// The file behind a mapping.
#[derive(Clone)]
pub struct FileBacking {
    /// Its memory.
    pub mappable: Arc<dyn Mappable>,
    /// File offset of the mapping's first byte, page-aligned.
    pub offset: u64,
    /// The open file, for its name; `None` for shared anonymous memory.
    pub file: Option<Arc<FileDescription>>,
}

/// A mapping.
#[derive(Clone)]
pub struct Vma {
    /// Access allowed now.
    pub prot: Prot,
    /// Most access that `mprotect` may give.
    pub max: Prot,
    /// Properties.
    pub flags: VmaFlags,
    /// The file, or none for private anonymous memory.
    pub file: Option<FileBacking>,
    /// `PR_SET_VMA_ANON_NAME`, or the kernel's name (`[vdso]`).
    pub name: Option<Arc<[u8]>>,
    /// Protection key.
    pub pkey: u8,
}

impl Vma {
    /// Private anonymous memory.
    #[must_use]
    pub fn anonymous(prot: Prot, flags: VmaFlags) -> Self {
        Vma { prot, max: Prot::all(), flags, file: None, name: None, pkey: 0 }
    }

    /// Whether stores are seen by others.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Whether it counts as data (`is_data_mapping`): private, writable and no stack.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.is_shared() && !self.flags.contains(VmaFlags::GROWSDOWN)
    }

    /// What the CPU is told: on x86 writable and executable pages can be read.
    #[must_use]
    pub fn cpu_prot(&self) -> Prot {
        if self.prot.is_empty() { self.prot } else { self.prot | Prot::READ }
    }

    /// Whether an access is allowed.
    #[must_use]
    pub fn allows(&self, access: Access) -> bool {
        let prot = self.cpu_prot();
        let missing = |wanted: bool, bit: Prot| wanted && !prot.contains(bit);
        !(missing(access.read, Prot::READ) || missing(access.write, Prot::WRITE) || missing(access.exec, Prot::EXEC))
    }
}

fn same_file(a: Option<&FileBacking>, b: Option<&FileBacking>, len: u64) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let same_open = match (&a.file, &b.file) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            Arc::ptr_eq(&a.mappable, &b.mappable) && same_open && a.offset.wrapping_add(len) == b.offset
        }
        _ => false,
    }
}

impl RangeValue for Vma {
    fn advance(&self, by: u64) -> Self {
        let mut vma = self.clone();
        if let Some(file) = &mut vma.file {
            file.offset = file.offset.wrapping_add(by);
        }
        vma
    }

    fn continues(&self, len: u64, next: &Self) -> bool {
        self.prot == next.prot
            && self.max == next.max
            && self.flags == next.flags
            && self.pkey == next.pkey
            && self.name == next.name
            && same_file(self.file.as_ref(), next.file.as_ref(), len)
    }
}
