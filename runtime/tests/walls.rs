//! The walls, from inside: a build of the sandbox process that plays an attacker tries what a taken-over sentry would.
//!
//! Each attempt must fail behind all walls, must still fail behind each single wall named here, and must succeed where
//! those are down (else the attempt itself would be broken, and its failure no proof).

mod common;

use std::path::Path;
use std::process::Output;

use common::{nanovisor, output_in_time, small_image};

/// An attempt, the walls that each stop it alone, and further walls in its way that only work together with others.
struct Case {
    name: &'static str,
    alone: &'static [&'static str],
    together: &'static [&'static str],
    /// The platform on which alone it makes sense.
    only: Option<&'static str>,
    /// The platform that needs this very call, so that its filter alone cannot stop it.
    needed_by: Option<&'static str>,
}

const fn case(name: &'static str, alone: &'static [&'static str]) -> Case {
    Case { name, alone, together: &[], only: None, needed_by: None }
}

impl Case {
    const fn needed_by(self, platform: &'static str) -> Case {
        Case { needed_by: Some(platform), ..self }
    }

    const fn only(self, platform: &'static str) -> Case {
        Case { only: Some(platform), ..self }
    }

    /// The walls that must each stop it on `platform`.
    fn alone(&self, platform: &str) -> impl Iterator<Item = &'static str> {
        let filter_helps = self.needed_by != Some(platform);
        self.alone.iter().copied().filter(move |wall| filter_helps || *wall != "filter")
    }
}

const CASES: &[Case] = &[
    case("open-file", &["filter", "root"]),
    case("open-proc", &["filter", "root"]),
    case("open-handle", &["filter", "capabilities", "user"]),
    case("socket", &["filter"]),
    case("host-network", &["filter", "net"]),
    case("exec", &["filter", "root"]),
    case("fork", &["filter"]),
    // A process of another user cannot be signalled, and one in another pid namespace cannot even be named.
    case("signal", &["filter", "pid", "user"]),
    case("signal-thread", &["filter", "pid", "user"]).needed_by("ptrace"),
    case("ptrace", &["filter", "pid", "user", "capabilities"]).needed_by("ptrace"),
    case("ptrace-attach", &["filter", "pid", "user", "capabilities"]),
    case("pidfd", &["filter", "pid"]),
    case("read-memory", &["filter", "pid", "user", "capabilities"]),
    case("mount", &["filter", "capabilities"]),
    case("unshare", &["filter"]),
    case("setuid", &["filter", "capabilities", "user"]),
    case("mmap-exec", &["filter"]),
    case("mprotect-exec", &["filter"]),
    case("rewrite-code", &["filter"]),
    case("read-implies-exec", &["filter"]),
    case("kvm-ioctl", &["filter"]).only("kvm"),
    case("ioctl", &["filter"]),
    case("prctl", &["filter"]),
    case("bpf", &["filter", "capabilities", "user"]),
    case("io-uring", &["filter"]),
    case("userfaultfd", &["filter"]),
    case("kexec", &["filter", "capabilities", "user"]),
];

fn attempt(image: &Path, platform: &str, name: &str, without: &[&str]) -> Output {
    let mut command = nanovisor();
    command.args(["do", "--platform", platform, "--no-tty", "--attempt", name, "--image"]).arg(image);
    for wall in without {
        command.args(["--without", wall]);
    }
    output_in_time(command.args(["--", "/bin/true"]))
}

fn succeeded(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("succeeded")
}

fn is_unsupported(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("os error 38")
}

fn prove_all(platform: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: taking walls down needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = small_image(dir.path());
    for case in CASES.iter().filter(|case| case.only.is_none_or(|only| only == platform)) {
        prove(&image, platform, case);
    }
}

#[test]
fn each_wall_holds_on_ptrace() {
    prove_all("ptrace");
}

#[test]
fn each_wall_holds_on_kvm() {
    if Path::new("/dev/kvm").exists() {
        prove_all("kvm");
    } else {
        eprintln!("skipped: no /dev/kvm");
    }
}

fn prove(image: &Path, platform: &str, case: &Case) {
    let behind_all = attempt(image, platform, case.name, &[]);
    assert!(!succeeded(&behind_all), "{} on {platform} got through all walls", case.name);
    let down: Vec<&str> = case.alone.iter().chain(case.together).copied().collect();
    let behind_none = attempt(image, platform, case.name, &down);
    if is_unsupported(&behind_none) {
        eprintln!("{}: this host's kernel has no such call", case.name);
        return;
    }
    let told = String::from_utf8_lossy(&behind_none.stderr);
    assert!(succeeded(&behind_none), "{} on {platform} fails even without {down:?}: {told}", case.name);
    for wall in case.alone(platform) {
        let others: Vec<&str> = down.iter().copied().filter(|other| *other != wall).collect();
        let behind_one = attempt(image, platform, case.name, &others);
        assert!(!succeeded(&behind_one), "{} on {platform} got through the wall {wall}", case.name);
    }
}

#[test]
fn the_filter_s_kill_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = small_image(dir.path());
    let output = attempt(&image, "ptrace", "socket", &[]);
    assert_eq!(output.status.code(), Some(118));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("sandbox process killed by its own filter (SIGSYS)"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
