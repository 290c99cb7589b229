//! The shared platform suite on ptrace.

use std::io;
use std::sync::Arc;

use platform::Platform;
use platform_ptrace::PtracePlatform;

fn factory() -> io::Result<Arc<dyn Platform>> {
    Ok(Arc::new(PtracePlatform::new()?))
}

platform::platform_suite!(factory);
