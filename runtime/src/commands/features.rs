//! `features`.

use serde_json::json;

use crate::failure::{Failure, Result};
use crate::hooks::Kind;
use crate::oci::annotations::KNOWN;
use crate::oci::{mounts, process, spec};
use crate::output;

/// `nanovisor features`.
///
/// # Errors
/// Standard output cannot be written.
pub fn features() -> Result<()> {
    let mut annotations: serde_json::Map<String, serde_json::Value> =
        KNOWN.iter().map(|(name, meaning)| ((*name).to_owned(), json!(meaning))).collect();
    annotations.insert("dev.nanovisor.version".into(), json!(env!("CARGO_PKG_VERSION")));
    let features = json!({
        "ociVersionMin": spec::OCI_VERSIONS.0,
        "ociVersionMax": spec::OCI_VERSIONS.1,
        "hooks": Kind::ALL.map(|(_, name)| name),
        "mountOptions": mounts::options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": process::CAPABILITIES.to_vec(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                              "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": ["SCMP_ARCH_X86_64"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } }
        },
        "annotations": annotations
    });
    let text = serde_json::to_string_pretty(&features).map_err(|e| Failure::runtime(e.to_string()))?;
    output::print(&(text + "\n"))
}
