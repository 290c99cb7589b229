//! Streams, signals and statuses of `nanovisor do` without a terminal: as if the program ran by itself.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{busybox_image, finish, nanovisor, output_in_time, platforms};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn run_in(image: &Path, platform: &str, script: &str) -> Command {
    let mut command = nanovisor();
    command.args(["do", "--platform", platform, "--image"]).arg(image).args(["--", "/bin/sh", "-c", script]);
    command
}

/// Runs `body` with an image on each platform.
fn on_each(body: impl Fn(&Path, &str)) {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        body(&image, platform);
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Starts a script that says `up` first, and waits for that.
fn start(image: &Path, platform: &str, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let script = format!("{script}; echo up; while :; do sleep 0.05; done");
    let mut command = run_in(image, platform, &script);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    (child, out)
}

#[test]
fn signals_go_to_the_program() {
    on_each(|image, platform| {
        let (child, mut out) = start(
            image,
            platform,
            "for s in HUP INT QUIT USR1 USR2 ALRM CONT WINCH; do trap \"echo $s\" $s; done; trap 'exit 3' TERM",
        );
        for signal in ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "CONT", "WINCH"] {
            kill(pid(&child), format!("SIG{signal}").parse::<Signal>().unwrap()).unwrap();
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(line.trim(), signal, "{platform}");
        }
        kill(pid(&child), Signal::SIGTERM).unwrap();
        assert_eq!(finish(child, "SIGTERM").status.code(), Some(3));
    });
}

#[test]
fn a_signal_s_death_is_128_and_its_number() {
    on_each(|image, platform| {
        for (script, status) in [("kill -9 $$", 137), ("kill -TERM $$", 143), ("kill -SEGV $$", 139), ("exit 7", 7)] {
            assert_eq!(output_in_time(&mut run_in(image, platform, script)).status.code(), Some(status), "{script}");
        }
        let (child, _out) = start(image, platform, ":");
        kill(pid(&child), Signal::SIGTERM).unwrap();
        assert_eq!(finish(child, "SIGTERM").status.code(), Some(143));
    });
}

#[test]
fn a_stop_stops_the_guest_until_it_is_continued() {
    on_each(|image, platform| {
        let script = "trap 'echo on' USR1";
        let (child, mut out) = start(image, platform, script);
        kill(pid(&child), Signal::SIGTSTP).unwrap();
        while !std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
        // Queued while stopped, served after.
        kill(pid(&child), Signal::SIGUSR1).unwrap();
        kill(pid(&child), Signal::SIGCONT).unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "on\n", "{platform}");
        kill(pid(&child), Signal::SIGKILL).unwrap();
        finish(child, "SIGKILL");
    });
}

fn text_of(command: &mut Command) -> (Option<i32>, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(child, &format!("{command:?}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn standard_input_of_every_kind() {
    on_each(|image, platform| {
        let cat = || run_in(image, platform, "cat");
        assert_eq!(text_of(cat().stdin(Stdio::null())), (Some(0), String::new()));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"first\nsecond\n").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        // The offset of a file is shared: what the shell has not taken is left for the next.
        let (_, text) = text_of(run_in(image, platform, "head -c 6 >/dev/null; cat").stdin(file.try_clone().unwrap()));
        assert!(text.ends_with("second\n") || text.is_empty(), "{text}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"by socket").unwrap();
        drop(ours);
        assert_eq!(text_of(cat().stdin(OwnedFd::from(theirs))), (Some(0), "by socket".into()));
        let closed = Command::new("sh")
            .args(["-c", "exec \"$@\" <&-", "sh"])
            .arg(cat().get_program())
            .args(cat().get_args())
            .output();
        assert_eq!(closed.unwrap().status.code(), Some(0), "{platform}");
    });
}

#[test]
fn a_full_disk_and_a_reader_that_left_are_seen_by_the_program() {
    on_each(|image, platform| {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let child = run_in(image, platform, "cat /etc/passwd").stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child, "/dev/full");
        assert_eq!(output.status.code(), Some(1), "{platform}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
        // The program dies of SIGPIPE, as natively.
        let mut child = run_in(image, platform, "cat /dev/zero").stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut vec![0; 300_000]).unwrap();
        assert_eq!(finish(child, "closed pipe").status.code(), Some(141), "{platform}");
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    on_each(|image, platform| {
        let script = "dd if=/dev/zero bs=64k count=100 2>/dev/null; echo end";
        let mut child = run_in(image, platform, script).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (mut piece, mut total, mut last) = (vec![0; 10_007], 0, Vec::new());
        loop {
            let n = out.read(&mut piece).unwrap();
            if n == 0 {
                break;
            }
            total += n;
            last = piece[..n].to_vec();
        }
        assert_eq!(total, 100 * 65536 + 4, "{platform}");
        assert!(last.ends_with(b"end\n"));
        assert!(finish(child, "slow reader").status.success());
    });
}

#[test]
fn the_flags_reach_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        let run = |flags: &[&str], script: &str| {
            let mut command = nanovisor();
            command.args(["do", "--platform", platform, "--image"]).arg(&image).args(flags);
            let output = output_in_time(command.args(["--", "/bin/sh", "-c", script]));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(run(&["--env", "A=b", "-e", "A=c"], "echo $A"), "c\n");
        assert_eq!(run(&["--cwd", "/tmp"], "pwd"), "/tmp\n");
        assert_eq!(
            run(&["--hostname", "box"], "hostname; cat /etc/hostname; env | grep HOSTNAME"),
            "box\nbox\nHOSTNAME=box\n"
        );
        assert!(run(&["--hostname", "box"], "cat /etc/hosts").contains("127.0.1.1\tbox\n"));
        assert_eq!(run(&["--cpus", "3"], "grep -c ^processor /proc/cpuinfo"), "3\n");
        let alice = "uid=1000(alice) gid=1001(users) groups=10(wheel),1001(users)\n/srv/alice\n";
        assert_eq!(run(&["--user", "alice"], "id; echo $HOME"), alice);
        assert_eq!(run(&["--user", "alice", "--env", "HOME=/x"], "echo $HOME"), "/x\n");
        assert_eq!(run(&["--user", "7:8"], "id"), "uid=7 gid=8 groups=8\n");
        assert_eq!(run(&[], "id -u; echo $HOME"), "0\n/root\n");
    }
}

#[test]
fn over_the_memory_limit_the_guest_is_killed_inside_and_the_log_says_so() {
    on_each(|image, platform| {
        let script = "x=a; while :; do x=$x$x; done";
        let mut command = nanovisor();
        command.args(["do", "--platform", platform, "--memory", "32M", "--image"]).arg(image);
        let output = output_in_time(command.args(["--", "/bin/sh", "-c", script]));
        assert_eq!(output.status.code(), Some(137), "{platform}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("out of memory") && told.contains("its limit of 32768 kB"), "{told}");
    });
}

#[test]
fn a_trace_of_system_calls_goes_to_the_log_in_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let log = dir.path().join("log");
    let run = |format: &str| {
        let mut command = nanovisor();
        command.args(["do", "--platform", "ptrace", "--strace", "--log-format", format, "--log"]).arg(&log);
        let output = output_in_time(command.arg("--image").arg(&image).args(["--", "echo", "hi"]));
        assert_eq!(output.stdout, b"hi\n");
        assert!(output.stderr.is_empty());
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        text
    };
    assert!(run("text").contains("write(1, "));
    for line in run("json").lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["msg"].is_string() && object["time"].is_string(), "{line}");
    }
}
