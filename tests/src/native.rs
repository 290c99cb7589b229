//! Native runs: the same root file system, environment, identity and host name as the guest sees, on Linux itself.
//!
//! The test program executes itself as `--native ROOT CWD -- COMMAND`. That process makes namespaces of its own, puts a
//! writable layer over ROOT, as the sandbox does, and runs the command in it. Process 1 is a small init: unlike Linux's
//! first process of a namespace, a sandbox's can be killed by its own signals, and so can the command here.

// fork(2), in a process of one thread.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, chroot, execve, fork, sethostname, setsid};

use crate::output::Output;
use crate::supervise;

/// First argument of the role.
pub const ROLE: &str = "--native";
/// The host name on both sides.
pub const HOSTNAME: &str = "nanovisor";
/// What `nanovisor do` gives a program as its environment.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOSTNAME", HOSTNAME),
    ("HOME", "/root"),
];

/// Runs `command` in `root`, natively.
///
/// # Errors
/// The run could not be set up.
pub fn run(root: &Path, command: &[String], limit: Duration) -> Result<Output, String> {
    run_with(root, command, Stdio::null(), limit)
}

/// The same with standard input.
///
/// # Errors
/// The run could not be set up.
pub fn run_with(root: &Path, command: &[String], input: Stdio, limit: Duration) -> Result<Output, String> {
    supervise::run(&self::command(root, command)?, input, limit)
}

/// The command line of a native run.
///
/// # Errors
/// The test program does not know its own path.
pub fn command<S: AsRef<OsStr>>(root: &Path, command: &[S]) -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let mut native = Command::new(me);
    native.arg(ROLE).arg(root).arg("/tmp").arg("--").args(command);
    Ok(native)
}

/// Takes back the default actions of the signals that a background job of a shell without job control starts with
/// ignoring, as every program started from here would then.
pub fn take_signals() {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        let _ = unsafe { signal::signal(signal, signal::SigHandler::SigDfl) };
    }
}

/// The role's main function. `args` are those after [`ROLE`].
#[must_use]
pub fn main(args: &[OsString]) -> i32 {
    let [root, cwd, _, command @ ..] = args else {
        eprintln!("{ROLE} ROOT CWD -- COMMAND");
        return 125;
    };
    match isolate(Path::new(root), Path::new(cwd), command) {
        Ok(status) => status,
        Err(e) => {
            eprintln!("native run: {e}");
            125
        }
    }
}

fn told<T>(doing: &str, result: nix::Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{doing}: {e}"))
}

fn isolate(root: &Path, cwd: &Path, command: &[OsString]) -> Result<i32, String> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    told("unshare (native runs need root)", unshare(flags))?;
    // SAFETY: this process has one thread.
    match told("fork", unsafe { fork() })? {
        ForkResult::Parent { child } => Ok(wait_for(child)),
        ForkResult::Child => std::process::exit(match init(root, cwd, command) {
            Ok(status) => status,
            Err(e) => {
                eprintln!("native run: {e}");
                125
            }
        }),
    }
}

/// Process 1: makes the root, runs the command, and reaps.
fn init(root: &Path, cwd: &Path, command: &[OsString]) -> Result<i32, String> {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    umask(Mode::empty());
    let new = layers(root)?;
    devices(&new.join("dev"))?;
    let none = None::<&str>;
    told("mount proc", mount(Some("proc"), &new.join("proc"), Some("proc"), MsFlags::empty(), none))?;
    told("mount sysfs", mount(Some("sysfs"), &new.join("sys"), Some("sysfs"), MsFlags::MS_RDONLY, none))?;
    told("host name", sethostname(HOSTNAME))?;
    told("chroot", chroot(&new))?;
    told("chdir", chdir(cwd))?;
    umask(Mode::from_bits_truncate(0o022));
    // SAFETY: this process has one thread.
    match told("fork", unsafe { fork() })? {
        ForkResult::Parent { child } => Ok(wait_for(child)),
        ForkResult::Child => {
            let _ = setsid();
            take_terminal();
            let Some((program, rest)) = command.split_first() else { std::process::exit(125) };
            std::process::exit(execute(program, rest))
        }
    }
}

/// The terminal on standard input, if it is one, becomes the new session's.
fn take_terminal() {
    const STEAL: libc::c_int = 1;
    if nix::unistd::isatty(std::io::stdin()) == Ok(true) {
        // SAFETY: TIOCSCTTY takes a number.
        unsafe { libc::ioctl(0, libc::TIOCSCTTY, STEAL) };
    }
}

/// Becomes the program. Not by `std::process::Command`, which sorts the environment.
fn execute(program: &OsStr, rest: &[OsString]) -> i32 {
    let string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    let args: Vec<CString> =
        std::iter::once(program).chain(rest.iter().map(OsString::as_os_str)).map(|a| string(a.as_bytes())).collect();
    let env: Vec<CString> = ENVIRONMENT.iter().map(|(k, v)| string(format!("{k}={v}").as_bytes())).collect();
    let candidates: Vec<CString> = if program.as_bytes().contains(&b'/') {
        vec![string(program.as_bytes())]
    } else {
        let dirs = ENVIRONMENT[0].1.split(':');
        dirs.map(|d| string(Path::new(d).join(program).as_os_str().as_bytes())).collect()
    };
    // SAFETY: no handler is installed. Rust's runtime ignores SIGPIPE; programs start with the default.
    let _ = unsafe { signal::signal(Signal::SIGPIPE, signal::SigHandler::SigDfl) };
    let mut errno = nix::errno::Errno::ENOENT;
    for path in candidates {
        errno = match execve(&path, &args, &env) {
            Err(e) => e,
            Ok(never) => match never {},
        };
        if errno != nix::errno::Errno::ENOENT {
            break;
        }
    }
    eprintln!("{}: {errno}", program.display());
    127
}

/// A writable layer in memory over `root`.
fn layers(root: &Path) -> Result<PathBuf, String> {
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    told("make mounts private", mount(none, "/", none, private, none))?;
    // Anywhere that exists will do: the mount is this namespace's alone.
    let base = PathBuf::from("/tmp");
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    let lower = nix::fcntl::open(&root, nix::fcntl::OFlag::O_PATH, Mode::empty());
    let lower = told("open the root", lower)?;
    told("mount tmpfs", mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), none))?;
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(base.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let through = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&lower)));
    told("bind the root", mount(Some(&through), &base.join("lower"), none, MsFlags::MS_BIND, none))?;
    let options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    told(
        "mount overlay",
        mount(Some("overlay"), &base.join("root"), Some("overlay"), MsFlags::empty(), Some(options)),
    )?;
    Ok(base.join("root"))
}

fn devices(dev: &Path) -> Result<(), String> {
    let none = None::<&str>;
    told("mount /dev", mount(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::empty(), Some("mode=755")))?;
    let mode = Mode::from_bits_truncate(0o666);
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        told(name, mknod(&dev.join(name), SFlag::S_IFCHR, mode, makedev(1, minor)))?;
    }
    told("tty", mknod(&dev.join("tty"), SFlag::S_IFCHR, mode, makedev(5, 0)))?;
    for name in ["pts", "shm"] {
        fs::create_dir(dev.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let pts = Some("newinstance,ptmxmode=0666,mode=620,gid=5");
    told("mount /dev/pts", mount(Some("devpts"), &dev.join("pts"), Some("devpts"), MsFlags::empty(), pts))?;
    told("mount /dev/shm", mount(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), MsFlags::empty(), none))?;
    for (name, to) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(to, dev.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => return status,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 125,
        }
    }
}
