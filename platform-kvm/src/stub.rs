//! The guest's ring-0 side: a few instructions and descriptor tables, built once into the private area.
//!
//! It never decides anything. An exception or system call reaches an `out` that leaves the VM; the host reads what
//! happened from the registers and the exception frame. All gates switch to the CPU's own stack (IST 1), whatever
//! ring they come from, because after `syscall` on hardware ring 0 runs on the guest's stack pointer.

use crate::host_area::HostArea;
use crate::layout::*;

const OUT: [u8; 4] = [0xe6, EXIT_PORT, 0xeb, 0xfc]; // out EXIT_PORT, al; jmp to the out

/// Writes code, IDT and the reserved slot's page tables.
pub fn build_shared(area: &HostArea) {
    for vector in 0..VECTORS {
        area.write(STUB_PAGE * PAGE + vector * STUB_STRIDE, &OUT);
    }
    let at = |offset| STUB_PAGE * PAGE + offset;
    area.write(at(RETURN_SWITCH), &[0x0f, 0x22, 0xd8]);
    area.write(at(RETURN_POP), &[0x58]);
    area.write(at(RETURN), &[0x48, 0xcf]);

    let entry = ENTRY_PAGE * PAGE;
    area.write(entry, &OUT);
    area.write(entry + PROBE_CODE, &[0x48, 0x8b, 0x07, 0x0f, 0x05]);
    area.write(entry + PROBE_XGETBV, &[0x0f, 0x01, 0xd0, 0x0f, 0x05]);
    area.write(entry + XSAVE_CODE, &[0x48, 0x0f, 0xae, 0x27, 0x0f, 0x05]);
    area.write(entry + XRSTOR_CODE, &[0x48, 0x0f, 0xae, 0x2f, 0x0f, 0x05]);

    for vector in 0..VECTORS {
        area.write(IDT_PAGE * PAGE + vector * 16, &gate(vector));
    }
    build_tables(area);
}

/// A 64-bit interrupt gate on IST 1. int3 and into may be used from ring 3; any other `int n` is #GP.
fn gate(vector: u64) -> [u8; 16] {
    let target = private_va(STUB_PAGE) + vector * STUB_STRIDE;
    let dpl: u64 = if matches!(vector, 3 | 4) { 3 } else { 0 };
    let low = (target & 0xffff)
        | u64::from(KERNEL_CS) << 16
        | 1 << 32
        | (0x8e | dpl << 5) << 40
        | (target >> 16 & 0xffff) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(target >> 32).to_le_bytes());
    bytes
}

fn build_tables(area: &HostArea) {
    use crate::pte::{ACCESSED, DIRTY, NX, PRESENT, USER, WRITE};
    const UPPER: u64 = PRESENT | WRITE | USER | ACCESSED;
    let [pdpt, pd, pt] = RESERVED_TABLES;
    area.store(pdpt * PAGE, private_gpa(pd) | UPPER);
    area.store(pd * PAGE, private_gpa(pt) | UPPER);
    let base = PRESENT | ACCESSED | DIRTY;
    let map = |page: u64, flags: u64| area.store(pt * PAGE + page * 8, private_gpa(page) | base | flags);
    map(STUB_PAGE, 0);
    map(ENTRY_PAGE, USER);
    map(IDT_PAGE, NX);
    for cpu in 0..MAX_CPUS {
        for page in 0..CPU_STRIDE {
            map(cpu_page(cpu) + page, NX | WRITE);
        }
    }
}

/// The entry that every address space has in its reserved top-level slot.
pub fn reserved_entry() -> u64 {
    use crate::pte::{ACCESSED, PRESENT, USER, WRITE};
    private_gpa(RESERVED_TABLES[0]) | PRESENT | WRITE | USER | ACCESSED
}

/// Top of a CPU's exception stack (guest-virtual).
pub fn stack_top(cpu: usize) -> u64 {
    private_va(cpu_page(cpu) + 2)
}

/// Writes a CPU's global descriptor table and task state segment.
pub fn build_cpu(area: &HostArea, cpu: usize) {
    let page = cpu_page(cpu) * PAGE;
    let tss = private_va(cpu_page(cpu)) + TSS_OFFSET;
    let entry = |selector: u64, value: u64| area.store(page + (selector & !7), value);
    entry(u64::from(KERNEL_CS), 0x00af_9b00_0000_ffff);
    entry(u64::from(KERNEL_SS), 0x00cf_9300_0000_ffff);
    // 0x20 (Linux's 32-bit code) stays null: a jump to compatibility mode is #GP.
    entry(platform::arch::USER_SS, 0x00cf_f300_0000_ffff);
    entry(platform::arch::USER_CS, 0x00af_fb00_0000_ffff);
    let low = (TSS_BYTES - 1) | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24 & 0xff) << 56;
    entry(u64::from(TSS_SELECTOR), low);
    entry(u64::from(TSS_SELECTOR) + 8, tss >> 32);
    let top = stack_top(cpu);
    area.write(page + TSS_OFFSET + 4, &top.to_le_bytes()); // RSP0
    area.write(page + TSS_OFFSET + 36, &top.to_le_bytes()); // IST1
    area.write(page + TSS_OFFSET + 102, &(IO_MAP as u16).to_le_bytes());
    area.write(page + TSS_OFFSET + IO_MAP, &[0xff; 33]); // every port is #GP in ring 3
}

/// Lets ring 3 use the exit port, which the software KVM needs: `syscall` does not leave ring 3 there.
pub fn allow_exit_port(area: &HostArea, cpu: usize) {
    let byte = IO_MAP + u64::from(EXIT_PORT / 8);
    area.write(cpu_page(cpu) * PAGE + TSS_OFFSET + byte, &[!(1 << (EXIT_PORT % 8))]);
}
