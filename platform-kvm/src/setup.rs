//! A new virtual CPU's registers: 64-bit mode, ready to run ring 3.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::layout::*;
use crate::vm::Vm;

const CR0: u64 = 0x8005_0033; // PG AM WP NE ET MP PE
const CR4_BASE: u64 = 1 << 5 | 1 << 9 | 1 << 10; // PAE OSFXSR OSXMMEXCPT
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;
const CR4_UMIP: u64 = 1 << 11;
const EFER: u64 = 0xd01; // NXE LMA LME SCE

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_FMASK: u32 = 0xc000_0084;
const MSR_TSC_AUX: u32 = 0xc000_0103;
/// `KVM_SET_DEVICE_ATTR`, on a vCPU.
pub const KVM_SET_DEVICE_ATTR: u64 = 0x4018_aee1;
/// What `syscall` clears: TF DF IOPL NT AC, as Linux, but not IF: see `Vcpu::exit_at_syscall`. Nothing interrupts the stub.
const FMASK: u64 = 0x4_7500;

/// XSAVE components that KVM may give guests without asking: all but AMX, which needs a permission first.
const XCR0_WANTED: u64 = 0x2e7;

fn kvm_error(e: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(e.errno())
}

fn segment(selector: u16, type_: u8, dpl: u8) -> kvm_segment {
    let code = type_ & 8 != 0;
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

/// Gives `sregs` the code and stack segments of ring `ring` (0 or 3).
pub fn set_ring(sregs: &mut kvm_sregs, ring: u8) {
    let (cs, ss) = match ring {
        0 => (KERNEL_CS, KERNEL_SS),
        _ => (platform::arch::USER_CS as u16, platform::arch::USER_SS as u16),
    };
    sregs.cs = segment(cs, 0xb, ring);
    sregs.ss = segment(ss, 0x3, ring);
}

/// Prepares `vcpu`; answers its special registers, in ring 3, on the tables at `cr3`.
///
/// # Errors
/// What KVM says.
pub fn prepare(vm: &Vm, vcpu: &VcpuFd, index: usize, cr3: u64) -> io::Result<kvm_sregs> {
    vcpu.set_cpuid2(&vm.cpuid).map_err(kvm_error)?;
    crate::stub::build_cpu(&vm.private, index);
    let mut sregs = vcpu.get_sregs().map_err(kvm_error)?;
    let private = private_va(cpu_page(index));
    sregs.gdt.base = private;
    sregs.gdt.limit = GDT_BYTES as u16 - 1;
    sregs.idt.base = private_va(IDT_PAGE);
    sregs.idt.limit = (VECTORS * 16) as u16 - 1;
    set_ring(&mut sregs, 3);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs] {
        *data = segment(0, 0x3, 3);
    }
    sregs.tr = kvm_segment {
        base: private + TSS_OFFSET,
        limit: TSS_BYTES as u32 - 1,
        selector: TSS_SELECTOR,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, type_: 2, ..Default::default() };
    sregs.cr0 = CR0;
    sregs.cr3 = cr3;
    sregs.efer = EFER;
    set_cr4(vcpu, &mut sregs)?;
    set_xcr0(vcpu, &vm.cpuid, sregs.cr4);
    set_msrs(vcpu)?;
    match_host_clock(vcpu);
    Ok(sregs)
}

/// Sets the registers with as many of CR4's optional features as KVM takes. They are tried, not looked up: the
/// software KVM grants what it does not list.
fn set_cr4(vcpu: &VcpuFd, sregs: &mut kvm_sregs) -> io::Result<()> {
    sregs.cr4 = CR4_BASE;
    vcpu.set_sregs(sregs).map_err(kvm_error)?;
    for feature in [CR4_OSXSAVE, CR4_FSGSBASE, CR4_PKE, CR4_UMIP] {
        sregs.cr4 |= feature;
        if vcpu.set_sregs(sregs).is_err() {
            sregs.cr4 &= !feature;
        }
    }
    vcpu.set_sregs(sregs).map_err(kvm_error)
}

/// Turns on the XSAVE components that both KVM and we can carry. Best effort: the probe finds what guests see.
fn set_xcr0(vcpu: &VcpuFd, cpuid: &CpuId, cr4: u64) {
    if cr4 & CR4_OSXSAVE == 0 {
        return;
    }
    let leaf = cpuid.as_slice().iter().find(|e| e.function == 0xd && e.index == 0);
    let supported = leaf.map_or(3, |e| u64::from(e.eax) | u64::from(e.edx) << 32);
    let Ok(mut xcrs) = vcpu.get_xcrs() else { return };
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].xcr = 0;
    xcrs.xcrs[0].value = supported & XCR0_WANTED | 3;
    if let Err(e) = vcpu.set_xcrs(&xcrs) {
        log::debug!("kvm: XCR0 {:#x} refused: {e}", supported & XCR0_WANTED | 3);
    }
}

fn set_msrs(vcpu: &VcpuFd) -> io::Result<()> {
    let entry = private_va(ENTRY_PAGE);
    let list = [
        (MSR_STAR, u64::from(KERNEL_CS) << 32 | 0x23 << 48),
        (MSR_LSTAR, entry),
        (MSR_CSTAR, entry),
        (MSR_FMASK, FMASK),
        (MSR_TSC_AUX, 0),
    ];
    for (index, data) in list {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let done = vcpu.set_msrs(&msrs).map_err(kvm_error)?;
        // CSTAR and TSC_AUX may be missing where nothing can use them.
        if done != 1 && matches!(index, MSR_STAR | MSR_LSTAR | MSR_FMASK) {
            return Err(io::Error::other(format!("KVM refuses MSR {index:#x}")));
        }
    }
    Ok(())
}

/// Makes the guest's time-stamp counter the host's own, so that a vDSO may use it.
fn match_host_clock(vcpu: &VcpuFd) {
    let offset = 0u64;
    let attr = kvm_bindings::kvm_device_attr {
        group: kvm_bindings::KVM_VCPU_TSC_CTRL,
        attr: u64::from(kvm_bindings::KVM_VCPU_TSC_OFFSET),
        addr: &raw const offset as u64,
        flags: 0,
    };
    // SAFETY: the request takes this structure, which points at a u64 that lives through the call.
    if unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attr) } != 0 {
        log::debug!("kvm: no TSC offset control; the guest's clock is what KVM makes it");
    }
}
