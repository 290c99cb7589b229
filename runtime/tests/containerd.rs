//! A real containerd, with its own shim for runc, that is told to use this binary: `ctr run --runc-binary`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{nanovisor, output_in_time, platforms};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IMAGE: &str = "docker.io/library/busybox:test";

/// containerd with state of its own.
struct Containerd {
    dir: tempfile::TempDir,
    daemon: Child,
    platform: &'static str,
    namespace: String,
}

impl Containerd {
    /// `None` where it is not installed or we may not run it.
    fn start(platform: &'static str) -> Option<Containerd> {
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
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let daemon = Command::new("/usr/bin/containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let namespace = format!("nv-test-{}-{platform}", std::process::id());
        let started = Containerd { dir, daemon, platform, namespace };
        wait_until("containerd answers", || started.ctr(&["version"]).status.success());
        started.import();
        Some(started)
    }

    fn import(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerd_image.py");
        let archive = self.dir.path().join("image.tar");
        let made = output_in_time(Command::new("python3").arg(script).arg(&archive).arg(IMAGE));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.ok(&["image", "import", archive.to_str().unwrap()]);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.path().join("sock")).args(["--namespace", &self.namespace]).args(args);
        command
    }

    fn ctr(&self, args: &[&str]) -> Output {
        output_in_time(&mut self.command(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `ctr run` with our binary.
    fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Output {
        let binary = PathBuf::from(nanovisor().get_program());
        let root = self.dir.path().join("runtime");
        let annotation = format!("dev.nanovisor.platform={}", self.platform);
        let fixed = ["run", "--runc-binary", binary.to_str().unwrap(), "--runc-root", root.to_str().unwrap()];
        let args = [&fixed[..], &["--annotation", &annotation], flags, &[IMAGE, id], command].concat();
        self.ctr(&args)
    }

    fn is(&self, id: &str, status: &str) -> bool {
        let list = self.ok(&["task", "ls"]);
        list.lines().any(|line| line.starts_with(id) && line.contains(status))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
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

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(50u8));
    }
    panic!("never: {what}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn containerd_runs_it_as_it_runs_runc() {
    for platform in platforms() {
        let Some(containerd) = Containerd::start(platform) else { return };
        foreground(&containerd);
        detached(&containerd);
        executed(&containerd);
        let left = fs::read_dir(containerd.dir.path().join("runtime").join(&containerd.namespace));
        let left: Vec<_> = left.into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn foreground(containerd: &Containerd) {
    let output = containerd.run(&["--rm"], "fore", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(7), "out\n".into()), "{}", text(&output.stderr));
    let missing = containerd.run(&["--rm"], "fore", &["no-such-program"]);
    assert!(text(&missing.stderr).contains("executable file not found in $PATH"), "{}", text(&missing.stderr));
}

fn detached(containerd: &Containerd) {
    let script = "trap 'exit 9' TERM; while :; do sleep 0.1; done";
    let started = containerd.run(&["-d", "--memory-limit", "134217728"], "back", &["sh", "-c", script]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    assert!(containerd.is("back", "RUNNING"));
    let metrics = containerd.ok(&["task", "metrics", "back"]);
    let usage = metrics.lines().find(|line| line.contains("memory.usage_in_bytes")).unwrap();
    assert!(usage.split_whitespace().last().unwrap().parse::<u64>().unwrap() > 100_000, "{metrics}");
    assert!(metrics.contains("134217728"), "{metrics}");
    containerd.ok(&["task", "pause", "back"]);
    assert!(containerd.is("back", "PAUSED"));
    containerd.ok(&["task", "resume", "back"]);
    assert!(containerd.is("back", "RUNNING"));
    containerd.ok(&["task", "kill", "--signal", "TERM", "back"]);
    wait_until("it ends", || containerd.is("back", "STOPPED"));
    let removed = containerd.ctr(&["task", "rm", "back"]);
    assert!(text(&removed.stderr).contains("exit code 9") || removed.status.code() == Some(9), "{removed:?}");
    containerd.ok(&["container", "rm", "back"]);
}

fn executed(containerd: &Containerd) {
    assert!(containerd.run(&["-d"], "exec", &["sleep", "1000"]).status.success());
    let output = containerd.ctr(&["task", "exec", "--exec-id", "one", "exec", "sh", "-c", "echo inside; exit 5"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(5), "inside\n".into()), "{}", text(&output.stderr));
    containerd.ok(&["task", "exec", "--detach", "--exec-id", "two", "exec", "sleep", "500"]);
    containerd.ok(&["task", "kill", "--signal", "KILL", "--exec-id", "two", "exec"]);
    containerd.ok(&["task", "kill", "--signal", "KILL", "exec"]);
    wait_until("it ends", || containerd.is("exec", "STOPPED"));
    let _ = containerd.ctr(&["task", "rm", "exec"]);
    containerd.ok(&["container", "rm", "exec"]);
}
