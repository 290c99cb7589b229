//! The sandbox process: what this program is when it is executed again by the command line.
//!
//! It arrives in its own namespaces, in an empty root, without capabilities, with four descriptors. It takes the rest
//! over by message, builds the platform, puts the last wall up (the filter), and becomes the guest's kernel.

mod container;
mod owners;
mod peer;
pub mod requests;
pub mod sentry_face;
pub mod take;

use std::ffi::CStr;
use std::os::fd::{AsFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;

use hostsys::{SeqPacket, fds, process};

use crate::control::wire::Message;
use crate::failure::{Failure, Result, Status};
use crate::{logging, walls};

/// The name under which the program is executed as the sandbox process; `ps` shows it.
pub const ARGV0: &str = "nanovisor-sandbox";
/// [`ARGV0`] for exec.
pub const ARGV0_C: &CStr = c"nanovisor-sandbox";
/// Number of the log's descriptor, which is standard error too.
const LOG_FD: RawFd = 2;
/// Number of the control socket.
pub const CONTROL_FD: RawFd = 3;
/// Number of the program's own file, closed by the exec.
pub const PROGRAM_FD: RawFd = 4;

/// Runs the sandbox. Its result travels over the control socket; the exit status of the process says it too.
pub fn main() -> ExitCode {
    let control = match fds::inherited(CONTROL_FD) {
        Ok(fd) => Arc::new(SeqPacket::from_fd(fd)),
        Err(_) => {
            eprintln!("{ARGV0} is started by `nanovisor do` alone");
            return ExitCode::from(Status::Usage as u8);
        }
    };
    // A failure is told (and logged) by the command line, once.
    let outcome = run(&control).unwrap_or_else(|failure| Message::failed(&failure));
    let _ = control.send(&outcome.encode(), &[]);
    // Straight out: the kernel frees all this faster than destructors would, and other threads still run.
    process::exit_now(match outcome {
        Message::Failed(status, _) => i32::from(status),
        // A shim that waits for this process takes its status for the program's.
        Message::Exited(code) => i32::from(code),
        Message::Signaled(signal) => 128 + i32::from(signal),
        _ => 0,
    })
}

fn run(control: &Arc<SeqPacket>) -> Result<Message> {
    walls::check_descriptors(&[0, 1, LOG_FD, CONTROL_FD])?;
    let taken = take::take(control)?;
    let log =
        fds::dup_above(control_safe(LOG_FD)?.as_fd(), PROGRAM_FD).map_err(|e| Failure::host("opening the log", e))?;
    let level = logging::level(taken.config.debug);
    // A trace of system calls is made of lines of the level info.
    let level = if taken.config.strace { level.max(log::LevelFilter::Info) } else { level };
    logging::init(log, taken.config.log_format, level);
    end_by_telling(control.clone())?;
    walls::check_process(taken.config.inside_user, &taken.config.trial)?;
    #[cfg(feature = "compromised")]
    if taken.config.trial.attempt.is_some() {
        return sentry_face::play_attacker(taken);
    }
    sentry_face::run(taken, control)
}

/// The log's descriptor, owned for a copy's sake and left open for panics.
fn control_safe(number: RawFd) -> Result<std::mem::ManuallyDrop<std::os::fd::OwnedFd>> {
    let fd = fds::inherited(number).map_err(|e| Failure::host("taking the log over", e))?;
    Ok(std::mem::ManuallyDrop::new(fd))
}

/// A panic or an abort is a defect of ours: it is told in one line, and the whole sandbox ends (the guest must not go on).
fn end_by_telling(control: Arc<SeqPacket>) -> Result<()> {
    std::panic::set_hook(Box::new(move |info| {
        let what = info.to_string().replace('\n', " ");
        let text = format!("the sandbox kernel {what}: a defect of nanovisor, please report it");
        let failure = Failure::new(Status::SandboxDied, text);
        if control.send(&Message::failed(&failure).encode(), &[]).is_err() {
            log::error!("{failure}");
        }
        process::exit_now(i32::from(Status::SandboxDied as u8));
    }));
    hostsys::abort::end_by_status().map_err(|e| Failure::host("preparing for the worst", e))
}
