//! `exec`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use serde_json::{Value, json};

use super::{Context, console, hold, preserved, write_pid};
use crate::cli::oci::ExecArgs;
use crate::control::client::Connection;
use crate::failure::{Failure, Result};
use crate::oci::{process, spec};
use crate::sandbox::describe::ProcessConfig;
use crate::sandbox::streams::Streams;
use crate::state::{Record, Status};

/// A process about to be executed.
pub struct Wanted {
    /// What it is.
    pub process: ProcessConfig,
    /// Its streams.
    pub streams: Streams,
    /// Descriptors besides.
    pub preserved: Vec<OwnedFd>,
}

impl Wanted {
    /// All descriptors in the order of the message.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.streams.fds.iter().map(|(_, fd)| fd.as_fd()).chain(self.preserved.iter().map(AsFd::as_fd)).collect()
    }
}

/// `nanovisor exec`: the program's exit status, 0 where it is left behind.
///
/// # Errors
/// The container does not run; the program cannot be run.
pub fn exec(cx: &Context, args: &ExecArgs) -> Result<u8> {
    let record = cx.store.look(&args.id)?;
    check(record.status(), args.ignore_paused)?;
    let described = process(args, &record)?;
    let mut config = process::describe(&described, &record.spec)?;
    console::check(config.console.is_some(), args.detach, args.console_socket.as_deref())?;
    let directory = cx.store.socket_directory(&record)?;
    let connection = Connection::open(directory.as_fd(), &record.inside)?;
    let streams = match (&args.console_socket, config.console) {
        (Some(socket), Some(size)) => console::open(socket, size)?,
        (_, console) => Streams::of_caller(console.is_some())?,
    };
    let preserved = preserved(args.preserve_fds)?;
    config.preserved = u32::try_from(preserved.len()).unwrap_or(0);
    config.console = streams.console;
    let wanted = Wanted { process: config, streams, preserved };
    if args.detach {
        let pid = hold::detached(connection, wanted, cx.log.as_fd())?;
        return write_pid(args.pid_file.as_deref(), pid).map(|()| 0);
    }
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    write_pid(args.pid_file.as_deref(), pid)?;
    hold::attached(connection, wanted)
}

/// Refuses where nothing can be executed.
///
/// # Errors
/// It does not run, or is paused.
pub fn check(status: Status, ignore_paused: bool) -> Result<()> {
    match status {
        Status::Stopped | Status::Creating => Err(Failure::runtime("cannot exec in a stopped container")),
        Status::Paused if !ignore_paused => {
            Err(Failure::runtime("cannot exec in a paused container (use --ignore-paused to override)"))
        }
        _ => Ok(()),
    }
}

/// The process: a file's, or the container's own with what the flags say.
fn process(args: &ExecArgs, record: &Record) -> Result<Process> {
    if let Some(path) = &args.process {
        return read(path);
    }
    if args.command.is_empty() {
        return Err(Failure::runtime("process args cannot be empty"));
    }
    let failed = |e: serde_json::Error| Failure::runtime(e.to_string());
    let base = record.spec.process().as_ref().ok_or_else(|| Failure::runtime("the container has no process"))?;
    let mut value = serde_json::to_value(base).map_err(failed)?;
    apply(&mut value, args)?;
    serde_json::from_value(value).map_err(failed)
}

fn read(path: &Path) -> Result<Process> {
    let text = std::fs::read(path).map_err(|e| Failure::runtime(format!("--process {}: {e}", path.display())))?;
    spec::parse(&format!("--process {}", path.display()), &text)
}

fn apply(value: &mut Value, args: &ExecArgs) -> Result<()> {
    value["args"] = json!(args.command);
    value["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        value["cwd"] = json!(cwd);
    }
    if args.no_new_privs {
        value["noNewPrivileges"] = json!(true);
    }
    if let Some(user) = &args.user {
        let (uid, gid) = numbers(user)?;
        value["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            value["user"]["gid"] = json!(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        value["user"]["additionalGids"] = json!(args.additional_gids);
    }
    for assignment in &args.env {
        if let Some(env) = value.as_object_mut().map(|map| map.entry("env").or_insert_with(|| json!([])))
            && let Some(list) = env.as_array_mut()
        {
            list.push(json!(assignment));
        }
    }
    for cap in &args.cap {
        add_capability(value, cap)?;
    }
    Ok(())
}

/// As runc: into every set but the ambient one, which would outlive a change of user.
fn add_capability(value: &mut Value, name: &str) -> Result<()> {
    let number =
        process::capability(name).ok_or_else(|| Failure::runtime(format!("--cap {name}: no such capability")))?;
    let Some(full) = process::CAPABILITIES.get(number as usize) else { return Ok(()) };
    for set in ["bounding", "effective", "permitted"] {
        let mut list = value["capabilities"][set].as_array().cloned().unwrap_or_default();
        if !list.iter().any(|known| known == full) {
            list.push(json!(full));
        }
        value["capabilities"][set] = json!(list);
    }
    Ok(())
}

fn numbers(user: &str) -> Result<(u32, Option<u32>)> {
    let bad = || Failure::runtime(format!("--user {user}: not of the form UID[:GID]"));
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let gid = gid.map(|gid| gid.parse().map_err(|_| bad())).transpose()?;
    Ok((uid.parse().map_err(|_| bad())?, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(args: ExecArgs) -> Result<Value> {
        let mut value =
            json!({ "cwd": "/", "args": ["init"], "user": { "uid": 0, "gid": 5 }, "env": ["A=1"], "terminal": true });
        apply(&mut value, &args).map(|()| value)
    }

    #[test]
    fn flags_change_the_container_s_process() {
        let value = applied(ExecArgs {
            command: vec!["ls".into()],
            user: Some("7".into()),
            env: vec!["B=2".into()],
            cap: vec!["kill".into()],
            cwd: Some("/tmp".into()),
            ..ExecArgs::default()
        })
        .unwrap();
        assert_eq!((&value["args"], &value["terminal"]), (&json!(["ls"]), &json!(false)));
        assert_eq!(
            (&value["user"]["uid"], &value["user"]["gid"], &value["cwd"]),
            (&json!(7), &json!(5), &json!("/tmp"))
        );
        assert_eq!(value["env"], json!(["A=1", "B=2"]));
        assert_eq!(value["capabilities"]["effective"], json!(["CAP_KILL"]));
    }

    #[test]
    fn wrong_flags_are_refused() {
        assert!(applied(ExecArgs { user: Some("root".into()), ..ExecArgs::default() }).is_err());
        assert!(applied(ExecArgs { cap: vec!["x".into()], ..ExecArgs::default() }).is_err());
    }
}
