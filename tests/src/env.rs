//! What the run is told by its environment, and where things are.

use std::path::{Path, PathBuf};

/// The environment variable `name` as a path, where it is set and not empty.
fn path_var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Whether the variable is set to something that is not `0`.
#[must_use]
pub fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0" && v != "false")
}

/// The repository.
#[must_use]
pub fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/")).to_owned()
}

/// The `nanovisor` under test: `NANOVISOR_BIN`, else the newer of this checkout's release and debug binaries.
///
/// # Errors
/// There is none.
pub fn nanovisor() -> Result<PathBuf, String> {
    if let Some(path) = path_var("NANOVISOR_BIN") {
        return if path.is_file() { Ok(path) } else { Err(format!("NANOVISOR_BIN={}: no such file", path.display())) };
    }
    let target = path_var("CARGO_TARGET_DIR").unwrap_or_else(|| repo().join("target"));
    ["x86_64-unknown-linux-gnu/release/nanovisor", "x86_64-unknown-linux-gnu/debug/nanovisor"]
        .iter()
        .map(|p| target.join(p))
        .filter_map(|p| Some((p.metadata().and_then(|m| m.modified()).ok()?, p)))
        .max()
        .map(|(_, p)| p)
        .ok_or_else(|| "no nanovisor binary: run `make build`, or set NANOVISOR_BIN".to_owned())
}

/// The Debian image (`NANOVISOR_IMAGE`) and the folder with the same content for native runs (`NANOVISOR_ROOTFS`).
#[must_use]
pub fn debian() -> Option<(PathBuf, PathBuf)> {
    Some((path_var("NANOVISOR_IMAGE")?, path_var("NANOVISOR_ROOTFS")?))
}

/// Nothing is sampled.
#[must_use]
pub fn soak() -> bool {
    flag("NANOVISOR_SOAK")
}

/// The platforms to test on: those of `NANOVISOR_PLATFORMS` (comma-separated), else ptrace, and kvm unless
/// `NANOVISOR_NO_KVM` is set.
#[must_use]
pub fn platforms() -> Vec<String> {
    if let Ok(list) = std::env::var("NANOVISOR_PLATFORMS") {
        return list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    }
    let mut all = vec!["ptrace".to_owned()];
    if !flag("NANOVISOR_NO_KVM") {
        all.insert(0, "kvm".to_owned());
    }
    all
}

/// The platforms in all the ways in which a test is run on them: as they are, with spurious wake-ups where `chaos`,
/// with its work in a host directory where `volume`, with both.
#[must_use]
pub fn variants(chaos: bool, volume: bool) -> Vec<String> {
    let modes = [("", true), ("+chaos", chaos), ("+volume", volume), ("+volume+chaos", volume && chaos)];
    let run = modes.into_iter().filter(|(_, run)| *run);
    run.flat_map(|(mode, _)| platforms().into_iter().map(move |p| format!("{p}{mode}"))).collect()
}

/// A folder for what tests build and keep between runs.
#[must_use]
pub fn scratch() -> PathBuf {
    path_var("CARGO_TARGET_DIR").unwrap_or_else(|| repo().join("target")).join("guest-tests")
}
