//! Runs one command with a limit of time, and sees what it leaves behind.
//!
//! The test program executes itself as `--supervise RESULT SECONDS -- COMMAND`: a process of its own is the subreaper of
//! whatever the command starts, so that a hang is ended completely, and processes that outlive the command are found
//! even when tests run side by side.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::output::{Ending, Output};

/// First argument of the supervisor's role.
pub const ROLE: &str = "--supervise";
/// How long what a command leaves may take to go away by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Runs `command` under a supervisor. `input` is its standard input.
///
/// # Errors
/// The supervisor could not be run or gave no result.
pub fn run(command: &Command, input: Stdio, limit: Duration) -> Result<Output, String> {
    let dir = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let result = dir.path().join("result");
    let mut outer = wrap(command, &result, limit)?;
    let output = outer.stdin(input).output().map_err(|e| format!("starting the supervisor: {e}"))?;
    finish(output.stdout, output.stderr, &result)
}

/// The command line that runs `command` supervised; `finish` reads its result.
///
/// # Errors
/// The test program does not know its own path.
pub fn wrap(command: &Command, result: &Path, limit: Duration) -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let mut outer = Command::new(me);
    outer.arg(ROLE).arg(result).arg(limit.as_secs().to_string()).arg("--");
    outer.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir);
    }
    Ok(outer)
}

/// Puts streams and the supervisor's result together.
///
/// # Errors
/// The supervisor left no result.
pub fn finish(stdout: Vec<u8>, stderr: Vec<u8>, result: &Path) -> Result<Output, String> {
    let text = std::fs::read(result)
        .map_err(|e| format!("the supervisor left no result: {e}\n{}", crate::output::tail(&stderr)))?;
    let ending: Ending = serde_json::from_slice(&text).map_err(|e| format!("the supervisor's result: {e}"))?;
    Ok(Output { stdout, stderr, ending })
}

/// The supervisor's main function. `args` are those after [`ROLE`].
#[must_use]
pub fn main(args: &[OsString]) -> i32 {
    let [result, seconds, _, program, rest @ ..] = args else {
        eprintln!("{ROLE} RESULT SECONDS -- COMMAND");
        return 125;
    };
    let limit = seconds.to_str().and_then(|s| s.parse().ok()).map_or(GRACE, Duration::from_secs);
    let _ = prctl::set_child_subreaper(true);
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let ending = match Command::new(program).args(rest).spawn() {
        Ok(child) => watch(Pid::from_raw(child.id().cast_signed()), limit),
        Err(e) => {
            eprintln!("{}: {e}", program.display());
            Ending { status: 127, ..Ending::default() }
        }
    };
    let text = serde_json::to_vec(&ending).unwrap_or_default();
    match std::fs::write(result, text) {
        Ok(()) => 0,
        Err(_) => 125,
    }
}

/// Replaces this process by `command`, for roles that end in an exec.
pub fn exec(mut command: Command) -> i32 {
    let error = command.exec();
    eprintln!("{}: {error}", command.get_program().display());
    127
}

fn watch(child: Pid, limit: Duration) -> Ending {
    let (done, over) = mpsc::channel::<()>();
    let alarm = std::thread::spawn(move || {
        let timed_out = over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        timed_out.then(|| {
            let doing = describe_all();
            let _ = kill(child, Signal::SIGKILL);
            doing
        })
    });
    let mut ending = Ending::default();
    // Orphans that end meanwhile are reaped on the way.
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => {
                ending.status = status;
                break;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                ending.status = 128 + signal as i32;
                ending.signal = Some(signal as i32);
                break;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    drop(done);
    ending.hung = alarm.join().ok().flatten();
    ending.left = sweep(GRACE);
    ending
}

/// Waits for what is left to go, and ends what does not. Returns the lines of those that did not.
fn sweep(grace: Duration) -> Vec<String> {
    let until = Instant::now() + grace;
    let mut left = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return left,
            Ok(WaitStatus::StillAlive) if Instant::now() < until => pause(),
            Ok(WaitStatus::StillAlive) => {
                for pid in descendants() {
                    if left.len() < 20 {
                        left.push(describe(pid));
                    }
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                pause();
            }
            _ => {}
        }
    }
}

/// A pause between two looks at processes, which give no event to wait for.
fn pause() {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(20));
}

/// All processes below this one.
fn descendants() -> Vec<i32> {
    let mut found = Vec::new();
    let mut look = vec![std::process::id().cast_signed()];
    while let Some(pid) = look.pop() {
        for child in children(pid) {
            found.push(child);
            look.push(child);
        }
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

fn describe_all() -> String {
    descendants().into_iter().take(40).map(|pid| format!("  {}\n", describe(pid))).collect()
}

/// `PID NAME STATE CPU-TIME: where each thread waits`.
fn describe(pid: i32) -> String {
    let read = |path: String| {
        let mut text = String::new();
        let _ = std::fs::File::open(path).map(|mut f| f.read_to_string(&mut text));
        text.trim_end().to_owned()
    };
    let stat = read(format!("/proc/{pid}/stat"));
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let field = |n: usize| after.split(' ').nth(n).unwrap_or("?");
    let command = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
    let mut threads = Vec::new();
    if let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        for task in tasks.flatten().take(16) {
            let at = |name: &str| read(task.path().join(name).display().to_string());
            threads.push(format!("{}:{}", at("comm"), at("wchan")));
        }
    }
    format!(
        "{pid} [{}] state {} utime {} stime {} threads {}",
        command.chars().take(80).collect::<String>(),
        field(0),
        field(11),
        field(12),
        threads.join(" ")
    )
}
