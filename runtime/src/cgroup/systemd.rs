//! systemd makes the cgroup: a transient scope with the process in it, asked for through `busctl`, which every host
//! with systemd has.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::files::patiently;
use crate::failure::{Failure, Result};

/// A transient scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    slice: String,
    name: String,
}

/// The unit that `linux.cgroupsPath` (`slice:prefix:name`) names.
///
/// # Errors
/// systemd does not run here; a path of another form.
pub fn unit(path: Option<&str>, id: &str) -> Result<Unit> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Failure::runtime(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available",
        ));
    }
    parse(path, id)
}

fn parse(path: Option<&str>, id: &str) -> Result<Unit> {
    let refused = |why: &str| crate::oci::refused("linux.cgroupsPath", why);
    let Some(path) = path else {
        return Ok(Unit { slice: "system.slice".into(), name: format!("nanovisor-{id}.scope") });
    };
    let mut parts = path.split(':');
    let (Some(slice), Some(prefix), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(refused(&format!("`{path}` is not of the form slice:prefix:name, which --systemd-cgroup wants")));
    };
    let clean = |part: &str| !part.contains('/') && !part.starts_with('.');
    if name.is_empty() || ![slice, prefix, name].into_iter().all(clean) {
        return Err(refused(&format!("`{path}` names no unit")));
    }
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    if !slice.ends_with(".slice") {
        return Err(refused(&format!("`{slice}` is no slice")));
    }
    // A name that is a slice itself stands without its prefix, as runc has it.
    let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    Ok(Unit { slice: slice.into(), name })
}

impl Unit {
    /// Its cgroup below the root of a hierarchy: slices nest by the dashes in their names (`systemd.slice(5)`).
    pub fn path(&self) -> String {
        let mut path = String::new();
        let stem = self.slice.trim_end_matches(".slice");
        if stem != "-" {
            for (at, _) in stem.match_indices('-') {
                path.push_str(&format!("/{}.slice", stem.get(..at).unwrap_or_default()));
            }
            path.push_str(&format!("/{}", self.slice));
        }
        format!("{path}/{}", self.name)
    }

    /// Starts the scope with process `pid` in it.
    ///
    /// # Errors
    /// systemd refuses.
    pub fn start(&self, pid: i32) -> Result<()> {
        let pid_text = pid.to_string();
        let properties = [
            ["PIDs", "au", "1", &pid_text],
            ["Delegate", "b", "true", ""],
            ["Slice", "s", &self.slice, ""],
            ["DefaultDependencies", "b", "false", ""],
        ];
        let mut arguments = vec!["StartTransientUnit", "ssa(sv)a(sa(sv))", &self.name, "replace", "4"];
        arguments.extend(properties.iter().flatten().copied().filter(|word| !word.is_empty()));
        arguments.push("0");
        self.call(&arguments)?;
        // The answer comes before the job is done.
        let own = format!("/proc/{pid}/cgroup");
        let inside = || std::fs::read_to_string(&own).is_ok_and(|text| text.contains(&self.name));
        if patiently(inside) {
            Ok(())
        } else {
            Err(Failure::runtime(format!("systemd did not start {} in time", self.name)))
        }
    }

    /// Ends the scope. One that is gone is no error.
    pub fn stop(&self) {
        if let Err(e) = self.call(&["StopUnit", "ss", &self.name, "replace"]) {
            log::debug!("{e}");
        }
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("busctl");
        if !nix::unistd::geteuid().is_root() {
            command.arg("--user");
        }
        let service = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
        command.args(["--timeout=10s", "call"]).args(service).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|e| Failure::runtime(format!("busctl: {e}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::runtime(format!("systemd, asked for {}: {}", self.name, said.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        let path = |text| parse(Some(text), "id").unwrap().path();
        assert_eq!(path("system.slice:docker:abc"), "/system.slice/docker-abc.scope");
        assert_eq!(path("kubepods-pod1.slice:cri:x"), "/kubepods.slice/kubepods-pod1.slice/cri-x.scope");
        assert_eq!(path("-.slice::x"), "/x.scope");
        assert_eq!(parse(None, "id").unwrap().path(), "/system.slice/nanovisor-id.scope");
        for bad in ["/plain/path", "a:b", "a:b:c", "x.slice:b:../c", "x.slice:p:"] {
            assert!(parse(Some(bad), "id").is_err(), "{bad}");
        }
    }
}
