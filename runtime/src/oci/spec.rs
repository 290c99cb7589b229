//! Reading config.json, and writing one to begin with.

use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refused;
use crate::failure::{Failure, Result};

/// The versions of the runtime specification that are understood, as `features` tells them.
pub const OCI_VERSIONS: (&str, &str) = ("1.0.0", "1.2.1");
/// Largest config.json that is read.
const MAX_SPEC: u64 = 16 << 20;

/// A bundle: its directory, and what its config.json says.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// The root file system, absolute: a directory or an image file.
    pub root: PathBuf,
    /// The configuration, checked.
    pub spec: Spec,
}

/// Reads and checks the bundle in `dir`.
///
/// # Errors
/// No config.json; a field that is missing or wrong.
pub fn load(dir: &Path) -> Result<Bundle> {
    let dir = dir.canonicalize().map_err(|e| Failure::runtime(format!("bundle {}: {e}", dir.display())))?;
    let path = dir.join("config.json");
    let text = match read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::runtime("JSON specification file config.json not found"));
        }
        other => other.map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?,
    };
    let spec: Spec = parse("config.json", &text)?;
    check(&spec)?;
    let root = spec.root().as_ref().ok_or_else(|| refused("root", "missing"))?.path();
    if root.as_os_str().is_empty() {
        return Err(refused("root.path", "empty"));
    }
    let root = dir.join(root);
    let root = root.canonicalize().map_err(|e| refused("root.path", format!("{}: {e}", root.display())))?;
    Ok(Bundle { dir, root, spec })
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_SPEC).read_to_end(&mut text)?;
    Ok(text)
}

/// Parses `text`, with the path of a wrong field in the message; unknown fields are warned about.
///
/// # Errors
/// No JSON; a field that is missing or wrong.
pub fn parse<T: DeserializeOwned + serde::Serialize>(name: &str, text: &[u8]) -> Result<T> {
    let known = without_unknown_capabilities(name, text);
    let text = known.as_deref().unwrap_or(text);
    let mut json = serde_json::Deserializer::from_slice(text);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." { String::new() } else { format!("{path}: ") };
        Failure::runtime(format!("{name}: {field}{}", e.inner()))
    })?;
    if let (Ok(given), Ok(known)) = (serde_json::from_slice(text), serde_json::to_value(&value)) {
        for field in unknown(&given, &known) {
            log::warn!("{name}: {field}: not known, ignored");
        }
    }
    Ok(value)
}

/// Capabilities that this version does not know are left out with a warning, as runc does: nobody can be given them. `None`
/// where there are none, or where this is no JSON, which the parser tells better.
fn without_unknown_capabilities(name: &str, text: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    let mut dropped = false;
    for path in ["/process/capabilities", "/capabilities"] {
        let Some(sets) = value.pointer_mut(path).and_then(Value::as_object_mut) else { continue };
        for (set, list) in sets.iter_mut().filter_map(|(set, list)| Some((set, list.as_array_mut()?))) {
            list.retain(|cap| {
                let known = cap.as_str().is_none_or(|cap| super::process::capability(cap).is_some());
                if !known {
                    log::warn!("{name}: capabilities.{set}: {cap} is not known, ignored");
                    dropped = true;
                }
                known
            });
        }
    }
    if dropped { serde_json::to_vec(&value).ok() } else { None }
}

/// The fields of `given` that `known`, which was made of it, has not.
fn unknown(given: &Value, known: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(given, known, String::new(), &mut found);
    found
}

fn compare(given: &Value, known: &Value, path: String, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => compare(value, known, path, found),
                    None if is_nothing(value) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (n, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, format!("{path}[{n}]"), found);
            }
        }
        _ => {}
    }
}

/// What is left out when it is written again: no field of it can have been lost.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn check(spec: &Spec) -> Result<()> {
    let version = spec.version();
    if !version.starts_with("1.") {
        let why = if version.is_empty() { "missing".to_owned() } else { format!("{version} is not supported") };
        return Err(refused("ociVersion", format!("{why} (1.x is)")));
    }
    for (field, there) in
        [("windows", spec.windows().is_some()), ("solaris", spec.solaris().is_some()), ("vm", spec.vm().is_some())]
    {
        if there {
            return Err(refused(field, "this runtime runs Linux programs"));
        }
    }
    if spec.hostname().as_ref().is_some_and(|name| name.len() > 64) {
        return Err(refused("hostname", "longer than 64 bytes"));
    }
    if spec.domainname().as_ref().is_some_and(|name| name.len() > 64) {
        return Err(refused("domainname", "longer than 64 bytes"));
    }
    Ok(())
}

/// `nanovisor spec`: writes a config.json that is not there yet.
///
/// # Errors
/// It is there; it cannot be written.
pub fn write_default(dir: &Path, rootless: bool) -> Result<()> {
    let path = dir.join("config.json");
    let failed = |e: std::io::Error| Failure::runtime(format!("{}: {e}", path.display()));
    let mut file = match std::fs::File::create_new(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::runtime("File config.json exists. Remove it first"));
        }
        other => other.map_err(failed)?,
    };
    let mut value = default_spec();
    if rootless {
        make_rootless(&mut value);
    }
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    serde::Serialize::serialize(&value, &mut writer)
        .map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?;
    text.push(b'\n');
    file.write_all(&text).map_err(failed)
}

fn default_spec() -> Value {
    let caps = serde_json::json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    serde_json::json!({
        "ociVersion": OCI_VERSIONS.1,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "nanovisor",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" }
            ],
            "maskedPaths": oci_spec::runtime::get_default_maskedpaths(),
            "readonlyPaths": oci_spec::runtime::get_default_readonly_paths()
        }
    })
}

/// As runc: the caller is root inside, no network or cgroup of its own, the host's resolv.conf is not needed here.
fn make_rootless(value: &mut Value) {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let map = |id: u32| serde_json::json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut) else { return };
    linux.insert("uidMappings".into(), map(uid));
    linux.insert("gidMappings".into(), map(gid));
    linux.remove("resources");
    if let Some(all) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
        all.push(serde_json::json!({ "type": "user" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_understood_whole() {
        let text = serde_json::to_vec(&default_spec()).unwrap();
        let spec: Spec = parse("config.json", &text).unwrap();
        check(&spec).unwrap();
        assert_eq!(unknown(&default_spec(), &serde_json::to_value(&spec).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn unknown_and_wrong_fields_are_named() {
        let mut value = default_spec();
        value["process"]["cwdd"] = "x".into();
        let spec: Spec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(unknown(&value, &serde_json::to_value(&spec).unwrap()), ["process.cwdd"]);
        value["process"]["cwd"] = 7.into();
        let error = parse::<Spec>("config.json", &serde_json::to_vec(&value).unwrap()).unwrap_err();
        assert!(error.message.starts_with("config.json: process.cwd: "), "{error}");
        value["ociVersion"] = "2.0.0".into();
        value["process"]["cwd"] = "/".into();
        let spec: Spec = parse("config.json", &serde_json::to_vec(&value).unwrap()).unwrap();
        assert!(check(&spec).unwrap_err().message.contains("ociVersion"));
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let mut value = default_spec();
        value["process"]["capabilities"]["bounding"] = serde_json::json!(["CAP_KILL", "CAP_TOMORROW"]);
        let spec: Spec = parse("config.json", &serde_json::to_vec(&value).unwrap()).unwrap();
        let caps = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(caps.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_config_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        write_default(dir.path(), true).unwrap();
        assert!(write_default(dir.path(), false).unwrap_err().message.contains("exists"));
    }
}
