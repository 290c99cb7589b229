//! What our shim does besides: events, many at once, restarts and kills.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::platforms;
use crate::daemon::{Containerd, Way, text, wait_until};

/// Containers at once.
const MANY: usize = 20;

fn containerd() -> Option<Containerd> {
    Containerd::start(platforms().last()?, Way::Shim)
}

fn started(output: &std::process::Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn memory_that_runs_out_is_told() {
    let Some(containerd) = containerd() else { return };
    let path = containerd.dir.path().join("events");
    let file = fs::File::create(&path).unwrap();
    let mut listener = containerd.command(&["events"]).stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let heard = |what: &str| fs::read_to_string(&path).unwrap_or_default().contains(what);
    // Whether it listens is seen by what it hears.
    let mut n = 0;
    wait_until("events are heard", || {
        n += 1;
        containerd.ok(&["namespace", "label", &containerd.namespace, &format!("n={n}")]);
        heard("/namespaces/update")
    });
    started(&containerd.run(&["-d", "--memory-limit", "67108864"], "oom", &["sh", "-c", "tail /dev/zero; sleep 1000"]));
    wait_until("the event", || heard("/tasks/oom"));
    assert!(containerd.is("oom", "RUNNING"));
    containerd.remove("oom");
    wait_until("the last event", || heard("/tasks/delete"));
    for topic in ["/tasks/create", "/tasks/start", "/tasks/exit"] {
        assert!(heard(topic), "{topic}");
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
    containerd.assert_clean();
}

#[test]
fn many_run_at_once() {
    let Some(containerd) = containerd() else { return };
    let ids: Vec<String> = (0..MANY).map(|n| format!("many-{n}")).collect();
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| started(&containerd.run(&["-d"], id, &["sleep", "1000"])));
        }
    });
    assert!(ids.iter().all(|id| containerd.is(id, "RUNNING")), "{}", containerd.ok(&["task", "ls"]));
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| containerd.remove(id));
        }
    });
    containerd.assert_clean();
}

#[test]
fn containers_outlive_containerd() {
    let Some(mut containerd) = containerd() else { return };
    // It goes on writing while nobody reads.
    let script = "trap 'exit 9' TERM; while :; do echo x; sleep 0.1; done";
    started(&containerd.run(&["-d"], "long", &["sh", "-c", script]));
    started(&containerd.run(&["-d"], "short", &["sh", "-c", "cat /gate; sleep 1000"]));
    let pid = containerd.pid("long");
    let other = Pid::from_raw(i32::try_from(containerd.pid("short")).unwrap());
    containerd.restart();
    assert_eq!(containerd.pid("long"), pid);
    let output = containerd.ctr(&["task", "exec", "--exec-id", "e", "long", "echo", "inside"]);
    assert_eq!(text(&output.stdout), "inside\n", "{}", text(&output.stderr));
    containerd.ok(&["task", "metrics", "long"]);
    containerd.ok(&["task", "kill", "--signal", "TERM", "long"]);
    wait_until("it ends", || containerd.is("long", "STOPPED"));
    // One that ends while containerd is away is known to have ended when it is back.
    kill(other, Signal::SIGKILL).unwrap();
    containerd.restart();
    wait_until("its end is known", || containerd.is("short", "STOPPED"));
    containerd.remove("long");
    containerd.remove("short");
    containerd.assert_clean();
}

#[test]
fn a_killed_shim_leaves_nothing() {
    let Some(containerd) = containerd() else { return };
    started(&containerd.run(&["-d"], "killed", &["sleep", "1000"]));
    let pid = containerd.pid("killed");
    kill(parent(pid), Signal::SIGKILL).unwrap();
    wait_until("its sandbox is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    wait_until("containerd has noticed", || !containerd.is("killed", "RUNNING"));
    containerd.remove("killed");
    wait_until("its state is gone", || fs::read_dir(containerd.root()).is_ok_and(|mut dir| dir.next().is_none()));
    containerd.assert_clean();
    // The name is free again.
    started(&containerd.run(&["--rm"], "killed", &["true"]));
}

/// A shim is its sandboxes' parent.
fn parent(pid: u32) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap())
}
