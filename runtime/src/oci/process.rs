//! `process`: who runs what, where, with which rights.

use std::os::unix::ffi::OsStrExt;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, PosixRlimit, PosixRlimitType, Process, Spec};

use super::{refused, seccomp};
use crate::failure::Result;
use crate::sandbox::config::ConsoleSize;
use crate::sandbox::describe::{CapabilityConfig, ProcessConfig, UserConfig};

/// Names of the capabilities, each at its number (`include/uapi/linux/capability.h`).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The first process of a container.
///
/// # Errors
/// A field that is missing or wrong.
pub fn first(spec: &Spec) -> Result<ProcessConfig> {
    let process = spec.process().as_ref().ok_or_else(|| refused("process", "missing"))?;
    describe(process, spec)
}

/// `process` as the sandbox is told it; what belongs to all processes of the container comes from `spec`.
///
/// # Errors
/// A field that is missing or wrong.
pub fn describe(process: &Process, spec: &Spec) -> Result<ProcessConfig> {
    let args = process.args().as_deref().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(refused("process.args", "must not be empty"));
    }
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(refused("process.cwd", "Cwd property must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(refused("process.cwd", "Cwd must be an absolute path"));
    }
    warn_of_labels(process);
    let bytes = |list: &[String]| list.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    for (field, list) in [("process.args", args), ("process.env", process.env().as_deref().unwrap_or_default())] {
        if list.iter().any(|word| word.contains('\0')) {
            return Err(refused(field, "holds a NUL byte"));
        }
    }
    let user = process.user();
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    Ok(ProcessConfig {
        args: bytes(args),
        env: bytes(process.env().as_deref().unwrap_or_default()),
        cwd: String::from_utf8_lossy(cwd.as_os_str().as_bytes()).into_owned(),
        make_cwd: true,
        user: UserConfig::Ids(user.uid(), user.gid(), user.additional_gids().clone().unwrap_or_default()),
        umask: user.umask(),
        // Without the field: none, as runc.
        capabilities: Some(process.capabilities().as_ref().map_or_else(CapabilityConfig::default, capabilities)),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process)?,
        seccomp: filter.map(seccomp::compile).transpose()?,
        console: console(process),
        preserved: 0,
    })
}

fn console(process: &Process) -> Option<ConsoleSize> {
    if !process.terminal().unwrap_or(false) {
        return None;
    }
    let side = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let size = process.console_size();
    // 0 by 0 where nobody said, as a fresh pty has it; the shim resizes right after.
    Some(
        size.map_or(ConsoleSize { rows: 0, cols: 0 }, |s| ConsoleSize {
            rows: side(s.height()),
            cols: side(s.width()),
        }),
    )
}

fn oom_score_adj(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(n) if !(-1000..=1000).contains(&n) => {
            Err(refused("process.oomScoreAdj", format!("{n} is not in -1000..1000")))
        }
        other => Ok(other),
    }
}

/// Labels of the host's security modules mean nothing to a guest, whose every call the sandbox serves.
fn warn_of_labels(process: &Process) {
    for (field, value) in
        [("process.apparmorProfile", process.apparmor_profile()), ("process.selinuxLabel", process.selinux_label())]
    {
        if value.as_ref().is_some_and(|v| !v.is_empty() && v != "unconfined") {
            log::warn!(
                "config.json: {field}: not applied to the sandbox, whose guests make no system call of the host"
            );
        }
    }
}

/// The number of a capability, by its name with or without `CAP_`, in any case.
#[must_use]
pub fn capability(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    CAPABILITIES.iter().position(|known| **known == full).and_then(|n| u32::try_from(n).ok())
}

fn capabilities(sets: &LinuxCapabilities) -> CapabilityConfig {
    let bits = |set: &Option<Capabilities>| {
        let names = set.iter().flatten().filter_map(|cap| serde_json::to_value(cap).ok());
        names.filter_map(|name| capability(name.as_str()?)).fold(0u64, |all, n| all | 1 << n)
    };
    CapabilityConfig {
        effective: bits(sets.effective()),
        permitted: bits(sets.permitted()),
        inheritable: bits(sets.inheritable()),
        bounding: bits(sets.bounding()),
        ambient: bits(sets.ambient()),
    }
}

fn rlimits(list: &[PosixRlimit]) -> Result<Vec<(u32, u64, u64)>> {
    let mut found: Vec<(u32, u64, u64)> = Vec::with_capacity(list.len());
    for limit in list {
        let number = rlimit_number(limit.typ());
        let name = format!("process.rlimits ({:?})", limit.typ());
        if limit.soft() > limit.hard() {
            return Err(refused(&name, format!("soft {} is above hard {}", limit.soft(), limit.hard())));
        }
        if found.iter().any(|(n, ..)| *n == number) {
            return Err(refused(&name, "given twice"));
        }
        found.push((number, limit.soft(), limit.hard()));
    }
    Ok(found)
}

fn rlimit_number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => libc::RLIMIT_CPU,
        T::RlimitFsize => libc::RLIMIT_FSIZE,
        T::RlimitData => libc::RLIMIT_DATA,
        T::RlimitStack => libc::RLIMIT_STACK,
        T::RlimitCore => libc::RLIMIT_CORE,
        T::RlimitRss => libc::RLIMIT_RSS,
        T::RlimitNproc => libc::RLIMIT_NPROC,
        T::RlimitNofile => libc::RLIMIT_NOFILE,
        T::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        T::RlimitAs => libc::RLIMIT_AS,
        T::RlimitLocks => libc::RLIMIT_LOCKS,
        T::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        T::RlimitNice => libc::RLIMIT_NICE,
        T::RlimitRtprio => libc::RLIMIT_RTPRIO,
        T::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// A process for other modules' tests.
#[cfg(test)]
pub fn tests_process() -> ProcessConfig {
    let json = serde_json::json!({ "cwd": "/", "args": ["sh"], "user": { "uid": 7, "gid": 8 } });
    describe(&serde_json::from_value(json).unwrap(), &serde_json::from_str("{}").unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: serde_json::Value) -> Result<ProcessConfig> {
        let mut full = serde_json::json!({ "cwd": "/", "args": ["sh"], "user": { "uid": 7, "gid": 8 } });
        full.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        describe(&serde_json::from_value(full).unwrap(), &Spec::default())
    }

    #[test]
    fn rights_are_taken_over() {
        let caps = serde_json::json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"] });
        let got = process(serde_json::json!({
            "capabilities": caps, "user": { "uid": 1, "gid": 2, "additionalGids": [3], "umask": 63 },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }], "terminal": true,
        }))
        .unwrap();
        assert_eq!(got.user, UserConfig::Ids(1, 2, vec![3]));
        assert_eq!(got.umask, Some(0o77));
        assert_eq!(got.capabilities.unwrap().bounding, 1 | 1 << 5);
        assert_eq!(got.capabilities.unwrap().effective, 1 << 5);
        assert_eq!(got.rlimits, [(libc::RLIMIT_NOFILE, 1, 2)]);
        assert!(got.console.is_some());
    }

    #[test]
    fn wrong_fields_are_named() {
        for (json, field) in [
            (serde_json::json!({ "cwd": "relative" }), "process.cwd"),
            (serde_json::json!({ "cwd": "" }), "process.cwd"),
            (serde_json::json!({ "args": [] }), "process.args"),
            (serde_json::json!({ "args": ["a\u{0}b"] }), "process.args"),
            (serde_json::json!({ "oomScoreAdj": 1001 }), "process.oomScoreAdj"),
            (serde_json::json!({ "rlimits": [{ "type": "RLIMIT_CPU", "soft": 3, "hard": 2 }] }), "process.rlimits"),
        ] {
            let error = process(json).unwrap_err();
            assert!(error.message.starts_with(&format!("config.json: {field}")), "{error}");
        }
    }

    #[test]
    fn capabilities_are_known_by_any_name() {
        assert_eq!(capability("cap_kill"), Some(5));
        assert_eq!(capability("CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(capability("nothing"), None);
    }
}
