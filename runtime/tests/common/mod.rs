//! What the tests of the command share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a run of the command may take before it counts as hanging: far more than any takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command under test.
pub fn nanovisor() -> Command {
    Command::new(env!("CARGO_BIN_EXE_nanovisor"))
}

/// Runs `command` with its output collected; one that hangs is killed and fails the test.
pub fn output_in_time(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, &format!("{command:?}"))
}

/// Collects what `child` prints until its end.
pub fn finish(child: Child, what: &str) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("hangs: {what}");
    };
    output.unwrap()
}

/// The one line on standard error, after checking the status.
pub fn told(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("nanovisor: "), "{text}");
    text
}

/// Images `root` as a file beside it.
pub fn image_of(root: &Path) -> PathBuf {
    let image = root.with_extension("erofs");
    let built = output_in_time(nanovisor().args(["image", "build"]).arg(root).arg(&image));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    image
}

/// An image in `dir` that holds one file and no program.
pub fn small_image(dir: &Path) -> PathBuf {
    let root = dir.join("small");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), vec![7; 10_000]).unwrap();
    image_of(&root)
}

/// A root directory in `dir` with a static busybox (`make setup` installs it) under the names of its common applets.
pub fn busybox_root(dir: &Path) -> PathBuf {
    let root = dir.join("busybox");
    for name in ["bin", "etc", "tmp", "dev", "proc"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let applets = ["sh", "true", "false", "sleep", "cat", "echo", "id", "pwd", "env", "hostname", "kill", "stty", "dd"];
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed (make setup)");
    for applet in applets {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/srv/alice:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nusers:x:1001:\nwheel:x:10:alice\n").unwrap();
    root
}

/// An image of [`busybox_root`].
pub fn busybox_image(dir: &Path) -> PathBuf {
    image_of(&busybox_root(dir))
}

/// The platforms that this host can test.
pub fn platforms() -> Vec<&'static str> {
    if Path::new("/dev/kvm").exists() { vec!["ptrace", "kvm"] } else { vec!["ptrace"] }
}

/// The children of process `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
