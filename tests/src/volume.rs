//! Host directories in a sandbox: what a test's work lies in, in the runs on `PLATFORM+volume`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::env;

/// An empty host directory for one run.
pub struct Volume {
    dir: PathBuf,
    flag: String,
}

impl Volume {
    /// The one for a run on `platform`, of a test whose work lies at `at`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn of_run(at: Option<&str>, platform: &str) -> Result<Option<Self>, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(at) = at.filter(|_| platform.contains("+volume")) else { return Ok(None) };
        let dir =
            env::scratch().join(format!("volume-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let made = fs::create_dir_all(&dir).and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o1777)));
        made.map_err(|e| format!("{}: {e}", dir.display()))?;
        // Nobody else changes it: both ways to remember names must do.
        let mode = if platform.starts_with("kvm") { "exclusive" } else { "shared" };
        let flag = format!("{}:{at}:{mode}", dir.display());
        Ok(Some(Volume { dir, flag }))
    }

    /// The flags of `nanovisor do` for it.
    #[must_use]
    pub fn flags(volume: Option<&Self>) -> Vec<&str> {
        volume.map_or_else(Vec::new, |v| vec!["--volume", &v.flag])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
