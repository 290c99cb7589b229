//! However a sandbox ends, nothing of it is left: no process, mount, cgroup or file.
//!
//! One test in a binary of its own: it becomes the reaper of every orphan, and looks at what the whole process sees.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{busybox_image, children, nanovisor, output_in_time, platforms};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// What the host looks like.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    mounts: String,
    cgroups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

fn below(dir: &Path, keep: &dyn Fn(&Path) -> bool, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            below(&path, keep, found);
        }
        if keep(&path) {
            found.insert(path);
        }
    }
}

impl Host {
    fn look(dir: &Path) -> Host {
        let (mut cgroups, mut files) = (BTreeSet::new(), BTreeSet::new());
        let ours = |path: &Path| {
            path.is_dir() && path.to_string_lossy().contains(&format!("nanovisor-{}", std::process::id()))
        };
        below(Path::new("/sys/fs/cgroup"), &ours, &mut cgroups);
        below(dir, &|_| true, &mut files);
        Host { mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(), cgroups, files }
    }
}

/// Waits until no descendant is left, not even an orphan.
fn nobody_is_left(what: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
        let own = std::process::id();
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let all: Vec<u32> = tasks.flat_map(|t| children_of(own, &t.file_name().to_string_lossy())).collect();
        if all.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} left processes behind: {all:?}");
        std::thread::yield_now();
    }
}

fn children_of(pid: u32, task: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn command(dir: &Path, image: &Path, platform: &str, script: &str) -> Command {
    let mut command = nanovisor();
    command.env("TMPDIR", dir.join("tmp")).env("XDG_CACHE_HOME", dir.join("cache")).current_dir(dir);
    command.args(["do", "--platform", platform, "--image"]).arg(image).args(["--", "/bin/sh", "-c", script]);
    command
}

/// Starts a guest with many processes, kills the command or its sandbox process, and waits for the end.
fn killed(mut command: Command, pick: fn(u32) -> u32) {
    use std::io::Read;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    kill(Pid::from_raw(i32::try_from(pick(child.id())).unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_is_left_behind() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let image = busybox_image(dir);
    for name in ["tmp", "cache"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let busy = "for i in 1 2 3 4 5; do sleep 1000 & done; echo up; wait";
    let before = Host::look(dir);
    for platform in platforms() {
        let run = |script: &str| command(dir, &image, platform, script);
        let ends: [(&str, &dyn Fn()); 6] = [
            ("a normal end", &|| drop(output_in_time(&mut run("echo x >/tmp/file; sleep 1000 & exit 0")))),
            ("an end by a signal", &|| drop(output_in_time(&mut run("sleep 1000 & kill -9 $$")))),
            ("a program that is missing", &|| drop(output_in_time(&mut run("exec /nonexistent")))),
            ("a killed sandbox process", &|| killed(run(busy), |command| children(command)[0])),
            ("a killed command", &|| killed(run(busy), |command| command)),
            ("a bad image", &|| drop(output_in_time(&mut command(dir, &dir.join("tmp"), platform, "true")))),
        ];
        for (what, end) in ends {
            end();
            nobody_is_left(&format!("{what} on {platform}"));
            assert_eq!(Host::look(dir), before, "{what} on {platform}");
        }
    }
}
