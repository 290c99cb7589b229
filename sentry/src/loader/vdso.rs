//! The vDSO: the kernel's code in every program, which answers clocks without a system call.

use std::sync::Arc;

use crate::mm::Mm;

/// The vDSO of one kernel.
#[derive(Default)]
pub struct Vdso {}

impl Vdso {
    /// Maps it; answers its address for AT_SYSINFO_EHDR.
    pub fn map(&self, _mm: &Arc<Mm>) -> Option<u64> {
        None
    }
}
