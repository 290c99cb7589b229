//! The processor's time-stamp counter, which guests read as well.

use std::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

/// The counter now; earlier loads are done before it is read.
#[must_use]
pub fn now() -> u64 {
    // SAFETY: lfence and rdtsc exist on every x86-64 processor; user space may read the counter unless a process
    // forbids it to itself (PR_SET_TSC), which this one does not.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Whether the counter runs at a constant rate in all power states (CPUID 8000_0007h, EDX bit 8).
#[must_use]
pub fn is_invariant() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}
