//! A containerd of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{nanovisor, output_in_time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The image that every containerd here has.
const IMAGE: &str = "docker.io/library/busybox:test";

/// How many were started by this process.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// How containerd comes to this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through its own shim for runc.
    Runc,
    /// Through ours.
    Shim,
}

/// containerd with state of its own.
pub struct Containerd {
    /// Where all of it is.
    pub dir: tempfile::TempDir,
    daemon: Child,
    platform: &'static str,
    /// Of containerd: containers of two tests never meet.
    pub namespace: String,
    way: Way,
}

impl Containerd {
    /// `None` where it is not installed or we may not run it.
    pub fn start(platform: &'static str, way: Way) -> Option<Containerd> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/containerd").exists() {
            eprintln!("skipped: containerd is not installed (make setup), or this is not root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("sock"),
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let program = PathBuf::from(nanovisor().get_program());
        std::os::unix::fs::symlink(program, dir.path().join("containerd-shim-nanovisor-v1")).unwrap();
        let daemon = spawn(dir.path());
        // Our shim keeps state by namespace, whichever containerd it is of: tests run beside each other.
        let namespace = format!("nv-test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let started = Containerd { dir, daemon, platform, namespace, way };
        started.wait();
        started.import();
        Some(started)
    }

    fn wait(&self) {
        wait_until("containerd answers", || self.ctr(&["version"]).status.success());
    }

    /// Kills it and starts it again.
    pub fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = spawn(self.dir.path());
        self.wait();
    }

    fn import(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerd/image.py");
        let archive = self.dir.path().join("image.tar");
        let made = output_in_time(Command::new("python3").arg(script).arg(&archive).arg(IMAGE));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.ok(&["image", "import", archive.to_str().unwrap()]);
    }

    /// `ctr` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.path().join("sock")).args(["--namespace", &self.namespace]).args(args);
        command
    }

    /// Its output.
    pub fn ctr(&self, args: &[&str]) -> Output {
        output_in_time(&mut self.command(args))
    }

    /// What it prints, where it must not fail.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `ctr run` with our binary.
    pub fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Output {
        let binary = PathBuf::from(nanovisor().get_program());
        let (binary, root) = (binary.to_str().unwrap(), self.root());
        let way: &[&str] = match self.way {
            Way::Runc => &["--runc-binary", binary, "--runc-root", root.parent().unwrap().to_str().unwrap()],
            Way::Shim => &["--runtime", "io.containerd.nanovisor.v1"],
        };
        let annotation = format!("dev.nanovisor.platform={}", self.platform);
        let args = [&["run"], way, &["--annotation", &annotation], flags, &[IMAGE, id], command].concat();
        self.ctr(&args)
    }

    /// Where the containers' state is.
    pub fn root(&self) -> PathBuf {
        let of_runc = self.dir.path().join("runtime");
        let folder = if self.way == Way::Runc { of_runc.as_path() } else { Path::new("/run/containerd/nanovisor") };
        folder.join(&self.namespace)
    }

    /// The host's process of a container.
    pub fn pid(&self, id: &str) -> u32 {
        let list = self.ok(&["task", "ls"]);
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("a task with its process")
    }

    /// Removes a container, whatever state it is in.
    pub fn remove(&self, id: &str) {
        let _ = self.ctr(&["task", "rm", "-f", id]);
        self.ok(&["container", "rm", id]);
    }

    /// Checks that nothing is left of any container.
    pub fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.root()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let bundles = self.dir.path().join("state").display().to_string();
        assert!(!mounts.contains(&bundles), "{mounts}");
    }

    /// Whether a container is listed with this status.
    pub fn is(&self, id: &str, status: &str) -> bool {
        let list = self.ok(&["task", "ls"]);
        list.lines().any(|line| line.starts_with(id) && line.contains(status))
    }

    /// What containerd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn spawn(dir: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("/usr/bin/containerd")
        .arg("--config")
        .arg(dir.join("config.toml"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let list = self.ctr(&["task", "ls", "-q"]);
        for id in String::from_utf8_lossy(&list.stdout).lines() {
            let _ = self.ctr(&["task", "rm", "-f", id]);
        }
        let _ = kill(Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// Waits for what must come.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(50u8));
    }
    panic!("never: {what}");
}

/// Bytes for people.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
