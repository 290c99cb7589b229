//! What is written about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::store::CONTROL_SOCKET;
use crate::cgroup::Place;

/// Version of the record; another one is refused, since its container runs under another version of this program.
const VERSION: u32 = 1;

/// How far a container has come, as commands have brought it there. Whether it still runs is asked of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `create` is at work, or died at it.
    Creating,
    /// Created, not started.
    Created,
    /// Started.
    Running,
}

/// What `state` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// See [`Phase::Creating`].
    Creating,
    /// Its process waits for `start`.
    Created,
    /// Its process runs.
    Running,
    /// Its process is held.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// As `state` and `list` print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container in another one's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The container that the sandbox was made for.
    pub leader: String,
    /// Its directory, where its socket is.
    pub directory: PathBuf,
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Of this format.
    pub version: u32,
    /// Name.
    pub id: String,
    /// How far it has come.
    pub phase: Phase,
    /// Paused by `pause`.
    pub paused: bool,
    /// Host pid of the sandbox process, or of the one that stands for a container in another's sandbox; 0 before there is one.
    pub pid: i32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat`, field 22): a pid used again is another process.
    pub start_time: u64,
    /// Host pid of the gofer process; 0 where there is none. It ends with its sandbox; who is its parent reaps it.
    #[serde(default)]
    pub gofer: i32,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// Its cgroups.
    pub cgroup: Option<Place>,
    /// Its name inside of its sandbox.
    pub inside: String,
    /// The sandbox that it shares; `None` for its own.
    #[serde(default)]
    pub pod: Option<Pod>,
    /// The configuration it was made of.
    pub spec: Spec,
}

impl Record {
    /// The record of a container about to be made.
    #[must_use]
    pub fn new(id: &str, bundle: &crate::oci::spec::Bundle) -> Self {
        Record {
            version: VERSION,
            id: id.to_owned(),
            phase: Phase::Creating,
            paused: false,
            pid: 0,
            start_time: 0,
            gofer: 0,
            bundle: bundle.dir.clone(),
            rootfs: bundle.root.clone(),
            created: crate::logging::rfc3339(std::time::SystemTime::now()),
            owner: nix::unistd::geteuid().as_raw(),
            cgroup: None,
            inside: id.to_owned(),
            pod: None,
            spec: bundle.spec.clone(),
        }
    }

    /// Whether this version wrote it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.version == VERSION
    }

    /// Takes the process that is to be the container's.
    pub fn set_process(&mut self, pid: i32) {
        self.pid = pid;
        self.start_time = hostsys::process::start_time(pid).unwrap_or(0);
    }

    /// Whether its process lives. A zombie has ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid > 0 && hostsys::process::start_time(self.pid) == Some(self.start_time)
    }

    /// What `state` tells.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Creating => Status::Creating,
            _ if !self.is_alive() => Status::Stopped,
            Phase::Created => Status::Created,
            Phase::Running if self.paused => Status::Paused,
            Phase::Running => Status::Running,
        }
    }

    /// The annotations, in order.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The state as the runtime specification has it: what `hooks` read.
    #[must_use]
    pub fn oci_state(&self, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.spec.version(),
            "id": self.id,
            "status": status.name(),
            "bundle": self.bundle,
        });
        // "REQUIRED when status is created or running"; runc writes 0 for a stopped one.
        let pid = if status == Status::Stopped { 0 } else { self.pid };
        let annotations = self.annotations();
        if let Some(object) = state.as_object_mut() {
            object.insert("pid".into(), pid.into());
            if !annotations.is_empty() {
                object.insert("annotations".into(), serde_json::json!(annotations));
            }
        }
        state
    }

    /// The state with runc's additions: what `state` and `list --format json` print.
    #[must_use]
    pub fn full_state(&self, status: Status) -> serde_json::Value {
        let mut state = self.oci_state(status);
        if let Some(object) = state.as_object_mut() {
            object.insert("rootfs".into(), serde_json::json!(self.rootfs));
            object.insert("created".into(), serde_json::json!(self.created));
            object.insert("owner".into(), serde_json::json!(owner_name(self.owner)));
            if let Some(cgroup) = &self.cgroup {
                object.insert("cgroup".into(), serde_json::json!(cgroup.path()));
            }
        }
        state
    }

    /// The name of the socket, for those who have the directory.
    #[must_use]
    pub fn socket() -> &'static str {
        CONTROL_SOCKET
    }
}

/// Root's name is empty, as runc has it in JSON; `list` shows names.
fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_used_again_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec::default();
        let bundle = crate::oci::spec::Bundle { dir: dir.path().into(), root: dir.path().into(), spec };
        let mut record = Record::new("x", &bundle);
        assert_eq!(record.status(), Status::Creating);
        record.phase = Phase::Running;
        assert_eq!(record.status(), Status::Stopped);
        record.set_process(i32::try_from(std::process::id()).unwrap());
        assert_eq!(record.status(), Status::Running);
        record.start_time += 1;
        assert_eq!(record.status(), Status::Stopped);
        assert_eq!(record.oci_state(Status::Stopped)["pid"], 0);
    }
}
