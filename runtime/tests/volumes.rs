//! `do --volume`, and the walls of the gofer process behind it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{busybox_image, children, nanovisor, output_in_time, platforms, told};

/// CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP: file access, and no more.
const FILE_CAPABILITIES: u64 = 0x8000_001f;

fn command(platform: &str, image: &Path, volumes: &[String], script: &str) -> Command {
    let mut command = nanovisor();
    command.args(["do", "--platform", platform, "--image"]).arg(image);
    for volume in volumes {
        command.args(["--volume", volume]);
    }
    command.args(["--", "/bin/sh", "-c", script]);
    command
}

fn shows(platform: &str, image: &Path, volumes: &[String], script: &str) -> String {
    let output = output_in_time(&mut command(platform, image, volumes, script));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn directories_and_files_of_the_host_are_shown_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("d")).unwrap();
        fs::write(tree.path().join("d/a"), "a\n").unwrap();
        fs::write(tree.path().join("f"), "f\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("d/out")).unwrap();
        let volumes = [
            format!("{}/d:/new/place", tree.path().display()),
            format!("{}/d:/ro:ro", tree.path().display()),
            format!("{}/f:/file:exclusive", tree.path().display()),
        ];
        // A symlink of the volume leads within the guest's tree.
        let script = "cd /new/place; cat a /file; echo b > b; cat /ro/b; echo x 2>&1 > /ro/c; echo g >> /file; \
                      busybox wc -l < out; busybox ls ..";
        let shown = shows(platform, &image, &volumes, &format!("{script} 2>&1"));
        assert_eq!(
            shown.lines().filter(|l| !l.contains("Read-only")).collect::<Vec<_>>(),
            ["a", "f", "b", "2", "place"]
        );
        assert_eq!(fs::read_to_string(tree.path().join("d/b")).unwrap(), "b\n");
        assert_eq!(fs::read_to_string(tree.path().join("f")).unwrap(), "f\ng\n");
        assert!(!tree.path().join("d/c").exists());
    }
}

#[test]
fn volumes_that_cannot_be_are_refused_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for (volume, word) in [("/not/there:/v", "/not/there"), ("/tmp:v", "absolute"), ("/tmp:/v:what", "what")] {
        let output = output_in_time(&mut command("ptrace", &image, &[volume.to_owned()], "true"));
        let text = told(&output, output.status.code().unwrap_or(-1));
        assert!(text.contains(word), "{text}");
        assert_ne!(output.status.code(), Some(0));
    }
}

/// A sandbox that has a volume and stays.
fn staying(image: &Path, tree: &Path) -> (Child, u32) {
    let mut command = command("ptrace", image, &[format!("{}:/v", tree.display())], "echo up; sleep 100");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let is_gofer = |pid: &u32| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.starts_with(b"nanovisor-gofer\0")
    };
    let gofer = children(child.id()).into_iter().find(is_gofer).expect("a gofer");
    (child, gofer)
}

fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned()
}

#[test]
fn the_gofer_has_walls_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let tree = tempfile::tempdir().unwrap();
    let (mut child, gofer) = staying(&image, tree.path());
    assert_eq!(status(gofer, "NoNewPrivs:"), "1");
    assert_eq!(status(gofer, "Seccomp:"), "2");
    if nix::unistd::geteuid().is_root() {
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let has = u64::from_str_radix(&status(gofer, set), 16).unwrap();
            assert_eq!(has & !FILE_CAPABILITIES, 0, "{set} {has:x}");
        }
        assert_eq!(fs::read_dir(format!("/proc/{gofer}/root")).unwrap().count(), 0, "its root is empty");
        for kind in ["mnt", "pid", "net", "ipc", "uts"] {
            let ns = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(ns(&gofer.to_string()), ns("self"), "{kind}");
        }
    }
    let open = fs::read_dir(format!("/proc/{gofer}/fd")).unwrap().count();
    assert!(open <= 8, "{open} descriptors");
    child.kill().unwrap();
    child.wait().unwrap();
    while Path::new(&format!("/proc/{gofer}/root")).exists() {
        std::thread::yield_now();
    }
}

#[test]
fn a_sandbox_outlives_its_gofer_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let tree = tempfile::tempdir().unwrap();
    let script = "echo up; while busybox ls /v > /dev/null; do sleep 0.01; done; busybox ls /v 2>&1; busybox ls /bin > /dev/null && echo fine";
    let mut command = command("ptrace", &image, &[format!("{}:/v", tree.path().display())], script);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    let named =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"nanovisor-gofer");
    let gofer = children(child.id()).into_iter().find(named).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(gofer.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.first().is_some_and(|l| l.contains("Input/output error")), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("fine"));
    assert!(child.wait().unwrap().success());
}
