//! The walls around the sandbox process, so that a sentry taken over by its guest still holds nothing.
//!
//! Most are put up by the command line before this program is executed again (`sandbox::launch`); here they are checked,
//! and the last one, the system call filter, is put up. `docs/security.md` tells what each is for.

#[cfg(feature = "compromised")]
mod compromised;
mod filter;
mod rules;
mod trial;

use std::os::fd::RawFd;

use platform::SyscallRule;

pub use rules::THREAD;
pub use trial::{Trial, Wall};

use crate::failure::{Failure, Result, Status};

/// Descriptor numbers looked at one by one; the command line closed everything above its own handful.
const CHECKED: RawFd = 1024;

/// Fails unless exactly `expected` is open.
///
/// # Errors
/// A descriptor that nobody accounts for: somebody else's file inside the sandbox.
pub fn check_descriptors(expected: &[RawFd]) -> Result<()> {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(CHECKED, |(soft, _)| RawFd::try_from(soft).unwrap_or(CHECKED).min(CHECKED));
    let open = hostsys::fds::open_in(0, limit).map_err(|e| Failure::host("checking descriptors", e))?;
    if open == expected {
        return Ok(());
    }
    Err(breached(format!("descriptors {open:?} are open where {expected:?} are expected")))
}

/// Fails unless the process is who and where it must be: first in its pid namespace, in an empty root, without a
/// capability or a way to one.
///
/// # Errors
/// A wall is missing.
pub fn check_process(inside_user: Option<u32>, trial: &Trial) -> Result<()> {
    if trial.stands(Wall::Pid) && std::process::id() != 1 {
        return Err(breached(format!("the process has pid {} in its namespace, not 1", std::process::id())));
    }
    if trial.stands(Wall::Capabilities) {
        let held = hostsys::caps::held().map_err(|e| Failure::host("checking capabilities", e))?;
        let bound = hostsys::caps::bounding();
        if held | bound != 0 {
            return Err(breached(format!("capabilities are left (held {held:#x}, bounding {bound:#x})")));
        }
        if nix::sys::prctl::get_no_new_privs() != Ok(true) {
            return Err(breached("no_new_privs is not set".into()));
        }
    }
    if trial.stands(Wall::User) && trial.stands(Wall::Capabilities) {
        let uid = nix::unistd::getuid().as_raw();
        if uid == 0 || inside_user.is_some_and(|expected| expected != uid) {
            return Err(breached(format!("the process runs as user {uid}")));
        }
    }
    if trial.stands(Wall::Root) {
        let entries = std::fs::read_dir("/").map_or(0, Iterator::count);
        if entries != 0 {
            return Err(breached(format!("the root holds {entries} entries")));
        }
    }
    Ok(())
}

/// Puts the filter up for all threads of the process, those to come included. Refused calls kill the process; with
/// `explain` the call is named first.
///
/// # Errors
/// The kernel refuses the filter.
pub fn install_filter(platform: &[SyscallRule], explain: bool, trial: &Trial) -> Result<()> {
    if trial.stands(Wall::Filter) { filter::install(platform, explain) } else { Ok(()) }
}

fn breached(what: String) -> Failure {
    Failure::new(Status::NotPermitted, format!("a wall of the sandbox is missing: {what}; nothing was run"))
}
