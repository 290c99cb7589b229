//! Page-table entries.

use platform::Prot;

/// Valid.
pub const PRESENT: u64 = 1;
/// Stores allowed.
pub const WRITE: u64 = 1 << 1;
/// Ring 3 allowed.
pub const USER: u64 = 1 << 2;
/// Preset, so that neither the processor nor a shadowing KVM has to write the entry back at first touch.
pub const ACCESSED: u64 = 1 << 5;
/// Preset, as [`ACCESSED`]; without it the software KVM maps read-only first.
pub const DIRTY: u64 = 1 << 6;
/// A large page (in a page directory).
pub const LARGE_PAGE: u64 = 1 << 7;
/// Not executable.
pub const NX: u64 = 1 << 63;

const ADDR: u64 = 0x000f_ffff_ffff_f000;
const PKEY_SHIFT: u32 = 59;

/// The physical address in an entry.
pub const fn addr(entry: u64) -> u64 {
    entry & ADDR
}

/// Whether the entry maps anything.
pub const fn present(entry: u64) -> bool {
    entry & PRESENT != 0
}

/// Whether a page-directory entry maps a large page.
pub const fn is_large(entry: u64) -> bool {
    entry & (PRESENT | LARGE_PAGE) == PRESENT | LARGE_PAGE
}

/// The flags of a leaf entry for a user page. Without any access the entry is not present.
pub fn leaf_flags(prot: Prot, pkey: u8) -> u64 {
    if prot.is_empty() {
        return 0;
    }
    let mut flags = PRESENT | USER | ACCESSED | DIRTY | u64::from(pkey & 15) << PKEY_SHIFT;
    if prot.contains(Prot::WRITE) {
        flags |= WRITE;
    }
    if !prot.contains(Prot::EXEC) {
        flags |= NX;
    }
    flags
}

/// An entry that points to a lower table; access is decided in the leaves.
pub const fn table(gpa: u64) -> u64 {
    gpa | PRESENT | WRITE | USER | ACCESSED
}

/// Whether `new` allows all that `old` did and shows the same frame, so that a stale translation is never wrong,
/// only too strict (and then faults, which makes the processor look again).
pub const fn is_upgrade(old: u64, new: u64) -> bool {
    const KEPT: u64 = ADDR | PRESENT | USER | LARGE_PAGE | 15 << PKEY_SHIFT;
    old & KEPT == new & KEPT && (old & WRITE) <= (new & WRITE) && (new & NX) <= (old & NX)
}
