//! The system calls that this platform makes after boot.

use platform::{ArgRule, SyscallRule};

use crate::fpu::{KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE};
use crate::setup::KVM_SET_DEVICE_ATTR;
use crate::zap::UFFDIO_WRITEPROTECT;

const KVM_RUN: u64 = 0xae80;
const KVM_CHECK_EXTENSION: u64 = 0xae03;
const KVM_CREATE_VCPU: u64 = 0xae41;
const KVM_SET_CPUID2: u64 = 0x4008_ae90;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_SET_SREGS: u64 = 0x4138_ae84;
const KVM_SET_MSRS: u64 = 0x4008_ae89;
const KVM_GET_XCRS: u64 = 0x8188_aea6;
const KVM_SET_XCRS: u64 = 0x4188_aea7;
const KVM_GET_VCPU_EVENTS: u64 = 0x8040_ae9f;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;

/// The rules: ioctls by request; anonymous and shared mappings without execution (a vCPU's page, buffers); the
/// forms of madvise, the kick, and futexes.
pub fn rules() -> Vec<SyscallRule> {
    let ioctls = [
        KVM_RUN,
        KVM_CHECK_EXTENSION,
        KVM_CREATE_VCPU,
        KVM_SET_CPUID2,
        KVM_GET_SREGS,
        KVM_SET_SREGS,
        KVM_SET_MSRS,
        KVM_GET_XCRS,
        KVM_SET_XCRS,
        KVM_SET_DEVICE_ATTR,
        KVM_SET_USER_MEMORY_REGION,
        KVM_GET_VCPU_EVENTS,
        KVM_GET_XSAVE,
        KVM_GET_XSAVE2,
        KVM_SET_XSAVE,
        UFFDIO_WRITEPROTECT,
    ];
    let mut rules: Vec<_> =
        ioctls.into_iter().map(|request| SyscallRule::with(libc::SYS_ioctl, &[ArgRule::eq32(1, request)])).collect();
    let no_exec = ArgRule::masked(2, libc::PROT_EXEC as u64, 0);
    rules.push(SyscallRule::with(libc::SYS_mmap, &[no_exec]));
    for advice in [libc::MADV_DONTNEED, libc::MADV_POPULATE_WRITE, libc::MADV_HUGEPAGE] {
        rules.push(SyscallRule::with(libc::SYS_madvise, &[ArgRule::eq32(2, advice as u64)]));
    }
    rules.push(SyscallRule::with(libc::SYS_tgkill, &[ArgRule::eq32(2, crate::kick::kick_signal() as u64)]));
    for nr in [libc::SYS_munmap, libc::SYS_close, libc::SYS_futex, libc::SYS_gettid, libc::SYS_getpid] {
        rules.push(SyscallRule::any(nr));
    }
    rules.push(SyscallRule::any(libc::SYS_rt_sigreturn));
    rules
}
