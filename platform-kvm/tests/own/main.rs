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
use platform::suite::lab::emulated;

fn factory() -> io::Result<Arc<dyn Platform>> {
    hold_vm();
    Ok(Arc::new(platform_kvm::KvmPlatform::open()?))
}

fn lab() -> Lab {
    Lab::new(factory)
}

/// Keeps one VM until the process ends. Without any VM, KVM switches SVM off on all processors, and on again for the
/// next one; emulated processors have been seen to stop for good in the middle of that.
fn hold_vm() {
    static HELD: std::sync::OnceLock<Option<platform_kvm::KvmPlatform>> = std::sync::OnceLock::new();
    HELD.get_or_init(|| platform_kvm::KvmPlatform::open().ok());
}
