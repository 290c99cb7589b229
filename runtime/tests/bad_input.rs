//! Bad input: one clear line that names the thing and the way out, and an exit status of its own.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{busybox_image, busybox_root, children, finish, image_of, nanovisor, output_in_time, platforms, told};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn run_in(image: &Path, platform: &str, flags: &[&str], command: &[&str]) -> Output {
    let mut all = nanovisor();
    all.args(["do", "--platform", platform, "--no-tty", "--image"]).arg(image).args(flags).arg("--").args(command);
    output_in_time(&mut all)
}

fn run_image(image: &Path) -> Output {
    run_in(image, "ptrace", &[], &["true"])
}

#[test]
fn images() {
    let dir = tempfile::tempdir().unwrap();
    let image = common::small_image(dir.path());
    assert!(told(&run_image(Path::new("/nonexistent/image")), 110).contains("nanovisor image build"));
    assert!(told(&run_image(dir.path()), 110).contains("--root"));
    let cut = dir.path().join("cut");
    fs::write(&cut, &fs::read(&image).unwrap()[..4096]).unwrap();
    assert!(told(&run_image(&cut), 111).contains("truncated"));
    fs::write(&cut, "").unwrap();
    told(&run_image(&cut), 111);
    fs::write(&cut, vec![0; 8192]).unwrap();
    assert!(told(&run_image(&cut), 111).contains("not an EROFS image"));
    fs::set_permissions(&cut, fs::Permissions::from_mode(0o000)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        told(&run_image(&cut), 110);
    }
}

/// Programs that cannot be run, with the status and a part of the line.
const PROGRAMS: &[(&str, i32, &str)] = &[
    ("/bin/missing", 127, "/bin/missing: not found in the image"),
    ("missing", 127, "missing: not found"),
    ("/bin/plain", 126, "/bin/plain: not executable"),
    ("/bin", 126, "/bin: not executable"),
    ("/bin/arm", 120, "/bin/arm: not a program for x86-64"),
    ("/bin/i386", 120, "/bin/i386: not a program for x86-64"),
    ("/bin/cut", 120, "/bin/cut: not a program"),
    ("/bin/empty", 120, "/bin/empty: not a program"),
    ("/bin/script", 121, "interpreter /no/such is missing"),
    ("/bin/dynamic", 121, "interpreter (dynamic loader) is missing"),
    ("/bin/loop", 111, "/bin/loop: "),
    ("/etc/passwd/x", 127, "/etc/passwd/x: "),
];

fn programs(dir: &Path) -> PathBuf {
    let root = busybox_root(dir);
    let elf = fs::read("/bin/busybox").unwrap();
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = root.join("bin").join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let patched = |at: usize, value: u8| {
        let mut elf = elf.clone();
        elf[at] = value;
        elf
    };
    file("plain", &elf, 0o644);
    file("arm", &patched(18, 183), 0o755);
    file("i386", &patched(18, 3), 0o755);
    file("cut", &elf[..100], 0o755);
    file("empty", b"", 0o755);
    file("script", b"#!/no/such -x\n", 0o755);
    file("dynamic", &fs::read("/bin/ls").unwrap(), 0o755);
    symlink("loop", root.join("bin/loop")).unwrap();
    image_of(&root)
}

#[test]
fn programs_that_cannot_run() {
    let dir = tempfile::tempdir().unwrap();
    let image = programs(dir.path());
    for platform in platforms() {
        for &(program, status, part) in PROGRAMS {
            let text = told(&run_in(&image, platform, &[], &[program]), status);
            assert!(text.contains(part), "{program}: {text}");
        }
        assert!(told(&run_in(&image, platform, &["--user", "bob"], &["true"]), 122).contains("user bob"));
        assert!(told(&run_in(&image, platform, &["--user", "0:crew"], &["true"]), 122).contains("group crew"));
        assert!(told(&run_in(&image, platform, &["--cwd", "/none"], &["true"]), 122).contains("/none"));
        assert!(told(&run_in(&image, platform, &["--cwd", "/etc/passwd"], &["true"]), 122).contains("/etc/passwd"));
    }
}

/// Makes the directory /a/b of `image` be /a itself.
fn close_the_loop(image: &Path) {
    let mut bytes = fs::read(image).unwrap();
    // The names of /a's block lie behind its three entries of 12 bytes, each of which starts with its inode's number.
    let names = bytes.windows(4).position(|w| w == b"...b").unwrap();
    let (own, child) = (names - 36, names - 12);
    bytes.copy_within(own..own + 8, child);
    fs::write(image, bytes).unwrap();
}

#[test]
fn a_looping_image_ends() {
    let dir = tempfile::tempdir().unwrap();
    let root = busybox_root(dir.path());
    fs::create_dir_all(root.join("a/b")).unwrap();
    let image = image_of(&root);
    close_the_loop(&image);
    told(&output_in_time(nanovisor().args(["image", "verify"]).arg(&image)), 111);
    let list = output_in_time(nanovisor().args(["image", "ls", "-R"]).arg(&image));
    assert!(list.status.code().is_some_and(|status| status == 0 || status == 111));
    for platform in platforms() {
        // Where nobody walks in circles, nobody is hurt.
        assert!(run_in(&image, platform, &[], &["true"]).status.success());
        let found = run_in(&image, platform, &[], &["sh", "-c", "cd /a/b/b/b/b && pwd && ls"]);
        assert!(found.status.code().is_some(), "{platform}");
    }
}

#[test]
fn flags() {
    let none = output_in_time(nanovisor().args(["do", "--", "true"]));
    assert!(told(&none, 2).contains("--image"));
    let volume = output_in_time(nanovisor().args(["do", "--image", "x", "--volume", "/a:b", "true"]));
    assert!(told(&volume, 2).contains("no host path, or no absolute guest path"));
    let root = output_in_time(nanovisor().args(["do", "--root", "/nonexistent", "true"]));
    assert!(told(&root, 110).contains("/nonexistent"));
    let log = output_in_time(nanovisor().args(["--log", "/nonexistent/log", "platforms"]));
    assert!(told(&log, 125).contains("/nonexistent/log"));
    let usage: [&[&str]; 3] = [&["do", "--memory", "1", "true"], &[], &["nonsense"]];
    for args in usage {
        let output = output_in_time(nanovisor().args(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["do", "--help"], &["image", "build", "--help"], &["--version"]] {
        let output = output_in_time(nanovisor().args(args));
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn building() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let missing = output_in_time(nanovisor().args(["image", "build", "/nonexistent"]).arg(&out));
    told(&missing, 112);
    let packed = dir.path().join("a.tar.gz");
    fs::write(&packed, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    let gz = output_in_time(nanovisor().args(["image", "build"]).arg(&packed).arg(&out));
    assert!(told(&gz, 112).contains("gzip -dc"));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "out"), "{left:?}");
}

/// A small file system that is taken away again.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount(dir: &Path) -> Option<SmallDisk> {
        let small = dir.join("disk");
        fs::create_dir(&small).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).status();
        mounted.is_ok_and(|s| s.success()).then_some(SmallDisk(small))
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped: a small disk needs root");
        return;
    };
    let root = busybox_root(dir.path());
    let output = output_in_time(nanovisor().args(["image", "build"]).arg(&root).arg(disk.0.join("out")));
    assert!(told(&output, 113).contains("no space left"));
    assert_eq!(disk.files(), 0);
    let mut command = nanovisor();
    command.env("XDG_CACHE_HOME", &disk.0).args(["do", "--platform", "ptrace", "--root"]).arg(&root);
    assert!(told(&output_in_time(command.args(["--", "true"])), 113).contains("no space left"));
    let images = fs::read_dir(disk.0.join("nanovisor/images")).map_or(0, |dir| {
        dir.filter(|e| e.as_ref().unwrap().path().extension().is_none_or(|ext| ext != "lock")).count()
    });
    assert_eq!(images, 0);
}

/// `nanovisor do` behind another program's arguments.
fn behind(wrapper: &[&str], image: &Path, platform: &str) -> Output {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(nanovisor().get_program());
    command.args(["do", "--platform", platform, "--no-tty", "--image"]).arg(image).args(["--", "true"]);
    output_in_time(&mut command)
}

#[test]
fn descriptor_limits() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        let mut worked = false;
        // Wherever the limit strikes, in the command or in the sandbox process, it is told; from some number on it works.
        for limit in (5..=40).step_by(if platform == "kvm" { 3 } else { 1 }) {
            let output = behind(&["prlimit", &format!("--nofile={limit}:{limit}"), "--"], &image, platform);
            if output.status.success() {
                worked = true;
                continue;
            }
            assert!(!worked, "{platform}: {limit} descriptors do not suffice, but fewer did");
            assert!(told(&output, 116).contains("ulimit -n"), "{platform} with {limit}");
        }
        assert!(worked, "{platform}");
    }
}

#[test]
fn memory_limits() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for megabytes in [64u64, 512, 4096] {
        let output = behind(&["prlimit", &format!("--as={}", megabytes << 20), "--"], &image, "ptrace");
        if !output.status.success() {
            assert!(told(&output, 116).contains("memory"));
        }
    }
}

#[test]
fn no_kvm_device() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: hiding /dev/kvm needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    let hidden = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let without = |platform| behind(&["unshare", "--mount", "sh", "-c", hidden, "sh"], &image, platform);
    let text = told(&without("kvm"), 114);
    assert!(text.contains("/dev/kvm is missing") && text.contains("--platform ptrace"), "{text}");
    assert!(without("ptrace").status.success());
    assert!(without("auto").status.success());
    let wrong = "mount --bind /dev/null /dev/kvm && exec \"$@\"";
    if Path::new("/dev/kvm").exists() {
        let text = told(&behind(&["unshare", "--mount", "sh", "-c", wrong, "sh"], &image, "kvm"), 114);
        assert!(text.contains("not /dev/kvm"), "{text}");
    }
}

/// A directory that any user may read, with a copy of the command.
fn for_everybody() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("nanovisor");
    fs::copy(nanovisor().get_program(), &copy).unwrap();
    (dir, copy)
}

#[test]
fn ordinary_users() {
    if !nix::unistd::geteuid().is_root() {
        return; // All the other tests ran as one.
    }
    let (dir, copy) = for_everybody();
    let image = busybox_image(dir.path());
    let run = |setup: &str, platform: &str| {
        let script = format!("{setup} exec setpriv --reuid=4242 --regid=4242 --clear-groups \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(&copy).args(["do", "--platform", platform, "--image"]).arg(&image);
        output_in_time(command.args(["--", "/bin/sh", "-c", "id -u; cat /etc/hostname"]))
    };
    let output = run("", "ptrace");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\nnanovisor\n", "{output:?}");
    // auto needs no /dev/kvm, and no home to keep its measurement in.
    assert!(run("HOME=/nonexistent;", "auto").status.success());
    let kvm_is_open = fs::metadata("/dev/kvm").is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006);
    if Path::new("/dev/kvm").exists() && !kvm_is_open {
        assert!(told(&run("", "kvm"), 114).contains("join the group kvm"));
    }
}

#[test]
fn no_user_namespaces() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: forbidding user namespaces needs root");
        return;
    }
    let (dir, copy) = for_everybody();
    let image = busybox_image(dir.path());
    // In a user namespace of our own the limit can be set for us alone.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(&copy);
    command.args(["do", "--platform", "ptrace", "--image"]).arg(&image).args(["--", "true"]);
    let text = told(&output_in_time(&mut command), 115);
    assert!(text.contains("user namespace") && text.contains("max_user_namespaces"), "{text}");
}

#[test]
fn the_log_is_json_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = nanovisor();
    command.args(["do", "--image", "/nonexistent", "--log-format", "json", "--log"]).arg(&log).arg("true");
    told(&output_in_time(&mut command), 110);
    let line = fs::read_to_string(&log).unwrap();
    let object: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(object["level"], "error");
    assert!(object["msg"].as_str().unwrap().contains("/nonexistent"));
    assert!(object["time"].is_string());
}

#[test]
fn nobody_starts_the_sandbox_process_by_hand() {
    let output = output_in_time(nanovisor().arg0("nanovisor-sandbox"));
    assert_eq!(output.status.code(), Some(2));
}

fn sleeping(image: &Path, platform: &str) -> (Child, u32) {
    let mut command = nanovisor();
    command.args(["do", "--platform", platform, "--no-tty", "--image"]).arg(image);
    let child = command.args(["--", "sleep", "60"]).stderr(Stdio::piped()).spawn().unwrap();
    let sandbox = loop {
        if let [sandbox] = children(child.id())[..] {
            break sandbox;
        }
        std::thread::yield_now();
    };
    (child, sandbox)
}

#[test]
fn a_killed_sandbox_process_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        let (child, sandbox) = sleeping(&image, platform);
        kill(Pid::from_raw(i32::try_from(sandbox).unwrap()), Signal::SIGKILL).unwrap();
        // Killed before or after it was configured: either way it died, and is told once.
        let text = told(&finish(child, "a killed sandbox process"), 117);
        assert!(text.contains("sandbox process"), "{text}");
        assert!(!Path::new(&format!("/proc/{sandbox}")).exists());
    }
}
