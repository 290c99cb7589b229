//! What `nanovisor platforms` says about KVM on this host.

use std::path::Path;

use crate::probe::Traits;

/// Whether KVM can be used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// Whether a sandbox could run on it.
    pub works: bool,
    /// One line: the kind of KVM, or what is missing and the way out.
    pub text: String,
}

/// Finds out whether KVM works on this host: makes a VM, tries it, and lets it go.
#[must_use]
pub fn check_host() -> HostReport {
    match crate::KvmPlatform::open() {
        Ok(platform) => HostReport { works: true, text: platform.describe() },
        Err(e) => HostReport { works: false, text: why(&e) },
    }
}

/// One line about a KVM that works.
pub fn traits(traits: &Traits) -> String {
    let kind = if traits.software { "software (guests run in the host's user mode)" } else { "hardware" };
    let tables = if traits.shadowed { "shadow page tables" } else { "nested page tables" };
    format!("{kind}, {tables}, XCR0 {:#x}", traits.xcr0)
}

fn why(error: &std::io::Error) -> String {
    if !Path::new("/dev/kvm").exists() {
        return "/dev/kvm is missing: load kvm_intel or kvm_amd, turn on virtualisation in the firmware, or, inside \
                a virtual machine, allow nested virtualisation"
            .to_owned();
    }
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "/dev/kvm may not be opened: become root or join its group (usually kvm)".to_owned()
        }
        _ => format!("/dev/kvm is there but does not work: {error}"),
    }
}
