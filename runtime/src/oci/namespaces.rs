//! `linux.namespaces`: all that guests have are the sandbox's own; a network namespace named by path is joined by the
//! sandbox process itself, since that is where its links are.

use std::fs::File;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::refused;
use crate::failure::Result;

/// The kinds that containers of one sandbox may share, by their names in `/proc/PID/ns`.
pub const SHARED: [&str; 4] = ["pid", "ipc", "uts", "net"];

/// What is asked of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// The host's: it is not in the list.
    #[default]
    Hosts,
    /// A new one.
    Own,
    /// Another's.
    Path(PathBuf),
}

/// What the sandbox process is to do about namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// What is asked of those of [`SHARED`].
    pub asked: [Asked; 4],
    /// The network namespace to join.
    pub network: Option<File>,
    /// The user asked for the host's network (no network namespace at all). The sandbox gets an empty one all the same.
    pub host_network: bool,
}

/// Reads the list.
///
/// # Errors
/// A kind that is given twice; a path that is relative or no namespace.
pub fn read(spec: &Spec) -> Result<Namespaces> {
    let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut seen: Vec<Kind> = Vec::new();
    let mut found = Namespaces { host_network: true, ..Namespaces::default() };
    for (n, namespace) in list.iter().enumerate() {
        let field = format!("linux.namespaces[{n}]");
        if seen.contains(&namespace.typ()) {
            return Err(refused(&field, format!("{:?} is given twice", namespace.typ())));
        }
        seen.push(namespace.typ());
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if let Some(asked) = shared(namespace.typ()).and_then(|n| found.asked.get_mut(n)) {
            *asked = path.map_or(Asked::Own, |path| Asked::Path(path.clone()));
        }
        if namespace.typ() == Kind::Network {
            found.host_network = false;
            found.network = path.map(|path| open(&field, path)).transpose()?;
        } else if let Some(path) = path {
            // Another container's: it means one kernel for both where that is in the same sandbox (a pod).
            check(&field, path)?;
            log::debug!("config.json: {field}.path {}: the namespace is the sandbox's own", path.display());
        }
    }
    Ok(found)
}

/// The number of a kind in [`SHARED`].
fn shared(kind: Kind) -> Option<usize> {
    [Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Network].into_iter().position(|shared| shared == kind)
}

fn open(field: &str, path: &Path) -> Result<File> {
    check(field, path)?;
    File::open(path).map_err(|e| refused(&format!("{field}.path"), format!("{}: {e}", path.display())))
}

fn check(field: &str, path: &Path) -> Result<()> {
    if path.is_absolute() { Ok(()) } else { Err(refused(&format!("{field}.path"), "must be absolute")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(json: serde_json::Value) -> Result<Namespaces> {
        let spec = serde_json::json!({ "ociVersion": "1.0.2", "linux": { "namespaces": json } });
        read(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_network_by_path_is_opened() {
        let found = namespaces(serde_json::json!([{ "type": "network", "path": "/proc/self/ns/net" }])).unwrap();
        assert!(found.network.is_some() && !found.host_network);
        assert!(namespaces(serde_json::json!([{ "type": "pid" }])).unwrap().host_network);
    }

    #[test]
    fn wrong_entries_are_named() {
        let twice = namespaces(serde_json::json!([{ "type": "pid" }, { "type": "pid" }])).unwrap_err();
        assert!(twice.message.contains("linux.namespaces[1]"), "{twice}");
        assert!(namespaces(serde_json::json!([{ "type": "network", "path": "x" }])).is_err());
        assert!(namespaces(serde_json::json!([{ "type": "network", "path": "/no/such" }])).is_err());
    }
}
