//! `nanovisor platforms`: each platform tried on this host.

use serde::{Deserialize, Serialize};

use super::{ALL, build, measure, open_kvm};
use crate::failure::{Failure, Result};
use crate::output;
use crate::sandbox::config::PlatformKind;

/// One platform on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which.
    pub name: PlatformKind,
    /// Whether a guest ran.
    pub works: bool,
    /// What a guest's system call costs at least, nanoseconds.
    pub trip_ns: Option<u64>,
    /// Why it does not work, and the way out.
    pub why: Option<String>,
}

/// What works on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Each platform.
    pub platforms: Vec<Found>,
    /// What `--platform auto` picks.
    pub auto: Option<PlatformKind>,
    /// Whether sandboxes get user namespaces of their own; else why not.
    pub user_namespaces: std::result::Result<(), String>,
}

impl Report {
    /// Tries everything, here and now.
    #[must_use]
    pub fn make() -> Report {
        let platforms: Vec<Found> = ALL.into_iter().map(try_platform).collect();
        let auto = quickest(&platforms);
        Report { platforms, auto, user_namespaces: try_user_namespace() }
    }
}

/// The working platform with the cheapest round trip.
fn quickest(platforms: &[Found]) -> Option<PlatformKind> {
    platforms.iter().filter(|p| p.works).min_by_key(|p| p.trip_ns.unwrap_or(u64::MAX)).map(|p| p.name)
}

fn try_platform(name: PlatformKind) -> Found {
    let trip = || -> Result<u64> {
        let kvm = if name == PlatformKind::Kvm { Some(open_kvm()?.into()) } else { None };
        let platform = build(name, kvm)?;
        let trip = measure::round_trip(&platform).map_err(|e| super::does_not_work(name, &e.to_string()))?;
        Ok(u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX))
    };
    match trip() {
        Ok(ns) => Found { name, works: true, trip_ns: Some(ns), why: None },
        Err(failure) => Found { name, works: false, trip_ns: None, why: Some(failure.message) },
    }
}

fn try_user_namespace() -> std::result::Result<(), String> {
    match hostsys::process::fork_into(hostsys::Namespaces::USER) {
        Ok(hostsys::Fork::Child) => hostsys::process::exit_now(0),
        Ok(hostsys::Fork::Parent(child)) => child.wait().map(|_| ()).map_err(|e| e.to_string()),
        Err(e) => Err(hostsys::userns::refusal_hint().unwrap_or_else(|| e.to_string())),
    }
}

/// `nanovisor platforms`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(json: bool) -> Result<()> {
    let report = Report::make();
    let text = if json {
        let json = serde_json::to_string(&report).map_err(|e| Failure::runtime(format!("encoding the report: {e}")))?;
        format!("{json}\n")
    } else {
        table(&report)
    };
    output::print(&text)
}

fn table(report: &Report) -> String {
    let mut text = String::from("PLATFORM  WORKS  SYSTEM CALL  REMARK\n");
    for found in &report.platforms {
        let trip = found.trip_ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1} us", ns as f64 / 1000.0));
        let remark = match &found.why {
            Some(why) => why.as_str(),
            None if report.auto == Some(found.name) => "picked by --platform auto",
            None => "",
        };
        let works = if found.works { "yes" } else { "no" };
        text.push_str(format!("{:<9} {works:<6} {trip:<12} {remark}", found.name.name()).trim_end());
        text.push('\n');
    }
    match &report.user_namespaces {
        Ok(()) => text.push_str("\nuser namespaces: yes\n"),
        Err(why) => {
            text.push_str(&format!("\nuser namespaces: no ({why}); sandboxes run without, and only for root\n"))
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: PlatformKind, trip_ns: Option<u64>) -> Found {
        let why = trip_ns.is_none().then(|| "because".to_owned());
        Found { name, works: trip_ns.is_some(), trip_ns, why }
    }

    #[test]
    fn the_quicker_one_is_picked() {
        let (kvm, ptrace) = (PlatformKind::Kvm, PlatformKind::Ptrace);
        assert_eq!(quickest(&[found(kvm, Some(2000)), found(ptrace, Some(6000))]), Some(kvm));
        assert_eq!(quickest(&[found(kvm, Some(90_000)), found(ptrace, Some(6000))]), Some(ptrace));
        assert_eq!(quickest(&[found(kvm, None), found(ptrace, Some(6000))]), Some(ptrace));
        assert_eq!(quickest(&[found(kvm, None), found(ptrace, None)]), None);
    }

    #[test]
    fn the_table_says_why() {
        let platforms = vec![found(PlatformKind::Kvm, None), found(PlatformKind::Ptrace, Some(5500))];
        let report = Report { platforms, auto: Some(PlatformKind::Ptrace), user_namespaces: Ok(()) };
        let text = table(&report);
        assert!(text.contains("kvm       no     -            because"), "{text}");
        assert!(text.contains("ptrace    yes    5.5 us       picked by --platform auto"), "{text}");
    }
}
