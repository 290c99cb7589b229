//! Containers through the commands of an OCI runtime, on each platform.

mod common;
#[path = "common/oci.rs"]
mod oci;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use common::platforms;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::{Place, wait_for_end, wait_until};
use serde_json::{Value, json};

/// Containers that are not root's need their own cgroups and namespaces; these tests look at the host's.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: cgroups of these tests need root");
    }
    root
}

#[test]
fn a_container_s_life() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let id = place.id("life");
        let pid = place.create(
            &id,
            &place.config(&["sh", "-c", "trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.1; done"]),
        );
        let state: Value = serde_json::from_str(&place.ok(&["state", &id])).unwrap();
        assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("created"), Some(i64::from(pid))));
        assert_eq!(place.printed(&id), "", "a created container runs nothing");
        place.ok(&["start", &id]);
        wait_until("the program runs", || place.printed(&id).contains("up"));
        assert!(place.fails(&["start", &id], 1).contains("already running"));
        assert!(place.fails(&["delete", &id], 1).contains("is not stopped: running"));
        assert!(place.ok(&["list"]).contains(&id));
        let exec = place.run(&[
            "exec",
            "--user",
            "7:8",
            "--cwd",
            "/tmp",
            "-e",
            "A=b",
            &id,
            "sh",
            "-c",
            "id -u; pwd; echo $A; exit 5",
        ]);
        assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(5), &b"7\n/tmp\nb\n"[..]));
        assert!(place.ok(&["ps", &id]).contains("sleep 0.1"));
        let stats: Value = serde_json::from_str(&place.ok(&["events", "--stats", &id])).unwrap();
        assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 100_000, "{stats}");
        assert!(stats["data"]["pids"]["current"].as_u64().unwrap() >= 1);
        place.ok(&["kill", &id, "TERM"]);
        wait_for_end(pid);
        assert_eq!(place.status(&id), "stopped");
        assert_eq!(place.printed(&id), "up\ngot\n");
        assert!(place.fails(&["kill", &id], 1).contains("container not running"));
        assert!(place.fails(&["exec", &id, "true"], 255).contains("stopped"));
        place.ok(&["delete", &id]);
        assert!(place.fails(&["state", &id], 1).contains("container does not exist"));
        place.ok(&["delete", "--force", &id]);
        place.assert_empty();
    }
}

#[test]
fn run_is_the_program_s_status_and_leaves_nothing() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let bundle = place.bundle("run", &place.config(&["sh", "-c", "hostname; exit 3"]));
        let output = place.run(&["run", "--bundle", bundle.to_str().unwrap(), &place.id("run")]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"box\n"[..]));
        place.assert_empty();
    }
}

#[test]
fn pause_holds_and_resume_lets_go() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let id = place.id("pause");
        let pid = place.create(&id, &place.config(&["sh", "-c", "while :; do echo x; sleep 0.02; done"]));
        place.ok(&["start", &id]);
        wait_until("it prints", || place.printed(&id).len() > 4);
        place.ok(&["pause", &id]);
        assert_eq!(place.status(&id), "paused");
        let printed = place.printed(&id).len();
        assert!(place.fails(&["exec", &id, "true"], 255).contains("paused"));
        assert_eq!(place.printed(&id).len(), printed);
        place.ok(&["resume", &id]);
        wait_until("it goes on", || place.printed(&id).len() > printed);
        assert!(place.fails(&["resume", &id], 1).contains("not paused"));
        place.ok(&["pause", &id]);
        place.ok(&["kill", &id, "KILL"]);
        wait_for_end(pid);
        place.ok(&["delete", &id]);
        place.assert_empty();
    }
}

#[test]
fn a_detached_exec_is_held_by_a_process_of_the_host() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let id = place.id("hold");
        place.create(&id, &place.config(&["sleep", "1000"]));
        place.ok(&["start", &id]);
        let pid_file = place.path().join("exec.pid");
        // Its streams go to the process inside, so nobody may wait for their end here.
        let mut exec =
            place.command(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &id, "sleep", "500"]);
        assert!(exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let holder: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        assert!(place.ok(&["ps", &id]).contains("sleep 500"));
        kill(Pid::from_raw(holder), Signal::SIGKILL).unwrap();
        wait_until("it went with its holder", || !place.ok(&["ps", &id]).contains("sleep 500"));
        let refused = place.fails(&["exec", "--detach", &id, "no-such-program"], 255);
        assert!(refused.contains("no-such-program"), "{refused}");
        place.ok(&["delete", "--force", &id]);
        place.assert_empty();
    }
}

#[test]
fn hooks_run_in_their_order() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let log = place.path().join("hooks");
        let hook = |name: &str| {
            let script = format!("read state; echo {name} >>{}", log.display());
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 }])
        };
        let names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        let mut config = place.config(&["true"]);
        for name in names {
            config["hooks"][name] = hook(name);
        }
        let id = place.id("hooks");
        let pid = place.create(&id, &config);
        assert_eq!(fs::read_to_string(&log).unwrap(), "prestart\ncreateRuntime\ncreateContainer\n");
        place.ok(&["start", &id]);
        wait_for_end(pid);
        place.ok(&["delete", &id]);
        assert_eq!(fs::read_to_string(&log).unwrap().lines().collect::<Vec<_>>(), names);
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
        let bundle = place.bundle("bad-hook", &config);
        let line = place.fails(&["create", "--bundle", bundle.to_str().unwrap(), &place.id("bad")], 1);
        assert!(line.contains("createRuntime hook #0"), "{line}");
        place.assert_empty();
    }
}

#[test]
fn the_console_socket_gets_the_terminal() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let path = place.path().join("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut config = place.config(&["sh", "-c", "tty; read line; stty size; echo got $line"]);
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 30, "width": 90 });
        let (bundle, id) = (place.bundle("tty", &config), place.id("tty"));
        let bundle = bundle.to_str().unwrap();
        assert!(place.fails(&["create", "--bundle", bundle, &id], 1).contains("console socket"));
        place.ok(&["create", "--bundle", bundle, "--console-socket", path.to_str().unwrap(), &id]);
        let stream = listener.accept().unwrap().0;
        let message = hostsys::SeqPacket::from_fd(stream.into()).receive().unwrap();
        let mut master = fs::File::from(message.fds.into_iter().next().unwrap());
        place.ok(&["start", &id]);
        let mut seen = String::new();
        read_until(&mut master, &mut seen, "/dev/pts/0");
        std::io::Write::write_all(&mut master, b"word\n").unwrap();
        read_until(&mut master, &mut seen, "got word");
        assert!(seen.contains("30 90"), "{seen}");
        wait_until("it ends", || place.status(&id) == "stopped");
        place.ok(&["delete", &id]);
        place.assert_empty();
    }
}

fn read_until(file: &mut fs::File, seen: &mut String, text: &str) {
    while !seen.contains(text) {
        let mut piece = [0; 1024];
        let n = std::io::Read::read(file, &mut piece).unwrap_or_else(|e| panic!("{e} after {seen:?}"));
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}

#[test]
fn seccomp_limits_and_identity_are_the_config_s() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let script = "mkdir /tmp/x 2>&1; id; ulimit -n; touch /file 2>&1; grep NoNew /proc/self/status";
        let mut config = place.config(&["sh", "-c", script]);
        config["root"]["readonly"] = json!(true);
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [10], "umask": 63 });
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]);
        config["process"]["noNewPrivileges"] = json!(true);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
        });
        let bundle = place.bundle("rights", &config);
        let output = place.run(&["run", "--bundle", bundle.to_str().unwrap(), &place.id("rights")]);
        let text = String::from_utf8_lossy(&output.stdout);
        for expected in ["No space left", "uid=1000", "gid=1001", "77\n", "Read-only file system", "NoNewPrivs:\t1"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        place.assert_empty();
    }
}

#[test]
fn writes_to_the_root_go_where_the_annotations_say() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let written = place.path().join("busybox/written");
        let mut config = place.config(&["sh", "-c", "echo word >/written; cat /written"]);
        config["annotations"]["dev.nanovisor.overlay"] = json!("memory");
        for reaches in [false, true] {
            let bundle = place.bundle("root", &config);
            let cache = place.path().join("cache");
            let mut command = place.command(&["run", "--bundle", bundle.to_str().unwrap(), &place.id("root")]);
            let output = common::output_in_time(command.env("XDG_CACHE_HOME", &cache));
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "word\n",
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(written.exists(), reaches);
            config["annotations"].as_object_mut().unwrap().remove("dev.nanovisor.overlay");
        }
        place.assert_empty();
    }
}

#[test]
fn host_directories_are_mounted() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let shared = place.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("in"), "from the host\n").unwrap();
        let mut config = place.config(&["sh", "-c", "cat /rw/in; echo back >/rw/out; echo no >/ro/out2"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/rw", "type": "bind", "source": shared, "options": ["rbind", "rw"] }));
        mounts.push(json!({ "destination": "/ro", "type": "bind", "source": shared, "options": ["bind", "ro"] }));
        let bundle = place.bundle("binds", &config);
        let output = place.run(&["run", "--bundle", bundle.to_str().unwrap(), &place.id("binds")]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "from the host\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"));
        assert_eq!(fs::read_to_string(shared.join("out")).unwrap(), "back\n");
        place.assert_empty();
    }
}

#[test]
fn wrong_bundles_are_refused_by_field_and_leave_nothing() {
    let place = Place::new("ptrace");
    let good = place.config(&["true"]);
    let change = |path: &str, value: Value| {
        let mut config = good.clone();
        *config.pointer_mut(path).unwrap() = value;
        config
    };
    for (config, field) in [
        (change("/ociVersion", json!("")), "ociVersion"),
        (change("/ociVersion", json!("3.0.0")), "ociVersion"),
        (change("/process", Value::Null), "process"),
        (change("/process/args", json!([])), "process.args"),
        (change("/process/cwd", json!("here")), "process.cwd"),
        (change("/process/user", json!("root")), "process.user"),
        (change("/root", Value::Null), "root"),
        (change("/root/path", json!("/no/such/root")), "root.path"),
        (change("/mounts/0/type", json!("nfs")), "mounts[0].type"),
        (change("/linux/namespaces/0/type", json!("mood")), "linux.namespaces[0]"),
        (change("/annotations/dev.nanovisor.platform", json!("xen")), "annotations.dev.nanovisor.platform"),
    ] {
        let bundle = place.bundle("wrong", &config);
        let line = place.fails(&["create", "--bundle", bundle.to_str().unwrap(), &place.id("wrong")], 1);
        assert!(line.contains(&format!("config.json: {field}")), "{field}: {line}");
        place.assert_empty();
    }
    let empty = place.path().to_str().unwrap();
    assert!(place.fails(&["run", "--bundle", empty, "x"], 1).contains("config.json not found"));
    let bundle = place.bundle("good", &good);
    assert!(place.fails(&["create", "--bundle", bundle.to_str().unwrap(), "a/b"], 1).contains("invalid container ID"));
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "update"] {
        assert!(place.fails(&[command, "nobody"], 1).contains("container does not exist"), "{command}");
    }
}

#[test]
fn a_create_that_dies_can_be_deleted() {
    for platform in platforms().into_iter().filter(|_| is_root()) {
        let place = Place::new(platform);
        let (mark, fifo) = (place.path().join("hook-runs"), place.path().join("fifo"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let mut config = place.config(&["sleep", "1000"]);
        // It hangs until its fifo is opened.
        let script = format!("cat >/dev/null; touch {}; exec cat {}", mark.display(), fifo.display());
        config["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        let (bundle, id) = (place.bundle("dies", &config), place.id("dies"));
        let mut create = place.command(&["create", "--bundle", bundle.to_str().unwrap(), &id]).spawn().unwrap();
        wait_until("the hook runs", || mark.exists());
        create.kill().unwrap();
        create.wait().unwrap();
        assert_eq!(place.status(&id), "creating");
        place.ok(&["delete", "--force", &id]);
        place.assert_empty();
        // The hook ends when its fifo has had a writer.
        drop(fs::File::options().write(true).open(&fifo).unwrap());
    }
}

#[test]
fn features_and_spec_are_json() {
    let place = Place::new("ptrace");
    let features: Value = serde_json::from_str(&place.ok(&["features"])).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert!(features["annotations"]["dev.nanovisor.platform"].is_string());
    place.ok(&["spec", "--bundle", place.path().to_str().unwrap()]);
    let spec: Value = serde_json::from_str(&fs::read_to_string(place.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert!(place.fails(&["spec", "--bundle", place.path().to_str().unwrap()], 1).contains("exists"));
}
