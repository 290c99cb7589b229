//! `root` and `mounts` -> a plan: what the sandbox's kernel mounts itself, and what a gofer is to serve.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Mount};

use super::refused;
use super::spec::Bundle;
use crate::failure::Result;
use crate::gofer::Volume;
use crate::sandbox::describe::{DeviceConfig, MountConfig, MountKind};

/// Flags by option: (name, bits set, bits cleared), `include/uapi/linux/mount.h`.
const FLAGS: [(&str, u32, u32); 20] = [
    ("ro", 1, 0),
    ("rw", 0, 1),
    ("nosuid", 2, 0),
    ("suid", 0, 2),
    ("nodev", 4, 0),
    ("dev", 0, 4),
    ("noexec", 8, 0),
    ("exec", 0, 8),
    ("noatime", 1024, 0),
    ("atime", 0, 1024),
    ("nodiratime", 2048, 0),
    ("diratime", 0, 2048),
    ("relatime", 1 << 21, 0),
    ("norelatime", 0, 1 << 21),
    ("strictatime", 1 << 24, 0),
    ("nostrictatime", 0, 1 << 24),
    ("rro", 1, 0),
    ("rnosuid", 2, 0),
    ("rnodev", 4, 0),
    ("rnoexec", 8, 0),
];

/// Options that mean something on the host alone, or nothing to a kernel without other namespaces of mounts.
const WITHOUT_MEANING: [&str; 22] = [
    "defaults",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "async",
    "sync",
    "dirsync",
    "mand",
    "nomand",
    "silent",
    "loud",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "acl",
    "noacl",
];

/// Every option that is understood, for `features`.
#[must_use]
pub fn options() -> Vec<&'static str> {
    let mut all: Vec<&str> = FLAGS.iter().map(|(name, ..)| *name).chain(WITHOUT_MEANING).collect();
    all.extend(["bind", "rbind", "tmpcopyup"]);
    all.sort_unstable();
    all
}

/// What a container's tree is made of.
#[derive(Debug)]
pub struct Plan {
    /// What `/` is.
    pub root: Root,
    /// Nothing can be written to the root.
    pub readonly: bool,
    /// In their order.
    pub mounts: Vec<MountConfig>,
    /// Host directories and files that a gofer serves; mounts name them by their place here.
    pub trees: Vec<Volume>,
    /// Images that are mounted, in the order of the mounts that need them.
    pub images: Vec<PathBuf>,
}

/// What `/` is.
#[derive(Debug, PartialEq, Eq)]
pub enum Root {
    /// A ROFS image file.
    Image(PathBuf),
    /// A directory of the host.
    Directory(PathBuf),
}

/// Makes the plan.
///
/// # Errors
/// A mount that is missing a field, of a kind that there is not, or with an option that there is not.
pub fn plan(bundle: &Bundle) -> Result<Plan> {
    let meta =
        std::fs::metadata(&bundle.root).map_err(|e| refused("root.path", format!("{}: {e}", bundle.root.display())))?;
    let root = if meta.is_dir() {
        Root::Directory(bundle.root.clone())
    } else if meta.is_file() {
        Root::Image(bundle.root.clone())
    } else {
        return Err(refused("root.path", format!("{}: neither a directory nor an image", bundle.root.display())));
    };
    let readonly = bundle.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    let mut plan = Plan { root, readonly, mounts: Vec::new(), trees: Vec::new(), images: Vec::new() };
    for (n, mount) in bundle.spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{n}]");
        let planned = plan.mount(&field, mount, &bundle.dir)?;
        plan.mounts.push(planned);
    }
    Ok(plan)
}

impl Plan {
    /// Has the gofer serve a directory root; answers its number.
    ///
    /// # Errors
    /// Too many trees.
    pub fn serve_root(&mut self) -> Result<u32> {
        let index = u32::try_from(self.trees.len()).map_err(|_| refused("mounts", "too many"))?;
        let Root::Directory(path) = &self.root else { return Err(refused("root.path", "not a directory")) };
        let source = path.clone();
        // Places to mount on are made where they are missing, even in a root that the guest cannot write: as runc.
        let there =
            |mount: &MountConfig| source.join(mount.destination.trim_start_matches('/')).symlink_metadata().is_ok();
        let readonly = self.readonly && self.mounts.iter().all(there);
        self.trees.push(Volume { source, target: "/".into(), readonly, exclusive: true });
        Ok(index)
    }

    fn mount(&mut self, field: &str, mount: &Mount, bundle: &Path) -> Result<MountConfig> {
        let destination = text(&format!("{field}.destination"), mount.destination())?;
        if destination.is_empty() {
            return Err(refused(&format!("{field}.destination"), "missing"));
        }
        // Relative ones were once allowed (runc warns): they begin at the root.
        let destination = if destination.starts_with('/') { destination } else { format!("/{destination}") };
        let mut options = parse_options(mount.options().as_deref().unwrap_or_default());
        if matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) {
            options.data.clear();
        }
        let source = mount.source().clone().unwrap_or_default();
        let kind = self.kind(field, mount, &options, (&source, &destination), bundle)?;
        Ok(MountConfig {
            destination,
            kind,
            flags: options.flags,
            data: options.data.join(","),
            source: text(&format!("{field}.source"), &source)?,
            copy_up: options.copy_up,
        })
    }

    fn kind(
        &mut self,
        field: &str,
        mount: &Mount,
        options: &Options,
        (source, destination): (&Path, &str),
        bundle: &Path,
    ) -> Result<MountKind> {
        let kind = mount.typ().as_deref().unwrap_or_default();
        if options.bind || kind == "bind" {
            return self.bind(field, bundle.join(source), options, destination);
        }
        Ok(match kind {
            "proc" => MountKind::Proc,
            "sysfs" => MountKind::Sysfs,
            "tmpfs" if destination == "/dev" => MountKind::Dev,
            "tmpfs" => MountKind::Tmpfs,
            "devpts" => MountKind::Devpts,
            "mqueue" => MountKind::Mqueue,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            "erofs" => {
                self.images.push(bundle.join(source));
                MountKind::Image
            }
            "" => return Err(refused(&format!("{field}.type"), "missing")),
            other => return Err(refused(&format!("{field}.type"), format!("{other} is not supported"))),
        })
    }

    fn bind(&mut self, field: &str, path: PathBuf, options: &Options, target: &str) -> Result<MountKind> {
        if path.as_os_str().is_empty() {
            return Err(refused(&format!("{field}.source"), "missing"));
        }
        let source =
            path.canonicalize().map_err(|e| refused(&format!("{field}.source"), format!("{}: {e}", path.display())))?;
        let index = u32::try_from(self.trees.len()).map_err(|_| refused(field, "too many"))?;
        // Others may change what lies there: names and attributes are asked for each time.
        let readonly = options.flags & 1 != 0;
        self.trees.push(Volume { source, target: target.to_owned(), readonly, exclusive: false });
        Ok(MountKind::Gofer { index, exclusive: false })
    }
}

#[derive(Debug, Default)]
struct Options {
    flags: u32,
    data: Vec<String>,
    bind: bool,
    copy_up: bool,
}

fn parse_options(list: &[String]) -> Options {
    let mut found = Options::default();
    for option in list {
        let option = option.as_str();
        match FLAGS.iter().find(|(name, ..)| *name == option) {
            Some((_, set, clear)) => found.flags = (found.flags | set) & !clear,
            None if option == "bind" || option == "rbind" => found.bind = true,
            None if option == "tmpcopyup" => found.copy_up = true,
            None if WITHOUT_MEANING.contains(&option) => {}
            // The rest is for the file system, which refuses what it does not know.
            None => found.data.push(option.to_owned()),
        }
    }
    found
}

fn text(field: &str, path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| refused(field, "is not UTF-8"))?;
    if text.contains('\0') { Err(refused(field, "holds a NUL byte")) } else { Ok(text.to_owned()) }
}

/// `linux.devices`.
///
/// # Errors
/// A path that is relative, a number out of range.
pub fn devices(linux: Option<&Linux>) -> Result<Vec<DeviceConfig>> {
    let list = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    list.iter().enumerate().map(|(n, device)| self::device(&format!("linux.devices[{n}]"), device)).collect()
}

fn device(field: &str, device: &LinuxDevice) -> Result<DeviceConfig> {
    let path = text(&format!("{field}.path"), device.path())?;
    if !path.starts_with('/') {
        return Err(refused(&format!("{field}.path"), "must be absolute"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C => b'c',
        LinuxDeviceType::B => b'b',
        LinuxDeviceType::U => b'u',
        LinuxDeviceType::P => b'p',
        LinuxDeviceType::A => return Err(refused(&format!("{field}.type"), "`a` is for cgroups")),
    };
    let part = |name: &str, value: i64| {
        u32::try_from(value).map_err(|_| refused(&format!("{field}.{name}"), format!("{value} is out of range")))
    };
    Ok(DeviceConfig {
        path,
        kind,
        number: (part("major", device.major())?, part("minor", device.minor())?),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(mounts: serde_json::Value) -> Result<Plan> {
        let dir = tempfile::tempdir().unwrap();
        let spec = serde_json::json!({ "ociVersion": "1.0.2", "root": { "path": "." }, "mounts": mounts });
        let root = dir.path().to_owned();
        plan(&Bundle { dir: root.clone(), root, spec: serde_json::from_value(spec).unwrap() })
    }

    #[test]
    fn kinds_and_options() {
        let plan = planned(serde_json::json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"] },
            { "destination": "data", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "rprivate"] },
        ]))
        .unwrap();
        assert_eq!(plan.mounts[0].kind, MountKind::Proc);
        assert_eq!(plan.mounts[1].kind, MountKind::Dev);
        assert_eq!((plan.mounts[1].flags, plan.mounts[1].data.as_str()), (2 | 1 << 24, "mode=755,size=64k"));
        assert_eq!(
            (plan.mounts[2].destination.as_str(), &plan.mounts[2].kind),
            ("/data", &MountKind::Gofer { index: 0, exclusive: false })
        );
        assert_eq!((plan.trees[0].source.to_str(), plan.trees[0].readonly), (Some("/usr"), true));
    }

    #[test]
    fn wrong_mounts_are_named() {
        for (mount, field) in [
            (serde_json::json!({ "destination": "/x", "type": "nfs" }), "mounts[0].type"),
            (serde_json::json!({ "destination": "/x" }), "mounts[0].type"),
            (serde_json::json!({ "destination": "", "type": "proc" }), "mounts[0].destination"),
            (serde_json::json!({ "destination": "/x", "type": "bind", "source": "/no/such" }), "mounts[0].source"),
        ] {
            let error = planned(serde_json::json!([mount])).unwrap_err();
            assert!(error.message.contains(field), "{error}");
        }
    }
}
