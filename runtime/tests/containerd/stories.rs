//! What works by both ways.

use crate::common::platforms;
use crate::daemon::{Containerd, Way, text, wait_until};

#[test]
fn containerd_runs_it_as_it_runs_runc() {
    stories(Way::Runc);
}

#[test]
fn containerd_runs_it_through_our_shim() {
    stories(Way::Shim);
}

fn stories(way: Way) {
    for platform in platforms() {
        let Some(containerd) = Containerd::start(platform, way) else { return };
        foreground(&containerd);
        detached(&containerd);
        executed(&containerd);
        containerd.assert_clean();
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
