//! `kill`.

use std::os::fd::AsFd;

use hostsys::process::Handle;
use nix::sys::signal::Signal;

use super::Context;
use crate::cli::oci::KillArgs;
use crate::control::client::{Connection, PATIENCE};
use crate::control::protocol::{Request, Target};
use crate::failure::{Failure, Result};
use crate::state::{Record, Status};

/// The last real-time signal.
const LAST: i32 = 64;

/// `nanovisor kill`.
///
/// # Errors
/// No such container, or it has ended; no such signal.
pub fn kill(cx: &Context, args: &KillArgs) -> Result<()> {
    let signo = signal(&args.signal)?;
    let record = cx.store.look(&args.id)?;
    match record.status() {
        Status::Stopped => return Err(Failure::runtime("container not running")),
        Status::Creating => return Err(Failure::runtime("container not running: it is in the making")),
        _ => {}
    }
    if signo == libc::SIGKILL && !args.all {
        return kill_whole(cx, &record);
    }
    let target = if args.all { Target::All } else { Target::Init };
    let directory = cx.store.socket_directory(&record)?;
    let mut connection = Connection::open(directory.as_fd(), &record.inside)?;
    let request = Request::Signal { target, signo };
    if record.paused {
        // It is held, and cannot answer; it finds the request when it goes on.
        return connection.send(request, &[]).map(|_| ());
    }
    connection.call(request, &[], PATIENCE).map(|_| ())
}

/// SIGKILL for the first process is the end of the whole container, so the sandbox need not be asked; one that is paused or
/// does not answer dies as well.
fn kill_whole(cx: &Context, record: &Record) -> Result<()> {
    let _ = cx;
    let process =
        Handle::open(record.pid, record.start_time).ok_or_else(|| Failure::runtime("container not running"))?;
    process.signal(libc::SIGKILL);
    if let Some(place) = &record.cgroup {
        // What is frozen does not die.
        place.freeze(false)?;
    }
    Ok(())
}

/// A signal by number or name, with or without SIG.
fn signal(text: &str) -> Result<i32> {
    let unknown = || Failure::runtime(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=LAST).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Ok(signal) = name.parse::<Signal>() {
        return Ok(signal as i32);
    }
    realtime(&name).ok_or_else(unknown)
}

/// `SIGRTMIN+3`, `SIGRTMAX-2`.
fn realtime(name: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match (name.strip_prefix("SIGRTMIN"), name.strip_prefix("SIGRTMAX")) {
        (Some(rest), _) => FIRST.checked_add(offset(rest)?)?,
        (_, Some(rest)) => LAST.checked_add(offset(rest)?)?,
        _ => return None,
    };
    (FIRST..=LAST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+1", 35), ("SIGRTMAX", 64), ("0", 0)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "NOPE", "65", "-1", "RTMIN+40", "RTMAX-99999999999"] {
            assert!(signal(bad).unwrap_err().message.contains("unknown signal"), "{bad}");
        }
    }
}
