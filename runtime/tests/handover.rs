//! What the sandbox process is given: every descriptor accounted for, none inherited from the caller.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{busybox_image, children, finish, nanovisor, platforms};

/// What a sandbox process, or a process of its platform, may hold open, by the beginning of what /proc shows. Not
/// /dev/kvm: it is closed when the virtual machine is made.
const EXPECTED: [&str; 13] = [
    "/dev/null",
    // The same, seen from the empty root: the mount of /dev is detached.
    "/null",
    "pipe:",
    "socket:",
    "anon_inode:[eventpoll]",
    "anon_inode:[eventfd]",
    "anon_inode:[timerfd]",
    "anon_inode:[userfaultfd]",
    "anon_inode:kvm-vm",
    "anon_inode:kvm-vcpu",
    "/memfd:nanovisor-memory",
    "/memfd:nanovisor-stub-commands",
    "IMAGE",
];

/// Starts `nanovisor do` with all of the descriptors 3 to 20 open on a secret, and waits until the guest runs.
fn start(image: &Path, secret: &Path, platform: &str) -> Child {
    let opened: String = (3..=20).map(|n| format!("{n}<{} ", secret.display())).collect();
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec \"$@\" {opened}"), "bash"]).arg(nanovisor().get_program());
    command.args(["do", "--platform", platform, "--image"]).arg(image);
    command.args(["--", "sh", "-c", "sleep 1000 & echo up; exec sleep 1000"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    child
}

fn links(pid: u32) -> BTreeMap<u32, String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let link = |entry: fs::DirEntry| {
        let number = entry.file_name().to_string_lossy().parse().unwrap();
        Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
    };
    all.filter_map(link).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

#[test]
fn every_descriptor_is_accounted_for() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: looking at another user's descriptors needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    for platform in platforms() {
        let mut child = start(&image, &secret, platform);
        // The command itself was given them, or the test would prove nothing.
        assert!(links(child.id()).values().any(|link| *link == secret.to_string_lossy()));
        let sandbox = children(child.id());
        assert_eq!(sandbox.len(), 1);
        for pid in descendants(child.id()) {
            for (number, link) in links(pid) {
                let link = if Path::new(&link) == image { "IMAGE".to_owned() } else { link };
                let known = EXPECTED.iter().any(|expected| link.starts_with(expected));
                assert!(known, "{platform}: process {pid} holds {number} -> {link}");
            }
        }
        child.kill().unwrap();
        finish(child, "a killed command");
    }
}

#[test]
fn the_sandbox_process_has_no_environment_and_no_name_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let mut child = start(&image, &secret, "ptrace");
    let sandbox = children(child.id())[0];
    let environment = fs::read_to_string(format!("/proc/{sandbox}/environ")).unwrap_or_default();
    assert!(!environment.contains("PATH="), "{environment}");
    child.kill().unwrap();
    finish(child, "a killed command");
}
