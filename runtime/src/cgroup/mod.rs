//! Control groups of the host, where a container's processes (its sandbox, its gofer) are kept and counted.
//!
//! A crate of its own for this brings a second nix, procfs and regex with it; what is needed of cgroups is to write a
//! handful of files, so that is done here. [`Place`] is data: it is in the container's record from before the first directory is made.

mod files;
mod host;
pub mod stats;
mod systemd;
mod v1;
mod v2;

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

pub use stats::Stats;

/// Where a container's cgroups are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `linux.cgroupsPath` as it was resolved, for people.
    path: String,
    /// The directories.
    dirs: Dirs,
    /// The scope that systemd made for it.
    unit: Option<systemd::Unit>,
    /// Failures are warnings: a caller who may not make cgroups goes without.
    optional: bool,
}

/// The directories of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dirs {
    /// Each with the controllers of its hierarchy. In hybrid hosts the controllers are these.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// The one.
    V2(PathBuf),
}

/// Whether a caller who may not make cgroups goes without (`--rootless`).
#[must_use]
pub fn is_optional(rootless: &str) -> bool {
    match rootless {
        "true" => true,
        "false" => false,
        _ => !nix::unistd::geteuid().is_root(),
    }
}

/// Where the cgroups of a container are to be.
///
/// # Errors
/// A path that leads out; systemd asked for and not there.
pub fn place(cgroups_path: Option<&Path>, id: &str, systemd: bool, optional: bool) -> Result<Option<Place>> {
    let path = cgroups_path.map(|path| path.to_string_lossy().into_owned()).filter(|path| !path.is_empty());
    let host = host::Host::read()?;
    let Some(host) = host else {
        log::warn!("this host has no cgroups mounted: the container has no limits on the host's side");
        return Ok(None);
    };
    let (path, unit) = if systemd {
        let unit = systemd::unit(path.as_deref(), id)?;
        (unit.path(), Some(unit))
    } else {
        (path.unwrap_or_else(|| id.to_owned()), None)
    };
    if path.split('/').any(|part| part == "..") {
        return Err(crate::oci::refused("linux.cgroupsPath", format!("`{path}` has .. in it")));
    }
    let dirs = host.dirs(&path);
    Ok(Some(Place { path, dirs, unit, optional }))
}

impl Place {
    /// The path under the hierarchies.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the host's cgroups are of version 2.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.dirs, Dirs::V2(_))
    }

    /// Makes the cgroups and writes the limits.
    ///
    /// # Errors
    /// The host does not let us, or does not take a limit.
    pub fn make(&self, resources: Option<&LinuxResources>) -> Result<()> {
        // systemd makes its own when the process is there.
        let made = if self.unit.is_some() { Ok(()) } else { self.make_dirs().and_then(|()| self.set(resources)) };
        self.lenient(made)
    }

    fn make_dirs(&self) -> Result<()> {
        match &self.dirs {
            Dirs::V1(dirs) => dirs.iter().try_for_each(|(controllers, dir)| v1::make(controllers, dir)),
            Dirs::V2(dir) => v2::make(dir),
        }
    }

    /// Puts a process in; it must not have children yet.
    ///
    /// # Errors
    /// The host does not let us.
    pub fn add(&self, pid: i32, resources: Option<&LinuxResources>) -> Result<()> {
        let added = match &self.unit {
            // The first process of it; the others join.
            Some(unit) if !self.directories().iter().all(|dir| dir.exists()) => {
                unit.start(pid).and_then(|()| self.make_dirs()).and_then(|()| self.set(resources))
            }
            _ => Ok(()),
        };
        let added = added.and_then(|()| self.directories().into_iter().try_for_each(|dir| files::add(dir, pid)));
        self.lenient(added)
    }

    /// Writes limits; those that are not given stay.
    ///
    /// # Errors
    /// The host does not take one.
    pub fn set(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(resources) = resources else { return Ok(()) };
        let set = match &self.dirs {
            Dirs::V1(dirs) => v1::set(dirs, resources),
            Dirs::V2(dir) => v2::set(dir, resources),
        };
        self.lenient(set)
    }

    /// Holds all processes, or lets them go on; answers when it is so.
    ///
    /// # Errors
    /// There is no freezer; it does not answer in time.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let done = match &self.dirs {
            Dirs::V1(dirs) => v1::freeze(dirs, frozen),
            Dirs::V2(dir) => v2::freeze(dir, frozen),
        };
        self.lenient(done)
    }

    /// What has been used.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.dirs {
            Dirs::V1(dirs) => stats::v1(dirs),
            Dirs::V2(dir) => stats::v2(dir),
        }
    }

    /// Kills what is in it, frozen or not.
    pub fn kill_all(&self) {
        let _ = self.freeze(false);
        for dir in self.directories() {
            files::kill_all(dir);
        }
    }

    /// Removes the cgroups, and what was made below them. Those that are gone already are no error.
    ///
    /// # Errors
    /// Something lives in them.
    pub fn remove(&self) -> Result<()> {
        if let Some(unit) = &self.unit {
            unit.stop();
        }
        self.directories().into_iter().try_for_each(files::remove)
    }

    fn directories(&self) -> Vec<&Path> {
        match &self.dirs {
            Dirs::V1(dirs) => dirs.iter().map(|(_, dir)| dir.as_path()).collect(),
            Dirs::V2(dir) => vec![dir],
        }
    }

    fn lenient(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(Failure { message, .. }) if self.optional => {
                log::warn!("{message}; going on without (--rootless)");
                Ok(())
            }
            other => other,
        }
    }
}
