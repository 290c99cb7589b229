//! User namespaces: identity maps, and becoming a user.

use std::fs;
use std::io;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::error::{Error, Result};

/// Who a process is outside and inside of its user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User and group id inside.
    pub inside: u32,
    /// User id on the host.
    pub host_uid: u32,
    /// Group id on the host.
    pub host_gid: u32,
}

/// Whether user and group `id` exist in the user namespace that we are in: in a nested one they may not.
#[must_use]
pub fn is_mapped(id: u32) -> bool {
    let holds = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
    };
    let mapped = |file: &str| fs::read_to_string(file).is_ok_and(|maps| maps.lines().any(holds));
    mapped("/proc/self/uid_map") && mapped("/proc/self/gid_map")
}

/// Gives process `pid`, which sits in a new user namespace of ours, its only user and group.
///
/// A caller without privilege may map only itself, and must forbid `setgroups` first (`user_namespaces(7)`).
///
/// # Errors
/// What the writes to `/proc/PID/` say.
pub fn write_maps(pid: i32, who: Identity) -> Result<()> {
    let write = |call: &'static str, file: &str, text: String| {
        fs::write(format!("/proc/{pid}/{file}"), text).map_err(|e| Error::new(call, e))
    };
    if !nix::unistd::geteuid().is_root() {
        write("write /proc/PID/setgroups", "setgroups", "deny".into())?;
    }
    write("write /proc/PID/uid_map", "uid_map", format!("{} {} 1", who.inside, who.host_uid))?;
    write("write /proc/PID/gid_map", "gid_map", format!("{} {} 1", who.inside, who.host_gid))
}

/// Becomes user and group `id`, with no supplementary groups where the namespace lets us drop them.
///
/// # Errors
/// What `setresgid` or `setresuid` say.
pub fn become_user(id: u32) -> Result<()> {
    match setgroups(&[]) {
        // "deny" was written to setgroups: the groups kept are unmapped and give nothing inside.
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(e) => return Err(Error::new("setgroups", e)),
    }
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid).map_err(|e| Error::new("setresgid", e))?;
    setresuid(uid, uid, uid).map_err(|e| Error::new("setresuid", e))
}

/// Why this host makes no user namespaces for us, where it says so: a sentence with the way out.
#[must_use]
pub fn refusal_hint() -> Option<String> {
    let read = |path: &str| -> io::Result<String> { Ok(fs::read_to_string(path)?.trim().to_owned()) };
    if read("/proc/sys/user/max_user_namespaces").is_ok_and(|v| v == "0") {
        return Some("user.max_user_namespaces is 0; raise it with sysctl".into());
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone").is_ok_and(|v| v == "0") {
        return Some("kernel.unprivileged_userns_clone is 0; set it to 1 with sysctl, or run as root".into());
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_ok_and(|v| v == "1") {
        return Some("AppArmor restricts user namespaces; run as root, or give nanovisor a profile".into());
    }
    None
}
