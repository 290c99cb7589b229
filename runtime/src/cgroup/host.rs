//! Where this host has its cgroups mounted, and where we are in them.

use std::fs;
use std::path::{Path, PathBuf};

use super::Dirs;
use crate::failure::{Failure, Result};

/// A hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Its controllers (`name=systemd` is one); empty for v2.
    controllers: Vec<String>,
    /// Which part of it is mounted.
    root: String,
    /// Where.
    mount: PathBuf,
    /// Where we are in it.
    own: String,
}

/// The hierarchies that are used: of v1 all, or the one of v2.
#[derive(Debug)]
pub struct Host {
    v1: Vec<Hierarchy>,
    v2: Option<Hierarchy>,
}

impl Host {
    /// Looks around; `None` where nothing is mounted.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn read() -> Result<Option<Host>> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| Failure::runtime(format!("{path}: {e}")));
        Ok(parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// The directories for a container: an absolute path begins at the mount, a relative one where we are.
    pub fn dirs(&self, path: &str) -> Dirs {
        if let (true, Some(v2)) = (self.v1.is_empty(), &self.v2) {
            return Dirs::V2(v2.dir(path));
        }
        Dirs::V1(self.v1.iter().map(|h| (h.controllers.clone(), h.dir(path))).collect())
    }
}

impl Hierarchy {
    fn dir(&self, path: &str) -> PathBuf {
        match path.strip_prefix('/') {
            Some(rest) => self.mount.join(rest.trim_start_matches('/')),
            None => {
                let own = Path::new(&self.own);
                let own = own.strip_prefix(&self.root).unwrap_or(own);
                self.mount.join(own.strip_prefix("/").unwrap_or(own)).join(path)
            }
        }
    }
}

fn parse(mountinfo: &str, own: &str) -> Option<Host> {
    let mut host = Host { v1: Vec::new(), v2: None };
    for line in mountinfo.lines() {
        let (Some((left, right)), mut fields) = (line.split_once(" - "), line.split(' ')) else { continue };
        let _ = left;
        let (root, mount) = (fields.nth(3).unwrap_or("/"), fields.next().unwrap_or_default());
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        match kind {
            "cgroup2" if host.v2.is_none() => {
                let own = own_path(own, &[]).unwrap_or_else(|| "/".into());
                host.v2 = Some(Hierarchy { controllers: Vec::new(), root: root.into(), mount: mount.into(), own });
            }
            "cgroup" => {
                let controllers: Vec<String> =
                    options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr")).map(str::to_owned).collect();
                let known = host.v1.iter().any(|h| h.controllers == controllers);
                if let (false, Some(own)) = (known, own_path(own, &controllers)) {
                    host.v1.push(Hierarchy { controllers, root: root.into(), mount: mount.into(), own });
                }
            }
            _ => {}
        }
    }
    // v1 hierarchies without a controller (`name=systemd` beside v2, as old systemd has it) are no place for limits.
    if host.v2.is_some() && host.v1.iter().all(|h| h.controllers.iter().all(|c| c.starts_with("name="))) {
        host.v1.clear();
    }
    (!host.v1.is_empty() || host.v2.is_some()).then_some(host)
}

/// Our path in the hierarchy of these controllers (`/proc/self/cgroup`).
fn own_path(own: &str, controllers: &[String]) -> Option<String> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let mut names: Vec<&str> = names.split(',').filter(|n| !n.is_empty()).collect();
        names.sort_unstable();
        let mut wanted: Vec<&str> = controllers.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        (names == wanted).then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const OWN: &str = "3:cpu,cpuacct:/a\n2:memory:/a/b\n1:name=systemd:/\n0::/\n";

    #[test]
    fn hybrid_hosts_use_v1() {
        let host = parse(HYBRID, OWN).unwrap();
        let Dirs::V1(dirs) = host.dirs("/k8s/x") else { panic!("v1") };
        let paths: Vec<_> = dirs.iter().map(|(_, dir)| dir.to_str().unwrap()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/cpu/k8s/x", "/sys/fs/cgroup/memory/k8s/x", "/sys/fs/cgroup/systemd/k8s/x"]);
        let Dirs::V1(dirs) = host.dirs("x") else { panic!("v1") };
        assert_eq!(dirs[1].1, Path::new("/sys/fs/cgroup/memory/a/b/x"));
    }

    #[test]
    fn v2_alone_is_v2() {
        let host = parse("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice\n").unwrap();
        assert_eq!(host.dirs("x"), Dirs::V2("/sys/fs/cgroup/user.slice/x".into()));
        assert_eq!(host.dirs("/x"), Dirs::V2("/sys/fs/cgroup/x".into()));
        let beside =
            "40 31 0:37 / /c/systemd rw - cgroup cgroup rw,name=systemd\n41 31 0:38 / /c/u rw - cgroup2 c rw\n";
        assert_eq!(parse(beside, "1:name=systemd:/\n0::/\n").unwrap().dirs("/x"), Dirs::V2("/c/u/x".into()));
        assert!(parse("1 2 0:3 / / rw - ext4 /dev/x rw\n", "").is_none());
    }
}
