//! Bad input: one clear line that names the thing and the way out, and an exit status of its own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn nanovisor() -> Command {
    Command::new(env!("CARGO_BIN_EXE_nanovisor"))
}

/// The one line on standard error, after checking the status.
fn told(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("nanovisor: "), "{text}");
    text
}

fn run_image(image: &Path) -> Output {
    nanovisor()
        .args(["do", "--platform", "ptrace", "--no-tty", "--image"])
        .arg(image)
        .args(["--", "true"])
        .output()
        .unwrap()
}

fn build(dir: &Path) -> std::path::PathBuf {
    let (root, image) = (dir.join("root"), dir.join("image"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), vec![7; 10_000]).unwrap();
    let built = nanovisor().args(["image", "build"]).arg(&root).arg(&image).output().unwrap();
    assert!(built.status.success());
    image
}

#[test]
fn images() {
    let dir = tempfile::tempdir().unwrap();
    let image = build(dir.path());
    assert!(told(&run_image(Path::new("/nonexistent/image")), 110).contains("nanovisor image build"));
    assert!(told(&run_image(dir.path()), 110).contains("--root"));
    let cut = dir.path().join("cut");
    fs::write(&cut, &fs::read(&image).unwrap()[..4096]).unwrap();
    assert!(told(&run_image(&cut), 111).contains("truncated"));
    fs::write(&cut, "").unwrap();
    told(&run_image(&cut), 111);
    fs::write(&cut, vec![0; 8192]).unwrap();
    assert!(told(&run_image(&cut), 111).contains("not an EROFS image"));
}

#[test]
fn flags() {
    let none = nanovisor().args(["do", "--", "true"]).output().unwrap();
    assert!(told(&none, 2).contains("--image"));
    let volume = nanovisor().args(["do", "--image", "x", "--volume", "/a:/b", "true"]).output().unwrap();
    assert!(told(&volume, 119).contains("--volume /a:/b"));
    let root = nanovisor().args(["do", "--root", "/nonexistent", "true"]).output().unwrap();
    assert!(told(&root, 110).contains("/nonexistent"));
    let log = nanovisor().args(["--log", "/nonexistent/log", "platforms"]).output().unwrap();
    assert!(told(&log, 125).contains("/nonexistent/log"));
    assert_eq!(nanovisor().args(["do", "--memory", "1", "true"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn building() {
    let dir = tempfile::tempdir().unwrap();
    let missing = nanovisor().args(["image", "build", "/nonexistent"]).arg(dir.path().join("out")).output().unwrap();
    told(&missing, 112);
    let packed = dir.path().join("a.tar.gz");
    fs::write(&packed, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    let gz = nanovisor().args(["image", "build"]).arg(&packed).arg(dir.path().join("out")).output().unwrap();
    assert!(told(&gz, 112).contains("gzip -dc"));
    // A small file size limit stands for a full disk where none can be mounted; the file is not left behind.
    if nix::unistd::geteuid().is_root() {
        full_disk(dir.path());
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "out"), "{left:?}");
}

fn full_disk(dir: &Path) {
    let small = dir.join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|s| s.success()) {
        return;
    }
    let src = dir.join("big");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("file"), vec![1; 1 << 20]).unwrap();
    let output = nanovisor().args(["image", "build"]).arg(&src).arg(small.join("out")).output().unwrap();
    let left = fs::read_dir(&small).unwrap().count();
    let _ = Command::new("umount").arg(&small).status();
    assert!(told(&output, 113).contains("no space left"));
    assert_eq!(left, 0);
}

#[test]
fn descriptor_limit() {
    let dir = tempfile::tempdir().unwrap();
    let image = build(dir.path());
    let mut command = nanovisor();
    command.args(["do", "--platform", "ptrace", "--no-tty", "--image"]).arg(&image).args(["--", "true"]);
    let limited = Command::new("prlimit")
        .args(["--nofile=7:7", "--"])
        .arg(command.get_program())
        .args(command.get_args())
        .output();
    let Ok(output) = limited else { return };
    assert!(told(&output, 116).contains("ulimit -n"));
}

#[test]
fn the_log_is_json_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let output = nanovisor()
        .args(["do", "--image", "/nonexistent", "--log-format", "json", "--log"])
        .arg(&log)
        .arg("true")
        .output();
    told(&output.unwrap(), 110);
    let line = fs::read_to_string(&log).unwrap();
    let object: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(object["level"], "error");
    assert!(object["msg"].as_str().unwrap().contains("/nonexistent"));
    assert!(object["time"].is_string());
}

#[test]
fn nobody_starts_the_sandbox_process_by_hand() {
    let output = nanovisor().arg0("nanovisor-sandbox").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// An image of a static busybox, where the host has one.
fn busybox(dir: &Path) -> Option<std::path::PathBuf> {
    let (root, image) = (dir.join("root"), dir.join("image"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).ok()?;
    let built = nanovisor().args(["image", "build"]).arg(&root).arg(&image).output().unwrap();
    built.status.success().then_some(image)
}

/// The children of process `pid`.
fn children(pid: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn sleeping(image: &Path) -> (std::process::Child, i32) {
    let mut command = nanovisor();
    command.args(["do", "--platform", "ptrace", "--no-tty", "--image"]).arg(image);
    let child = command.args(["--", "/bin/busybox", "sleep", "60"]).stderr(Stdio::piped()).spawn().unwrap();
    let sandbox = loop {
        if let [sandbox] = children(child.id())[..] {
            break sandbox;
        }
        std::thread::yield_now();
    };
    (child, sandbox)
}

#[test]
fn a_killed_sandbox_process_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = busybox(dir.path()) else { return };
    let (child, sandbox) = sleeping(&image);
    kill(Pid::from_raw(sandbox), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    // Killed before or after it was configured: either way it died, and is told once.
    let text = told(&output, 117);
    assert!(text.contains("sandbox process"), "{text}");
    assert!(!Path::new(&format!("/proc/{sandbox}")).exists());
}

#[test]
fn a_killed_command_takes_its_sandbox_along() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = busybox(dir.path()) else { return };
    let (mut child, sandbox) = sleeping(&image);
    let sandbox = Process::open(sandbox);
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.wait();
}

/// A process that is not our child, to wait for.
struct Process(std::os::fd::OwnedFd);

impl Process {
    fn open(pid: i32) -> Self {
        let path = format!("/proc/{pid}");
        Process(fs::File::open(path).unwrap().into())
    }

    /// Until the process is gone or a zombie: its directory then lists nothing, or its state says so.
    fn wait(&self) {
        use std::io::Read;
        loop {
            let stat = nix::fcntl::openat(&self.0, "stat", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
            let mut text = String::new();
            match stat.map(|fd| fs::File::from(fd).read_to_string(&mut text)) {
                Ok(Ok(_)) if !text.contains(") Z ") => std::thread::yield_now(),
                _ => return,
            }
        }
    }
}
