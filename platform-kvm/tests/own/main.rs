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
