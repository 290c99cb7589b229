//! `hooks`: programs of the host that run at six moments of a container's life, with its state on standard input.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks, Spec};

use crate::failure::{Failure, Result};
use crate::oci::refused;
use crate::state::{Record, Status};

/// Most of what a failed hook printed that is told.
const MAX_WORDS: u64 = 4096;
/// How long a hook's output is waited for after its end: somebody it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The six kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deprecated, as `createRuntime`.
    Prestart,
    /// In `create`, on the host.
    CreateRuntime,
    /// In `create`; there is no namespace of the container on the host, so it runs there as well.
    CreateContainer,
    /// In `start`, before the program.
    StartContainer,
    /// In `start`, when the program runs. Failures are warnings.
    Poststart,
    /// In `delete`. Failures are warnings.
    Poststop,
}

impl Kind {
    /// All, by their names in config.json.
    pub const ALL: [(Kind, &str); 6] = [
        (Kind::Prestart, "prestart"),
        (Kind::CreateRuntime, "createRuntime"),
        (Kind::CreateContainer, "createContainer"),
        (Kind::StartContainer, "startContainer"),
        (Kind::Poststart, "poststart"),
        (Kind::Poststop, "poststop"),
    ];

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            Kind::Prestart => hooks.prestart(),
            Kind::CreateRuntime => hooks.create_runtime(),
            Kind::CreateContainer => hooks.create_container(),
            Kind::StartContainer => hooks.start_container(),
            Kind::Poststart => hooks.poststart(),
            Kind::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Refuses hooks that can never run.
///
/// # Errors
/// A relative path; a timeout that is none.
pub fn check(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    for (kind, name) in Kind::ALL {
        for (n, hook) in kind.of(hooks).iter().enumerate() {
            if !hook.path().is_absolute() {
                return Err(refused(&format!("hooks.{name}[{n}].path"), "must be absolute"));
            }
            if hook.timeout().is_some_and(|t| t <= 0) {
                return Err(refused(&format!("hooks.{name}[{n}].timeout"), "must be greater than zero"));
            }
        }
    }
    Ok(())
}

/// Runs the hooks of one kind, in their order. The first that fails ends it.
///
/// # Errors
/// A hook that cannot be run, fails, or takes longer than its timeout.
pub fn run(kind: Kind, record: &Record, status: Status) -> Result<()> {
    let Some(hooks) = record.spec.hooks() else { return Ok(()) };
    for (n, hook) in kind.of(hooks).iter().enumerate() {
        let state = record.oci_state(status).to_string();
        one(hook, &state, &record.bundle).map_err(|why| {
            Failure::runtime(format!("error running {} hook #{n} ({}): {why}", kind.name(), hook.path().display()))
        })?;
    }
    Ok(())
}

/// [`run`] where failures are warnings, and the next hook still runs.
pub fn run_all_the_same(kind: Kind, record: &Record, status: Status) {
    let Some(hooks) = record.spec.hooks() else { return };
    for hook in kind.of(hooks) {
        let state = record.oci_state(status).to_string();
        if let Err(why) = one(hook, &state, &record.bundle) {
            log::warn!("{} hook {}: {why}", kind.name(), hook.path().display());
        }
    }
}

fn one(hook: &Hook, state: &str, bundle: &Path) -> std::result::Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(rest);
    }
    // Without `env` it is empty; nothing of ours goes in.
    let env = hook.env().as_deref().unwrap_or_default();
    command.env_clear().envs(env.iter().filter_map(|word| word.split_once('=')));
    command.current_dir(bundle).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let words = listen(&mut child);
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let limit = hook.timeout().and_then(|t| u64::try_from(t).ok()).map(Duration::from_secs);
    let status = wait(child, limit)?;
    if status.success() {
        return Ok(());
    }
    let said: Vec<String> =
        words.iter().filter_map(|w| w.recv_timeout(LAST_WORDS).ok()).filter(|w| !w.is_empty()).collect();
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {}", said.join("; ")) })
}

/// Collects what the hook prints, so that it never waits for a reader.
fn listen(child: &mut Child) -> Vec<mpsc::Receiver<String>> {
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stderr.take().map(|s| Box::new(s) as Box<_>), child.stdout.take().map(|s| Box::new(s) as Box<_>)];
    let hear = |mut stream: Box<dyn Read + Send>| {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.by_ref().take(MAX_WORDS).read_to_end(&mut text);
            let _ = sender.send(String::from_utf8_lossy(&text).trim().to_owned());
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        receiver
    };
    streams.into_iter().flatten().map(hear).collect()
}

fn wait(mut child: Child, limit: Option<Duration>) -> std::result::Result<std::process::ExitStatus, String> {
    use nix::sys::signal::{Signal, kill};
    let Some(limit) = limit else { return child.wait().map_err(|e| e.to_string()) };
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    match receiver.recv_timeout(limit) {
        Ok(status) => status.map_err(|e| e.to_string()),
        Err(_) => {
            // Not reaped yet: the thread that would reap it answers below, so the pid is still its.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = receiver.recv_timeout(LAST_WORDS);
            Err(format!("hook timed out after {} s", limit.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::Bundle;

    fn record(hooks: serde_json::Value) -> Record {
        let spec = serde_json::json!({ "ociVersion": "1.0.2", "hooks": hooks });
        let spec = serde_json::from_value(spec).unwrap();
        Record::new("x", &Bundle { dir: "/tmp".into(), root: "/tmp".into(), spec })
    }

    fn shell(script: &str, timeout: Option<u64>) -> serde_json::Value {
        serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["WORD=w"], "timeout": timeout })
    }

    #[test]
    fn a_hook_gets_the_state_and_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat >{}; echo \" $WORD$HOME\" >>{}", out.display(), out.display());
        run(Kind::Prestart, &record(serde_json::json!({ "prestart": [shell(&script, None)] })), Status::Created)
            .unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert!(text.contains("\"status\":\"created\"") && text.ends_with(" w\n"), "{text}");
    }

    #[test]
    fn a_failure_is_told_with_its_words() {
        let record = record(serde_json::json!({ "createRuntime": [shell("echo why >&2; exit 3", Some(9))] }));
        let error = run(Kind::CreateRuntime, &record, Status::Creating).unwrap_err();
        assert!(
            error.message.contains("createRuntime hook #0") && error.message.ends_with("exit status: 3: why"),
            "{error}"
        );
        run_all_the_same(Kind::CreateRuntime, &record, Status::Creating);
    }

    #[test]
    fn a_hook_that_hangs_is_killed() {
        let record = record(serde_json::json!({ "poststop": [shell("exec sleep 100", Some(1))] }));
        let error = run(Kind::Poststop, &record, Status::Stopped).unwrap_err();
        assert!(error.message.contains("timed out after 1 s"), "{error}");
    }

    #[test]
    fn hooks_that_cannot_run_are_named() {
        let bad = record(serde_json::json!({ "poststop": [{ "path": "relative" }] }));
        assert!(check(&bad.spec).unwrap_err().message.contains("hooks.poststop[0].path"));
        let bad = record(serde_json::json!({ "poststop": [{ "path": "/x", "timeout": 0 }] }));
        assert!(check(&bad.spec).unwrap_err().message.contains("hooks.poststop[0].timeout"));
    }
}
