//! What `--volume` says.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, Status};

/// A host directory or file that the sandbox shall see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where on the host.
    pub source: PathBuf,
    /// Where in the guest's tree.
    pub target: String,
    /// Nothing may be changed.
    pub readonly: bool,
    /// Nobody else changes it, so that names and attributes are cached.
    pub exclusive: bool,
}

impl Volume {
    /// Parses `HOST:GUEST[:OPTIONS]`; options are `ro`, `rw`, `shared`, `exclusive`, separated by commas.
    ///
    /// # Errors
    /// The form, the options, or the guest path are wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let usage = |why: &str| {
            let text = format!("--volume {text}: {why}; give HOST:GUEST[:ro][,exclusive], GUEST absolute");
            Failure::new(Status::Usage, text)
        };
        let mut parts = text.splitn(3, ':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if source.is_empty() || !target.starts_with('/') {
            return Err(usage("no host path, or no absolute guest path"));
        }
        if target.split('/').any(|name| name == "..") {
            return Err(usage("the guest path has `..`"));
        }
        let mut volume = Volume { source: source.into(), target: target.to_owned(), readonly: false, exclusive: false };
        for option in parts.next().unwrap_or("rw").split(',') {
            match option {
                "ro" => volume.readonly = true,
                "rw" => volume.readonly = false,
                "shared" => volume.exclusive = false,
                "exclusive" => volume.exclusive = true,
                other => return Err(usage(&format!("unknown option `{other}`"))),
            }
        }
        Ok(volume)
    }

    /// What the gofer serves: a private copy of the mounts there, or (without the right to make one) the place itself.
    ///
    /// # Errors
    /// It is missing or may not be reached.
    pub fn open(&self) -> Result<OwnedFd> {
        let name = || format!("--volume: {}", self.source.display());
        let path = CString::new(self.source.as_os_str().as_bytes())
            .map_err(|_| Failure::new(Status::Usage, format!("{}: a NUL in the path", name())))?;
        let place = nix::fcntl::open(path.as_c_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| Failure::new(Status::Usage, format!("{}: {}", name(), e.desc())))?;
        match hostsys::mount::clone_tree(&path, self.readonly) {
            Ok(tree) => Ok(tree),
            Err(e) => {
                log::debug!("{}: {e}; serving it in place", name());
                Ok(place)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        let v = Volume::parse("/a:/b:ro,exclusive").unwrap();
        assert_eq!((v.source.to_str(), v.target.as_str()), (Some("/a"), "/b"));
        assert!(v.readonly && v.exclusive);
        assert!(!Volume::parse("rel:/b").unwrap().readonly);
        for bad in ["", "/a", "/a:b", ":/b", "/a:/b:x", "/a:/b/../c"] {
            assert!(Volume::parse(bad).is_err(), "{bad}");
        }
    }
}
