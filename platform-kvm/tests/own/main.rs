//! Cases that only this platform has: what guests can do to its stub, its caches, its FPU handling.
#![allow(unsafe_code)]

mod basic;
mod exceptions;
mod flush;
mod fpu;
mod hostile;
mod kick;

use std::io;
use std::sync::Arc;

use platform::Platform;
use platform::suite::Lab;

fn factory() -> io::Result<Arc<dyn Platform>> {
    Ok(Arc::new(platform_kvm::KvmPlatform::open()?))
}

fn lab() -> Lab {
    Lab::new(factory)
}

/// Whether the processor is QEMU's TCG, which lacks alignment checks and icebp, and is slow.
fn emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}
