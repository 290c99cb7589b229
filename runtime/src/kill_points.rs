//! Named points at which a command may be killed, so that a test can try each (`tests/kill_points.rs`): in the build for trials a
//! command stops itself at the point that the environment names, and is killed there. Other builds pass.

/// All points, in the order in which commands reach them.
#[cfg_attr(not(feature = "compromised"), allow(dead_code, reason = "the other build checks names with it"))]
pub const ALL: [&str; 18] = [
    "create-directory",
    "create-cgroup",
    "create-socket",
    "create-gofer",
    "create-forked",
    "create-recorded",
    "create-placed",
    "create-launched",
    "create-ready",
    "create-saved",
    "start-saved",
    "start-started",
    "exec-running",
    "checkpoint-files",
    "checkpoint-written",
    "delete-killed",
    "delete-emptied",
    "delete-record",
];

/// The variable that names the point to stop at.
#[cfg(feature = "compromised")]
const VARIABLE: &str = "NANOVISOR_STOP_AT";

/// Passes the point `name`.
pub fn pass(name: &str) {
    debug_assert!(ALL.contains(&name), "{name} is listed");
    #[cfg(feature = "compromised")]
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == name) {
        hostsys::process::stop_self();
    }
}
