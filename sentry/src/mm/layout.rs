//! Where things go in an address space: the areas, and the search for free addresses.

use abi::{AddrRange, Errno};
use memory::RangeMap;
use platform::{USER_END, USER_START};

use crate::mm::Vmas;
use crate::mm::holes::Holes;
use crate::mm::vma::{Vma, VmaFlags};

/// Kept free below a stack (`stack_guard_gap`, 256 pages).
pub const STACK_GUARD: u64 = 256 << 12;
/// `vm.max_map_count`.
pub const MAX_MAPS: usize = 65_530;

/// Bounds of the areas, chosen by the loader with random offsets.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// `mmap` searches downwards from here.
    pub mmap_top: u64,
    /// The stack's upper end.
    pub stack_top: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { mmap_top: USER_END - (136 << 20), stack_top: USER_END - (1 << 20) }
    }
}

impl Layout {
    /// The layout that Linux would choose (`arch/x86/mm/mmap.c`): the stack up to 16 GiB below the end of user space,
    /// the mmap area below the stack's limit and up to 1 TiB lower. `random` decides.
    #[must_use]
    pub fn random(random: [u64; 2], stack_limit: u64) -> Self {
        const PAGE_BITS: u64 = 0xfff_ffff << 12;
        let stack_top = USER_END - (1 << 20) - (random[0] & (0x3f_ffff << 12));
        let gap = stack_limit.clamp(128 << 20, USER_END / 6 * 5) + STACK_GUARD + (16 << 30);
        let mmap_top = USER_END.saturating_sub(gap).saturating_sub(random[1] & PAGE_BITS).max(1 << 40);
        Layout { mmap_top, stack_top }
    }
}

/// Where `range` begins for others: a stack keeps room to grow.
#[must_use]
pub fn guarded_start(range: AddrRange, vma: &Vma) -> u64 {
    if vma.flags.contains(VmaFlags::GROWSDOWN) { range.start.saturating_sub(STACK_GUARD) } else { range.start }
}

/// Whether nothing is mapped in `range`, nor a stack so close above that it could not grow.
#[must_use]
pub fn is_free(map: &RangeMap<Vma>, range: AddrRange) -> bool {
    map.at_or_after(range.start).is_none_or(|(r, vma)| guarded_start(r, vma) >= range.end)
}

/// The lowest free range of `len` bytes between `low` and `high`.
#[must_use]
pub fn find_bottom_up(map: &RangeMap<Vma>, low: u64, high: u64, len: u64) -> Option<u64> {
    let mut at = low;
    loop {
        let end = at.checked_add(len).filter(|&e| e <= high)?;
        match map.at_or_after(at) {
            Some((r, vma)) if guarded_start(r, vma) < end => at = r.end,
            _ => return Some(at),
        }
    }
}

/// As [`find_free`] without a hint, at an address that is congruent to `offset` modulo `unit` (a power of two).
///
/// # Errors
/// `ENOMEM`.
pub fn find_congruent(vmas: &mut Vmas, len: u64, unit: u64, offset: u64) -> Result<u64, Errno> {
    let room = len.checked_add(unit - abi::PAGE_SIZE).ok_or(Errno::ENOMEM)?;
    let start = vmas.find_free(0, room, false)?;
    // The highest such address, so that mappings made downwards stay close.
    let spare = room - len;
    Ok(start + spare - (start + spare).wrapping_sub(offset) % unit)
}

/// A free place for `len` bytes, at `hint` where that is free, as `get_unmapped_area` chooses.
///
/// # Errors
/// `ENOMEM`.
pub(super) fn find_free(
    map: &RangeMap<Vma>,
    layout: &Layout,
    holes: &mut Holes,
    hint: u64,
    len: u64,
    low32: bool,
) -> Result<u64, Errno> {
    if len > USER_END - USER_START {
        return Err(Errno::ENOMEM);
    }
    let limit = if low32 { 1 << 31 } else { USER_END };
    let hinted = abi::page_up(hint).filter(|&a| hint != 0 && a >= USER_START);
    if let Some(range) = hinted.and_then(|a| a.checked_add(len).map(|e| AddrRange::new(a, e)))
        && range.end <= limit
        && is_free(map, range)
    {
        return Ok(range.start);
    }
    let found = if low32 {
        // MAP_32BIT: the first 2 GiB, from 1 GiB on where there is room.
        find_bottom_up(map, 0x4000_0000, limit, len).or_else(|| find_bottom_up(map, USER_START, limit, len))
    } else {
        holes
            .find_top_down(map, USER_START, layout.mmap_top, len)
            .or_else(|| find_bottom_up(map, layout.mmap_top, USER_END, len))
    };
    found.ok_or(Errno::ENOMEM)
}
