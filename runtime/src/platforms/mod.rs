//! Which platforms work here, and choosing one.

mod choice;
mod measure;
mod report;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use platform::Platform;

pub use choice::choose;
pub use report::run;

use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::PlatformKind;

/// Both, in the order of preference where they are equally quick.
const ALL: [PlatformKind; 2] = [PlatformKind::Kvm, PlatformKind::Ptrace];

/// A platform chosen, with what it needs from the host.
pub struct Chosen {
    /// Which.
    pub kind: PlatformKind,
    /// /dev/kvm, for KVM.
    pub kvm: Option<OwnedFd>,
}

/// Builds the platform, in the process that will run on it: a VM belongs to its maker, and so do stubs.
///
/// # Errors
/// The platform does not start here.
pub fn build(kind: PlatformKind, kvm: Option<OwnedFd>) -> Result<Arc<dyn Platform>> {
    let result: io::Result<Arc<dyn Platform>> = match (kind, kvm) {
        (PlatformKind::Kvm, Some(fd)) => platform_kvm::KvmPlatform::new(fd).map(|p| Arc::new(p) as _),
        (PlatformKind::Kvm, None) => Err(io::Error::other("no /dev/kvm was handed over")),
        (PlatformKind::Ptrace, _) => platform_ptrace::PtracePlatform::new().map(|p| Arc::new(p) as _),
    };
    result.map_err(|e| {
        let failure = Failure::io(Status::NoPlatform, &format!("platform {}", kind.name()), &e);
        if failure.status == Status::NoPlatform { does_not_work(kind, &e.to_string()) } else { failure }
    })
}

fn does_not_work(kind: PlatformKind, why: &str) -> Failure {
    let hint = match kind {
        PlatformKind::Kvm => "`--platform ptrace` works on most hosts, and `nanovisor platforms` tells what works here",
        PlatformKind::Ptrace => "`nanovisor platforms` tells what works here",
    };
    Failure::new(Status::NoPlatform, format!("platform {}: {why}; {hint}", kind.name()))
}

/// Opens /dev/kvm.
fn open_kvm() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(|e| {
        if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) {
            return Failure::io(Status::NoPlatform, "opening /dev/kvm", &e);
        }
        let why = match e.kind() {
            ErrorKind::NotFound => {
                "/dev/kvm is missing (load kvm_intel or kvm_amd, turn virtualisation on in the firmware, or allow \
                 nested virtualisation)"
                    .to_owned()
            }
            ErrorKind::PermissionDenied => "/dev/kvm may not be opened (become root, or join the group kvm)".to_owned(),
            _ => format!("/dev/kvm: {e}"),
        };
        does_not_work(PlatformKind::Kvm, &why)
    })
}
