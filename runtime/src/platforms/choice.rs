//! Choosing a platform: as told, or the quicker one by a measurement that is kept until the next boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::{Chosen, open_kvm};
use crate::cli::PlatformChoice;
use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::PlatformKind;

/// Chooses as the user says, or by measurement.
///
/// # Errors
/// The platform asked for does not work here; with `auto`, none does.
pub fn choose(choice: PlatformChoice) -> Result<Chosen> {
    let ptrace = || Chosen { kind: PlatformKind::Ptrace, kvm: None };
    let kvm = || open_kvm().map(|fd| Chosen { kind: PlatformKind::Kvm, kvm: Some(fd.into()) });
    match choice {
        PlatformChoice::Kvm => kvm(),
        PlatformChoice::Ptrace => Ok(ptrace()),
        PlatformChoice::Auto => match best()? {
            PlatformKind::Kvm => kvm().or_else(|failure| {
                log::debug!("{failure}");
                Ok(ptrace())
            }),
            PlatformKind::Ptrace => Ok(ptrace()),
        },
    }
}

/// What was found out, and when: a measurement holds for one boot, one user's rights and one version.
#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    version: String,
    report: Report,
}

fn best() -> Result<PlatformKind> {
    let (boot, file) = (boot_id(), cache_file());
    if let Some(kept) = file.as_deref().and_then(|file| read(file, &boot)) {
        return pick(&kept, "kept from earlier in this boot");
    }
    let report = measured_apart()?;
    let picked = pick(&report, "measured now")?;
    if let (Some(file), false) = (file, boot.is_empty()) {
        keep(&file, &Kept { boot, version: env!("CARGO_PKG_VERSION").into(), report });
    }
    Ok(picked)
}

fn pick(report: &Report, source: &str) -> Result<PlatformKind> {
    for found in &report.platforms {
        let cost = found.trip_ns.map(|ns| format!("{ns} ns a system call"));
        log::debug!("platform {} ({source}): {}", found.name.name(), cost.or(found.why.clone()).unwrap_or_default());
    }
    if let Some(kind) = report.auto {
        log::debug!("platform auto picks {}", kind.name());
        return Ok(kind);
    }
    let why: Vec<&str> = report.platforms.iter().filter_map(|found| found.why.as_deref()).collect();
    Err(Failure::new(Status::NoPlatform, format!("no platform works on this host: {}", why.join("; "))))
}

/// Measures in a process of its own: trials leave stubs, VMs and signal handlers behind, and ours is about to fork.
fn measured_apart() -> Result<Report> {
    let output = Command::new("/proc/self/exe")
        .args(["platforms", "--json"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let output = output.map_err(|e| Failure::runtime(format!("measuring the platforms: {e}; give --platform")))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|e| Failure::runtime(format!("measuring the platforms: {} ({e}); give --platform", output.status)))
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn cache_file() -> Option<PathBuf> {
    crate::image::cache::base().map(|base| base.join("nanovisor/platforms.json"))
}

fn read(file: &Path, boot: &str) -> Option<Report> {
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let holds = !boot.is_empty() && kept.boot == boot && kept.version == env!("CARGO_PKG_VERSION");
    // A device that has appeared or gone since tells of a module loaded or a group joined.
    let kvm = kept.report.platforms.iter().any(|p| p.name == PlatformKind::Kvm && p.works);
    (holds && kvm == open_kvm().is_ok()).then_some(kept.report)
}

/// Keeps the measurement; that it cannot be kept costs the next start some milliseconds and is no failure.
fn keep(file: &Path, kept: &Kept) {
    let write = || -> std::io::Result<()> {
        let dir = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut new, kept)?;
        new.persist(file).map(|_| ()).map_err(|e| e.error)
    };
    if let Err(e) = write() {
        log::debug!("keeping the measurement of platforms in {}: {e}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_holds_for_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nanovisor/platforms.json");
        let report = Report { platforms: Vec::new(), auto: Some(PlatformKind::Ptrace), user_namespaces: Ok(()) };
        keep(&file, &Kept { boot: "one".into(), version: env!("CARGO_PKG_VERSION").into(), report });
        let kvm_opens = open_kvm().is_ok();
        assert_eq!(read(&file, "one").is_some(), !kvm_opens);
        assert!(read(&file, "two").is_none());
        assert!(read(&file, "").is_none());
    }
}
