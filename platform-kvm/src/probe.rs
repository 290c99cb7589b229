//! Finding out, once a sandbox, how this host's KVM behaves. By trying, not by name.

use std::io;
use std::sync::Arc;

use kvm_bindings::kvm_regs;
use platform::UserRegs;

use crate::fpu::{HEADER_END, XSTATE_BV, XsaveBuffer};
use crate::layout::*;
use crate::pte;
use crate::table_pool::TablePool;
use crate::tables::Tables;
use crate::vcpu::{Reason, Vcpu};
use crate::vm::Vm;

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// `syscall` stays in ring 3, so guests run in the host's user mode.
    pub software: bool,
    /// KVM shadows guest page tables and does not see us change them.
    pub shadowed: bool,
    /// Return from ring 0 by `iretq` in the stub.
    pub return_by_stub: bool,
    /// XSAVE components that guests have and we carry.
    pub xcr0: u64,
    /// Bytes of a standard XSAVE image with these components.
    pub xsave_size: usize,
    /// Components that KVM_SET_XSAVE drops, so that guest code must load them.
    pub guest_xrstor: u64,
}

/// Components that are tested and carried: x87 SSE AVX, AVX-512's three, PKRU.
const CARRIED: u64 = 0x2e7;

/// Where and how long an XSAVE component is in the standard format.
fn component(index: u32) -> (usize, usize) {
    let leaf = std::arch::x86_64::__cpuid_count(0xd, index);
    (leaf.ebx as usize, leaf.eax as usize)
}

fn components(mask: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    (2..63).filter(move |i| mask >> i & 1 != 0).map(|i| {
        let (at, len) = component(i);
        (1 << i, at, len)
    })
}

/// Bytes of a standard XSAVE image with the components of `xcr0`.
fn image_size(xcr0: u64) -> usize {
    components(xcr0).map(|(_, at, len)| at + len).max().unwrap_or(HEADER_END).max(HEADER_END)
}

/// Runs the probes on a fresh vCPU, which stands on `tables`.
///
/// # Errors
/// What KVM says, and exits that no working KVM makes.
pub fn run(vm: &Arc<Vm>, pool: &Arc<TablePool>, vcpu: &mut Vcpu, tables: &mut Tables) -> io::Result<Traits> {
    let software = probe_ring(vcpu, tables)?;
    vcpu.return_by_stub = !software;
    let shadowed = probe_tables(pool, vcpu, tables)?;
    let xcr0 = probe_xcr0(vcpu, tables)? & CARRIED;
    let size = image_size(xcr0);
    let (xcr0, guest_xrstor) = if size <= XSAVE_BYTES { probe_xsave(vm, vcpu, tables, xcr0)? } else { (3, 0) };
    Ok(Traits { software, shadowed, return_by_stub: !software, xcr0, xsave_size: image_size(xcr0), guest_xrstor })
}

fn expect(what: &str, reason: Reason) -> io::Result<()> {
    match reason {
        Reason::Io => Ok(()),
        other => Err(io::Error::other(format!("KVM probe: {what} ended with {other:?}"))),
    }
}

fn call(vcpu: &mut Vcpu, tables: &Tables, offset: u64, regs: UserRegs, flush: bool) -> io::Result<kvm_regs> {
    let regs = UserRegs { rip: private_va(ENTRY_PAGE) + offset, ..regs };
    let reason = vcpu.run_user(&regs, tables.cr3(), flush);
    expect("a system call", reason)?;
    Ok(*vcpu.general())
}

/// Whether `syscall` stays in ring 3. There the `out` behind it is refused until ring 3 may use the port.
fn probe_ring(vcpu: &mut Vcpu, tables: &Tables) -> io::Result<bool> {
    let after = call(vcpu, tables, PROBE_SYSCALL, UserRegs::new(), false)?;
    if in_entry_page(after.rip) && vcpu.ring() == 0 {
        return Ok(false);
    }
    let vector = (after.rip.wrapping_sub(private_va(STUB_PAGE)) / STUB_STRIDE) as u8;
    let frame = vcpu.exception_frame(vector);
    if frame.is_some_and(|f| vector == 13 && f.cs & 3 == 3 && in_entry_page(f.rip)) {
        vcpu.allow_exit_port();
        return Ok(true);
    }
    Err(io::Error::other(format!("KVM probe: no system call, but {after:x?} {frame:x?}")))
}

fn in_entry_page(rip: u64) -> bool {
    rip.wrapping_sub(private_va(ENTRY_PAGE)) < 4
}

/// Reads a page, changes its translation, reads again.
fn probe_tables(pool: &TablePool, vcpu: &mut Vcpu, tables: &mut Tables) -> io::Result<bool> {
    const VA: u64 = 0x10_0000;
    let pages = [pool.alloc(), pool.alloc()].map(|p| p.unwrap_or(0));
    let regs = UserRegs { rdi: VA, ..UserRegs::new() };
    let mut seen = [0; 2];
    for (i, page) in pages.into_iter().enumerate() {
        pool.area().store(page, i as u64 + 1);
        let flags = pte::leaf_flags(platform::Prot::READ, 0);
        tables.set_raw(VA, TablePool::gpa(page) | flags).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let after = call(vcpu, tables, PROBE_CODE, regs, i != 0)?;
        seen[i] = after.rax;
    }
    pool.free(pages);
    match seen {
        [1, 1] => Ok(true),
        [1, 2] => Ok(false),
        other => Err(io::Error::other(format!("KVM probe: memory reads as {other:?}"))),
    }
}

fn probe_xcr0(vcpu: &mut Vcpu, tables: &Tables) -> io::Result<u64> {
    let after = call(vcpu, tables, PROBE_XGETBV, UserRegs::new(), false)?;
    // Without OSXSAVE the instruction is invalid and the exit comes from an exception stub.
    let syscall = in_entry_page(after.rip);
    Ok(if syscall { after.rax & 0xffff_ffff | after.rdx << 32 } else { 3 })
}

/// Which components survive KVM_SET_XSAVE into the guest and come back by KVM_GET_XSAVE. Answers those that can be
/// carried at all, and those of them that KVM_SET_XSAVE drops.
fn probe_xsave(vm: &Vm, vcpu: &mut Vcpu, tables: &Tables, xcr0: u64) -> io::Result<(u64, u64)> {
    let mut buffer = XsaveBuffer::new(vm.capability(kvm_ioctls::Cap::Xsave2));
    let pattern = image(xcr0, 0x5a);
    buffer.load(|bytes| copy(bytes, &pattern));
    let taken = buffer.set(vcpu.fd()).is_ok();
    vcpu.run_xsave(XSAVE_CODE, xcr0, tables.cr3())?;
    let mut inside = vec![0; XSAVE_BYTES];
    vcpu.read_xsave(&mut inside);
    let set = if taken { same(&inside, &pattern, xcr0) } else { 3 };

    let pattern = image(xcr0, 0x33);
    vcpu.write_xsave(&pattern);
    vcpu.run_xsave(XRSTOR_CODE, xcr0, tables.cr3())?;
    buffer.get(vcpu.fd())?;
    let get = same(buffer.bytes(), &pattern, xcr0);
    log::debug!("kvm: XSAVE components {xcr0:#x}; KVM sets {set:#x}, gets {get:#x}");
    Ok((get | 3, get & !set & !3))
}

/// An XSAVE image whose components are filled with `byte`.
fn image(xcr0: u64, byte: u8) -> Vec<u8> {
    let mut image = vec![0; XSAVE_BYTES];
    image[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&xcr0.to_le_bytes());
    for (bit, at, len) in components(xcr0) {
        // PKRU's first key must stay open, or ring 3 could not touch memory.
        let fill = if bit == 1 << 9 { byte & 0xfc } else { byte };
        if let Some(part) = image.get_mut(at..at + len.min(if bit == 1 << 9 { 4 } else { len })) {
            part.fill(fill);
        }
    }
    image
}

fn same(a: &[u8], b: &[u8], xcr0: u64) -> u64 {
    let equal = |at: usize, len: usize| a.get(at..at + len).is_some_and(|part| Some(part) == b.get(at..at + len));
    components(xcr0).filter(|&(_, at, len)| equal(at, len)).fold(3, |mask, (bit, ..)| mask | bit)
}

fn copy(to: &mut [u8], from: &[u8]) {
    let len = to.len().min(from.len());
    to[..len].copy_from_slice(&from[..len]);
}
