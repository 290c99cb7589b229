//! Pods: containers that share a sandbox, through the commands, in the order in which containerd gives them.

mod common;
#[path = "common/oci.rs"]
mod oci;

use common::platforms;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use oci::{Place, wait_for_end, wait_until};
use serde_json::{Value, json};

/// A pod: its place, the name of its sandbox's container, and that one's process.
struct Pod {
    place: Place,
    sandbox: String,
    pid: i32,
}

impl Pod {
    /// As containerd's CRI plugin makes it.
    fn new(platform: &'static str) -> Pod {
        // As containerd's shim: what a container leaves on the host becomes our child.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let place = Place::new(platform);
        let sandbox = place.id("sandbox");
        let mut config = place.config(&["sleep", "1000"]);
        config["hostname"] = json!("pod");
        config["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
        config["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(sandbox);
        config["linux"]["namespaces"] =
            json!([{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }]);
        let pid = place.create(&sandbox, &config);
        place.ok(&["start", &sandbox]);
        Pod { place, sandbox, pid }
    }

    /// A container of it that runs `script`; `shared`: it shares process ids with the sandbox.
    fn config(&self, script: &str, shared: bool) -> Value {
        let mut config = self.place.config(&["sh", "-c", script]);
        config.as_object_mut().unwrap().remove("hostname");
        config["annotations"]["io.kubernetes.cri.container-type"] = json!("container");
        config["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(self.sandbox);
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", self.pid);
        let pid = if shared { json!({ "type": "pid", "path": path("pid") }) } else { json!({ "type": "pid" }) };
        config["linux"]["namespaces"] = json!([
            pid, { "type": "ipc", "path": path("ipc") }, { "type": "uts", "path": path("uts") },
            { "type": "network", "path": path("net") }, { "type": "mount" },
        ]);
        config
    }

    /// Creates and starts it; answers its name and its process.
    fn add(&self, name: &str, script: &str, shared: bool) -> (String, i32) {
        let id = self.place.id(name);
        let pid = self.place.create(&id, &self.config(script, shared));
        assert_eq!(self.place.status(&id), "created");
        assert_eq!(self.place.printed(&id), "");
        self.place.ok(&["start", &id]);
        (id, pid)
    }

    /// Stops and removes the sandbox; nothing is left.
    fn end(self) {
        self.place.ok(&["kill", &self.sandbox, "KILL"]);
        wait_for_end(self.pid);
        self.place.ok(&["delete", &self.sandbox]);
        self.place.assert_empty();
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: cgroups of these tests need root");
    }
    root
}

fn pods() -> impl Iterator<Item = Pod> {
    platforms().into_iter().filter(|_| is_root()).map(Pod::new)
}

/// Waits for the end of a process that stands for a container; its status as a shell has it.
fn status(pid: i32) -> i32 {
    match waitpid(Pid::from_raw(pid), None).unwrap() {
        WaitStatus::Exited(_, status) => status,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_s_life() {
    for pod in pods() {
        let place = &pod.place;
        let waits = "echo $$; hostname; trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done";
        let (own, own_pid) = pod.add("own", waits, false);
        wait_until("the first runs", || place.printed(&own).contains("up"));
        assert_eq!(place.printed(&own), "1\npod\nup\n");
        let (shared, shared_pid) = pod.add("shared", "grep -c sleep /proc/1/cmdline; echo up; sleep 1000", true);
        wait_until("the second runs", || place.printed(&shared).contains("up"));
        assert_eq!(place.printed(&shared), "1\nup\n", "process 1 is the sandbox's");
        for (id, pid) in [(&own, own_pid), (&shared, shared_pid), (&pod.sandbox, pod.pid)] {
            let state: Value = serde_json::from_str(&place.ok(&["state", id])).unwrap();
            assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(i64::from(pid))));
        }
        // Names are the pod's, processes each container's own.
        place.ok(&["exec", "--cap", "CAP_SYS_ADMIN", &own, "hostname", "renamed"]);
        assert_eq!(place.ok(&["exec", &shared, "hostname"]), "renamed\n");
        let listed = place.ok(&["ps", &own]);
        assert!(listed.contains("sleep 0.1") && !listed.contains("sleep 1000"), "{listed}");
        let stats: Value = serde_json::from_str(&place.ok(&["events", "--stats", &own])).unwrap();
        assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 10_000, "{stats}");
        let exec = place.run(&["exec", &own, "sh", "-c", "exit 5"]);
        assert_eq!(exec.status.code(), Some(5));
        // The end of one is its own.
        place.ok(&["kill", &own, "TERM"]);
        assert_eq!(status(own_pid), 7);
        assert_eq!(place.status(&own), "stopped");
        assert!(place.printed(&own).ends_with("bye\n"));
        assert!(place.fails(&["kill", &own], 1).contains("container not running"));
        place.ok(&["delete", &own]);
        place.ok(&["kill", "--all", &shared, "KILL"]);
        assert_eq!(status(shared_pid), 137);
        place.ok(&["delete", &shared]);
        // A name is free again.
        let (own, own_pid) = pod.add("own", "exit 3", false);
        assert_eq!(status(own_pid), 3);
        place.ok(&["delete", &own]);
        pod.end();
    }
}

#[test]
fn whoever_is_killed_takes_its_own_along() {
    for pod in pods() {
        let place = &pod.place;
        let (first, first_pid) = pod.add("first", "echo up; sleep 1000", true);
        let (second, second_pid) = pod.add("second", "echo up; sleep 1000", true);
        for id in [&first, &second] {
            wait_until("it runs", || place.printed(id).contains("up"));
        }
        // What stands for a container on the host dies: so does the container, alone.
        kill(Pid::from_raw(first_pid), Signal::SIGKILL).unwrap();
        assert_eq!(status(first_pid), 137);
        assert_eq!(place.status(&first), "stopped");
        wait_until("its processes are gone", || {
            let sleepers = place.ok(&["exec", &second, "sh", "-c", "grep -l sleep /proc/[0-9]*/comm"]);
            sleepers.lines().count() == 2
        });
        // A signal to it reaches the program, which as process 1 of nothing dies of it.
        kill(Pid::from_raw(second_pid), Signal::SIGTERM).unwrap();
        assert_eq!(status(second_pid), 128 + 15);
        for id in [&first, &second] {
            place.ok(&["delete", id]);
        }
        // The sandbox dies: so does all in it.
        let (third, third_pid) = pod.add("third", "sleep 1000", false);
        kill(Pid::from_raw(pod.pid), Signal::SIGKILL).unwrap();
        assert_eq!(status(third_pid), 137);
        wait_for_end(pod.pid);
        assert_eq!((place.status(&third), place.status(&pod.sandbox)), ("stopped".to_owned(), "stopped".to_owned()));
        place.ok(&["delete", &third]);
        place.ok(&["delete", &pod.sandbox]);
        place.assert_empty();
    }
}

#[test]
fn deletion_by_force_works_in_any_order() {
    for pod in pods() {
        let place = &pod.place;
        let (first, _) = pod.add("first", "sleep 1000", false);
        let (second, second_pid) = pod.add("second", "sleep 1000", false);
        assert!(place.fails(&["delete", &first], 1).contains("is not stopped: running"));
        place.ok(&["delete", "--force", &first]);
        assert!(place.fails(&["state", &first], 1).contains("does not exist"));
        place.ok(&["delete", "--force", &pod.sandbox]);
        wait_for_end(second_pid);
        assert_eq!(place.status(&second), "stopped");
        place.ok(&["delete", &second]);
        place.assert_empty();
        let mut config = pod.config("true", false);
        config["linux"]["namespaces"] = json!([]);
        let bundle = place.bundle("late", &config);
        let late = place.fails(&["create", "--bundle", bundle.to_str().unwrap(), &place.id("late")], 1);
        assert!(late.contains("the pod's sandbox"), "{late}");
        place.assert_empty();
    }
}

#[test]
fn pause_holds_one_container_of_a_pod() {
    for pod in pods() {
        let place = &pod.place;
        let ticks = "while :; do echo x; sleep 0.02; done";
        let ((held, _), (free, _)) = (pod.add("held", ticks, false), pod.add("free", ticks, false));
        wait_until("they print", || place.printed(&held).len() > 4 && place.printed(&free).len() > 4);
        for id in [&held, &pod.sandbox] {
            place.ok(&["pause", id]);
            assert_eq!(place.status(id), "paused");
        }
        let (still, going) = (place.printed(&held).len(), place.printed(&free).len());
        wait_until("the other goes on", || place.printed(&free).len() > going + 10);
        assert_eq!(place.printed(&held).len(), still);
        assert!(place.fails(&["exec", &held, "true"], 255).contains("paused"));
        place.ok(&["resume", &pod.sandbox]);
        place.ok(&["resume", &held]);
        wait_until("it goes on", || place.printed(&held).len() > still);
        place.ok(&["pause", &held]);
        for id in [&held, &free] {
            place.ok(&["delete", "--force", id]);
        }
        pod.end();
    }
}

#[test]
fn a_container_of_a_pod_fails_like_any_other() {
    for pod in pods() {
        let place = &pod.place;
        let mut config = pod.config("true", false);
        config["process"]["args"] = json!(["nosuch"]);
        let bundle = place.bundle("bad", &config);
        let create = ["create", "--bundle", bundle.to_str().unwrap(), &place.id("bad")];
        assert!(place.fails(&create, 1).contains("executable file not found in $PATH"));
        config["process"]["args"] = json!(["sh", "-c", "hostname; exit 3"]);
        let bundle = place.bundle("run", &config);
        let output = place.run(&["run", "--bundle", bundle.to_str().unwrap(), &place.id("run")]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"pod\n"[..]));
        config["annotations"].as_object_mut().unwrap().remove("io.kubernetes.cri.sandbox-id");
        let bundle = place.bundle("whose", &config);
        let whose = place.fails(&["create", "--bundle", bundle.to_str().unwrap(), &place.id("whose")], 1);
        assert!(whose.contains("annotations.io.kubernetes.cri.sandbox-id: missing"), "{whose}");
        pod.end();
    }
}
