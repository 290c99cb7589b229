//! Where things lie in guest-physical and guest-virtual space.
//!
//! Guest-physical:
//! - 0 .. 2 MiB: the *private area*: stub code, IDT, the reserved slot's tables, and four pages a CPU;
//! - 16 MiB .. 4 GiB: page tables, added in blocks as they are needed;
//! - 4 GiB and up: windows on frame files, one memory slot a window, made when a frame in it is first mapped.
//!
//! Guest-virtual: everything below [`platform::USER_END`] is the guest's. The private area is mapped from there on, in
//! the last top-level entry of the lower half: the software KVM puts ring-0 code into the host's user mode, and has
//! only been seen to work with addresses of the lower half.

use platform::USER_END;

/// Bytes in a small page.
pub const PAGE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE: u64 = 2 << 20;

/// Pages of the private area, all reached by one page table.
pub const PRIVATE_PAGES: u64 = 512;
/// Guest-physical base of the private area.
pub const PRIVATE_GPA: u64 = 0;
/// Page of the private area that holds the exception stubs and the ring-0 return path.
pub const STUB_PAGE: u64 = 1;
/// Page where `syscall` lands. Executable from ring 3: on the software KVM `syscall` does not change the ring.
pub const ENTRY_PAGE: u64 = 2;
/// Page of the interrupt descriptor table.
pub const IDT_PAGE: u64 = 3;
/// Page-directory-pointer table, page directory and page table of the reserved slot.
pub const RESERVED_TABLES: [u64; 3] = [4, 5, 6];
/// First page of the CPUs' own pages.
pub const CPU_PAGES: u64 = 16;
/// Pages that each CPU has: descriptor tables, exception stack, and two for an XSAVE image.
pub const CPU_STRIDE: u64 = 4;
/// Bytes of the XSAVE image in a CPU's pages.
pub const XSAVE_BYTES: usize = 2 * PAGE as usize;
/// Most CPUs a sandbox can have.
pub const MAX_CPUS: usize = 64;

/// Guest-physical base of the page tables.
pub const TABLES_GPA: u64 = 16 << 20;
/// Bytes of page tables that are added at a time (one memory slot each).
pub const TABLE_BLOCK: u64 = 2 << 20;
/// Guest-physical base of the windows on frame files.
pub const WINDOWS_GPA: u64 = 4 << 30;
/// Bytes of a window: the unit in which frame files get memory slots. A slot costs the host kernel about ten bytes a
/// page on the software KVM, so that one window costs 80 KiB there.
pub const WINDOW: u64 = 32 << 20;

/// Index of the top-level entry that the private area takes.
pub const RESERVED_SLOT: usize = (USER_END >> 39) as usize & 511;

/// The port on which the stubs call the host. Any port would do: an exit is ours by where it happened, not by its port.
pub const EXIT_PORT: u8 = 0xf4;
/// Bytes between the stubs of two exception vectors.
pub const STUB_STRIDE: u64 = 16;
/// Exception vectors that have a gate.
pub const VECTORS: u64 = 32;
/// Offset in the stub page: `mov cr3, rax`, then [`RETURN_POP`].
pub const RETURN_SWITCH: u64 = 0x800;
/// Offset in the stub page: `pop rax`, then [`RETURN`].
pub const RETURN_POP: u64 = 0x803;
/// Offset in the stub page: `iretq`.
pub const RETURN: u64 = 0x804;
/// Offset in the entry page: `xsave64 [rdi]; syscall`. Harmless to guests.
pub const XSAVE_CODE: u64 = 0x160;
/// Offset in the entry page: `xrstor64 [rdi]; syscall`. Harmless to guests.
pub const XRSTOR_CODE: u64 = 0x180;
/// Where the idle tables (and no others) let ring 3 reach the CPUs' XSAVE images.
pub const XSAVE_VA: u64 = 0x20_0000;
/// Offset in the entry page: `mov rax, [rdi]; syscall`, for the start-up probe. Harmless to guests.
pub const PROBE_CODE: u64 = 0x100;
/// Offset in the entry page: `syscall`, for the start-up probe.
pub const PROBE_SYSCALL: u64 = PROBE_CODE + 3;
/// Offset in the entry page: `xgetbv; syscall`, for the start-up probe. Harmless to guests.
pub const PROBE_XGETBV: u64 = 0x120;

/// Guest-virtual address of a page of the private area.
pub const fn private_va(page: u64) -> u64 {
    USER_END + page * PAGE
}

/// Guest-physical address of a page of the private area.
pub const fn private_gpa(page: u64) -> u64 {
    PRIVATE_GPA + page * PAGE
}

/// First private page of CPU `index`.
pub const fn cpu_page(index: usize) -> u64 {
    CPU_PAGES + index as u64 * CPU_STRIDE
}

/// Ring-0 code segment, as Linux has it.
pub const KERNEL_CS: u16 = 0x10;
/// Ring-0 stack segment.
pub const KERNEL_SS: u16 = 0x18;
/// Task state segment selector.
pub const TSS_SELECTOR: u16 = 0x40;
/// Bytes of the global descriptor table: nulls and what stands above.
pub const GDT_BYTES: u64 = 0x50;
/// Offset of the task state segment in a CPU's first page.
pub const TSS_OFFSET: u64 = 0x100;
/// Bytes of the task state segment: the fixed part, and a map of the first 256 I/O ports.
pub const TSS_BYTES: u64 = IO_MAP + 33;
/// Offset of the map of I/O ports in the task state segment.
pub const IO_MAP: u64 = 104;
