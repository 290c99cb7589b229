//! Bundles and containers of the tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use hostsys::process::Handle;
use serde_json::{Value, json};

use crate::common::{busybox_root, nanovisor, output_in_time, told};

/// A place for bundles and state, with a busybox root. Whatever a test leaves behind is deleted with it.
pub struct Place {
    dir: tempfile::TempDir,
    root: PathBuf,
    platform: &'static str,
}

impl Place {
    pub fn new(platform: &'static str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = busybox_root(dir.path());
        for name in ["mkdir", "stty", "tty", "touch", "ls", "mount", "grep"] {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
        }
        Place { dir, root, platform }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn platform(&self) -> &'static str {
        self.platform
    }

    pub fn state_root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A name for a container that no other test uses: cgroups are the host's.
    pub fn id(&self, name: &str) -> String {
        let unique = self.dir.path().file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
        format!("nv-test-{unique}-{name}")
    }

    /// A config.json that runs `args`.
    pub fn config(&self, args: &[&str]) -> Value {
        let caps = json!(["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            },
            "root": { "path": self.root },
            "hostname": "box",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["ptmxmode=0666"] },
            ],
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "network" }] },
            "annotations": { "dev.nanovisor.platform": self.platform },
        })
    }

    /// A bundle with this config.json.
    pub fn bundle(&self, name: &str, config: &Value) -> PathBuf {
        let dir = self.dir.path().join(format!("bundle-{name}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        dir
    }

    /// `nanovisor --root STATE ...`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = nanovisor();
        // Cgroups of these tests are not for others' limits; those who may not make any go without.
        command.arg("--root").arg(self.state_root()).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        output_in_time(&mut self.command(args))
    }

    /// Runs a command that must succeed; answers what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with `status`; answers its one line.
    pub fn fails(&self, args: &[&str], status: i32) -> String {
        told(&self.run(args), status)
    }

    pub fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// Creates a container whose output goes to a file, and answers its pid.
    pub fn create(&self, id: &str, config: &Value) -> i32 {
        let bundle = self.bundle(id, config);
        let pid_file = self.path().join(format!("{id}.pid"));
        let out = fs::File::create(self.output_path(id)).unwrap();
        let mut command = self.command(&["create", "--bundle", bundle.to_str().unwrap()]);
        command.arg("--pid-file").arg(&pid_file).arg(id);
        let err = fs::File::create(self.path().join(format!("{id}.err"))).unwrap();
        let status = command.stdin(std::process::Stdio::null()).stdout(out).stderr(err).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.path().join(format!("{id}.err"))).unwrap());
        fs::read_to_string(pid_file).unwrap().parse().unwrap()
    }

    pub fn output_path(&self, id: &str) -> PathBuf {
        self.path().join(format!("{id}.out"))
    }

    /// What the container has printed so far.
    pub fn printed(&self, id: &str) -> String {
        fs::read_to_string(self.output_path(id)).unwrap()
    }

    /// Nothing of any container is left on the host.
    pub fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.state_root()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let unique = self.id("");
        let find = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("{unique}*")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&find.stdout), "");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let names: Vec<_> =
            fs::read_dir(self.state_root()).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        for name in names {
            let _ = self.run(&["delete", "--force", name.to_str().unwrap()]);
        }
    }
}

/// Waits for the end of process `pid`.
pub fn wait_for_end(pid: i32) {
    let Some(start) = hostsys::process::start_time(pid) else { return };
    if let Some(process) = Handle::open(pid, start) {
        assert!(process.wait(Duration::from_secs(30)), "process {pid} does not end");
    }
}

/// Waits until `done`; there is nothing to wait on in other programs' output.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(10u8));
    }
    panic!("never: {what}");
}
