//! What the user set for the runtime: options of containerd's table or request, and the file that they name.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Where containers of a namespace are kept if nothing else is said.
const ROOT: &str = "/run/containerd/nanovisor";
/// Where a container's options are written down in its bundle, for whoever cleans up after us.
const FILE: &str = "nanovisor-options.json";

/// The options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The folder of `nanovisor --root`, before the namespace's name.
    pub root: PathBuf,
    /// Cgroups through systemd.
    pub systemd_cgroup: bool,
    /// A verbose log.
    pub debug: bool,
    /// Annotations for containers that have none of that name.
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Options { root: ROOT.into(), systemd_cgroup: false, debug: false, annotations: Default::default() }
    }
}

impl Options {
    /// Of a request. runc's options are understood as far as they mean something.
    ///
    /// # Errors
    /// A file that cannot be read, or says what means nothing.
    pub fn of_request(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Options::default()) };
        let bad = |e| Failure::runtime(format!("the runtime's options ({}): {e}", any.type_url));
        if any.type_url.ends_with("containerd.runc.v1.Options") {
            let runc = RuncOptions::parse_from_bytes(&any.value).map_err(bad)?;
            let mut options = Options { systemd_cgroup: runc.systemd_cgroup, ..Options::default() };
            if !runc.root.is_empty() {
                options.root = runc.root.into();
            }
            return Ok(options);
        }
        let (path, body) = generic(&any.value).map_err(bad)?;
        match (path.as_str(), body.as_slice()) {
            ("", []) => Ok(Options::default()),
            ("", body) => Options::of_toml("ConfigBody", &String::from_utf8_lossy(body)),
            (path, _) => {
                let text = fs::read_to_string(path).map_err(|e| Failure::runtime(format!("ConfigPath {path}: {e}")))?;
                Options::of_toml(&format!("ConfigPath {path}"), &text)
            }
        }
    }

    /// Of a file's text.
    fn of_toml(name: &str, text: &str) -> Result<Self> {
        let bad = |e: String| Failure::runtime(format!("{name}: {}", e.trim()));
        let document: toml_edit::DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| bad(e.to_string()))?;
        let mut options = Options::default();
        for (key, item) in document.iter() {
            let wants = |what: &str| bad(format!("{key}: not {what}"));
            match key {
                "root" => options.root = item.as_str().ok_or_else(|| wants("a path"))?.into(),
                "systemd_cgroup" => options.systemd_cgroup = item.as_bool().ok_or_else(|| wants("true or false"))?,
                "debug" => options.debug = item.as_bool().ok_or_else(|| wants("true or false"))?,
                "annotations" => {
                    let table = item.as_table_like().ok_or_else(|| wants("a table"))?;
                    for (key, value) in table.iter() {
                        let value = value.as_str().ok_or_else(|| bad(format!("annotations.{key}: not a string")))?;
                        options.annotations.insert(key.to_owned(), value.to_owned());
                    }
                }
                _ => return Err(bad(format!("{key}: no such option; root, systemd_cgroup, debug, annotations"))),
            }
        }
        Ok(options)
    }

    /// Writes them down.
    ///
    /// # Errors
    /// The bundle cannot be written.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let path = bundle.join(FILE);
        fs::write(&path, text).map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))
    }

    /// What was written down; the usual ones where nothing was.
    #[must_use]
    pub fn load(bundle: &Path) -> Self {
        fs::read(bundle.join(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// `runtimeoptions.v1.Options`: a type's name (1), a file's path (2), a file's text (3).
fn generic(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<(String, Vec<u8>)> {
    let (mut path, mut body) = (String::new(), Vec::new());
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        // The wire type of all three is 2: a length, then bytes.
        match (tag >> 3, tag & 7) {
            (2, 2) => path = input.read_string()?,
            (3, 2) => body = input.read_bytes()?,
            (_, 2) => drop(input.read_bytes()?),
            (_, 0) => drop(input.read_raw_varint64()?),
            _ => break,
        }
    }
    Ok((path, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(kind: &str, value: Vec<u8>) -> Any {
        Any { type_url: kind.into(), value, ..Any::default() }
    }

    #[test]
    fn a_file_is_named_by_the_generic_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nanovisor.toml");
        let path = file.to_str().unwrap();
        fs::write(&file, "root = \"/r\"\ndebug = true\n[annotations]\n\"dev.nanovisor.platform\" = \"kvm\"\n").unwrap();
        let mut value = vec![0x0a, 1, b't', 0x12, u8::try_from(path.len()).unwrap()];
        value.extend_from_slice(path.as_bytes());
        let options = Options::of_request(Some(&any("runtimeoptions.v1.Options", value))).unwrap();
        assert_eq!((options.root.to_str(), options.debug, options.systemd_cgroup), (Some("/r"), true, false));
        assert_eq!(options.annotations["dev.nanovisor.platform"], "kvm");
        options.save(dir.path()).unwrap();
        assert_eq!(Options::load(dir.path()), options);
        assert_eq!(Options::load(Path::new("/nonexistent")), Options::default());
    }

    #[test]
    fn rubbish_is_refused_by_its_name() {
        let told = |text: &str| Options::of_toml("x.toml", text).unwrap_err().message;
        assert!(told("rooot = 1").contains("rooot: no such option"), "{}", told("rooot = 1"));
        assert!(told("debug = 3").contains("debug: not true or false"));
        assert!(told("][").starts_with("x.toml: "));
        assert!(Options::of_request(Some(&any("runtimeoptions.v1.Options", vec![0x12, 200]))).is_err());
    }

    #[test]
    fn runc_s_options_mean_what_they_can() {
        let runc = RuncOptions { root: "/x".into(), systemd_cgroup: true, ..RuncOptions::default() };
        let any = any("containerd.runc.v1.Options", runc.write_to_bytes().unwrap());
        let options = Options::of_request(Some(&any)).unwrap();
        assert_eq!((options.root.to_str(), options.systemd_cgroup), (Some("/x"), true));
    }
}
