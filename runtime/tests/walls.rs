//! The walls, from inside: a build of the sandbox process that plays an attacker tries what a taken-over sentry would.
//!
//! Each attempt must fail behind all walls, must still fail behind each single wall named here, and must succeed where
//! those are down (else the attempt itself would be broken, and its failure no proof).

use std::process::{Command, Output};

/// An attempt, the walls that each stop it alone, and further walls in its way that only work together with others.
struct Case {
    name: &'static str,
    alone: &'static [&'static str],
    together: &'static [&'static str],
}

const fn case(name: &'static str, alone: &'static [&'static str], together: &'static [&'static str]) -> Case {
    Case { name, alone, together }
}

const CASES: &[Case] = &[
    case("open-file", &["filter", "root"], &[]),
    case("socket", &["filter"], &[]),
    case("host-network", &["filter", "net"], &[]),
    case("exec", &["filter", "root"], &[]),
    case("fork", &["filter"], &[]),
    // A process of another user cannot be signalled, and one in another pid namespace cannot even be named.
    case("signal", &["filter", "pid", "user"], &[]),
    case("ptrace", &["filter", "pid", "user", "capabilities"], &[]),
    case("read-memory", &["filter", "pid", "user", "capabilities"], &[]),
    case("mount", &["filter", "capabilities"], &[]),
    case("unshare", &["filter"], &[]),
    case("setuid", &["filter", "capabilities", "user"], &[]),
    case("mmap-exec", &["filter"], &[]),
    case("mprotect-exec", &["filter"], &[]),
    case("ioctl", &["filter"], &[]),
    case("prctl", &["filter"], &[]),
    case("bpf", &["filter", "capabilities", "user"], &[]),
    case("io-uring", &["filter"], &[]),
    case("userfaultfd", &["filter"], &[]),
    case("kexec", &["filter", "capabilities", "user"], &[]),
];

fn attempt(image: &std::path::Path, platform: &str, name: &str, without: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanovisor"));
    command.args(["do", "--platform", platform, "--no-tty", "--attempt", name, "--image"]).arg(image);
    for wall in without {
        command.args(["--without", wall]);
    }
    command.args(["--", "/bin/true"]).output().expect("nanovisor runs")
}

fn succeeded(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("succeeded")
}

fn is_unsupported(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("os error 38")
}

fn image() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (root, image) = (dir.path().join("root"), dir.path().join("image"));
    std::fs::create_dir(&root).unwrap();
    let built = Command::new(env!("CARGO_BIN_EXE_nanovisor")).args(["image", "build"]).arg(&root).arg(&image).output();
    assert!(built.unwrap().status.success());
    (dir, image)
}

/// The platforms whose rules widen the filter, where they work.
fn platforms() -> Vec<&'static str> {
    if std::path::Path::new("/dev/kvm").exists() { vec!["ptrace", "kvm"] } else { vec!["ptrace"] }
}

#[test]
fn each_wall_holds() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: taking walls down needs root");
        return;
    }
    let (_dir, image) = image();
    for platform in platforms() {
        for case in CASES {
            prove(&image, platform, case);
        }
    }
}

fn prove(image: &std::path::Path, platform: &str, case: &Case) {
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
    for wall in case.alone {
        let others: Vec<&str> = down.iter().copied().filter(|other| other != wall).collect();
        let behind_one = attempt(image, platform, case.name, &others);
        assert!(!succeeded(&behind_one), "{} on {platform} got through the wall {wall}", case.name);
    }
}

#[test]
fn the_filter_s_kill_is_told() {
    let (_dir, image) = image();
    let output = attempt(&image, "ptrace", "socket", &[]);
    assert_eq!(output.status.code(), Some(118));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("sandbox process killed by its own filter (SIGSYS)"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
