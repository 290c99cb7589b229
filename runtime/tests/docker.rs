//! A real Docker daemon, with state of its own and no network, that runs containers with this binary (`docker run --runtime`).

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{busybox_root, nanovisor, output_in_time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DAEMON: &str = "/usr/sbin/dockerd";
const CLIENT: &str = "/usr/bin/docker";

struct Docker {
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    /// `None` where it is not installed or we may not run it.
    fn start() -> Option<Docker> {
        if !nix::unistd::geteuid().is_root() || !Path::new(DAEMON).exists() || !Path::new(CLIENT).exists() {
            eprintln!("skipped: Docker is not installed (make setup), or this is not root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let runtimes =
            serde_json::json!({ "runtimes": { "nanovisor": { "path": nanovisor().get_program().to_str() } } });
        fs::write(at("daemon.json"), runtimes.to_string()).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let daemon = Command::new(DAEMON)
            .arg("--config-file")
            .arg(at("daemon.json"))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge=none", "--iptables=false", "--storage-driver=vfs", "--host"])
            .arg(format!("unix://{}", at("sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Docker { dir, daemon };
        docker.wait_until_it_answers();
        docker.import();
        Some(docker)
    }

    fn wait_until_it_answers(&self) {
        self.wait_until("it answers", || self.run(&["version"]).status.success());
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..600 {
            if done() {
                return;
            }
            let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(100u8));
        }
        panic!("never: {what}: {}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }

    fn import(&self) {
        let root = busybox_root(self.dir.path());
        let archive = self.dir.path().join("root.tar");
        let made = output_in_time(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."));
        assert!(made.status.success(), "{made:?}");
        self.ok(&["import", archive.to_str().unwrap(), "box:test"]);
    }

    fn run(&self, args: &[&str]) -> Output {
        let host = format!("unix://{}", self.dir.path().join("sock").display());
        output_in_time(Command::new(CLIENT).args(["--host", &host]).args(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

const FLAGS: [&str; 4] = ["--runtime", "nanovisor", "--network", "none"];

#[test]
fn docker_runs_it_by_its_path() {
    let Some(docker) = Docker::start() else { return };
    let short = [&["run", "--rm"], &FLAGS[..], &["box:test", "sh", "-c", "echo out; exit 7"]].concat();
    let output = docker.run(&short);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"out\n"[..]), "{output:?}");
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let long = [&["run", "-d", "--name", "long"], &FLAGS[..], &["box:test", "sh", "-c", script]].concat();
    docker.ok(&long);
    assert_eq!(docker.ok(&["exec", "long", "echo", "inside"]), "inside\n");
    docker.wait_until("its trap is set", || docker.ok(&["logs", "long"]) == "up\n");
    docker.ok(&["stop", "--time", "60", "long"]);
    assert_eq!(docker.ok(&["logs", "long"]), "up\nbye\n");
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", "long"]), "3\n");
    docker.ok(&["rm", "long"]);
}
