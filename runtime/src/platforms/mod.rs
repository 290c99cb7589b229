//! Which platforms work here, and choosing one.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use platform::Platform;

use crate::cli::PlatformChoice;
use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::PlatformKind;

/// A platform chosen, with what it needs from the host.
pub struct Chosen {
    /// Which.
    pub kind: PlatformKind,
    /// /dev/kvm, for KVM.
    pub kvm: Option<OwnedFd>,
}

/// Chooses as the user says, or by measurement.
///
/// # Errors
/// The platform asked for does not work here.
pub fn choose(choice: PlatformChoice) -> Result<Chosen> {
    let kvm = |fd: File| Chosen { kind: PlatformKind::Kvm, kvm: Some(fd.into()) };
    match choice {
        PlatformChoice::Kvm => open_kvm().map(kvm),
        PlatformChoice::Ptrace | PlatformChoice::Auto => Ok(Chosen { kind: PlatformKind::Ptrace, kvm: None }),
    }
}

/// Builds the platform, in the process that will run on it.
///
/// # Errors
/// The platform does not start here.
pub fn build(kind: PlatformKind, kvm: Option<OwnedFd>) -> Result<Arc<dyn Platform>> {
    let _ = kvm;
    Err(Failure::new(Status::NoPlatform, format!("platform {} is not built in yet", kind.name())))
}

/// Opens /dev/kvm.
fn open_kvm() -> Result<File> {
    let refuse = |why: String| {
        Failure::new(Status::NoPlatform, format!("/dev/kvm: {why}; `--platform ptrace` works on every host"))
    };
    OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(|e| match e.kind() {
        ErrorKind::NotFound => refuse(
            "no such device: this host has no KVM (load kvm-intel or kvm-amd, or enable nested virtualisation)".into(),
        ),
        ErrorKind::PermissionDenied => refuse("permission denied: run as root or join the group kvm".into()),
        _ => refuse(e.to_string()),
    })
}

/// `nanovisor platforms`.
pub fn run(_json: bool) -> Result<()> {
    Err(Failure::runtime("not built in yet"))
}
