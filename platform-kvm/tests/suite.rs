//! The suite that every platform passes, on KVM. Without /dev/kvm there is nothing to test.

use std::io;
use std::sync::Arc;

use platform::Platform;

fn factory() -> io::Result<Arc<dyn Platform>> {
    Ok(Arc::new(platform_kvm::KvmPlatform::open()?))
}

platform::platform_suite!(factory);
