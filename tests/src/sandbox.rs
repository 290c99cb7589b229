//! Sandboxed runs: `nanovisor do`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::env;
use crate::output::Output;
use crate::supervise;

/// A `nanovisor do` to be run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    image: PathBuf,
    platform: String,
    flags: Vec<String>,
    limit: Duration,
}

impl Sandbox {
    /// A sandbox of `image` on `platform` (`kvm`, `ptrace`, or with `+chaos`, `+volume`), two CPUs, working directory /tmp.
    #[must_use]
    pub fn new(image: &Path, platform: &str) -> Self {
        let (platform, modes) = platform.split_once('+').unwrap_or((platform, ""));
        let chaos = modes.split('+').any(|m| m == "chaos");
        let mut flags: Vec<String> = ["--cpus", "2", "--cwd", "/tmp"].map(str::to_owned).into();
        if chaos {
            flags.extend(["--chaos".to_owned(), "1".to_owned()]);
        }
        Sandbox { image: image.to_owned(), platform: platform.to_owned(), flags, limit: Duration::from_secs(60) }
    }

    /// Adds flags of `nanovisor do`.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|f| (*f).to_owned()));
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command line that runs `command`.
    ///
    /// # Errors
    /// There is no binary.
    pub fn command<S: AsRef<str>>(&self, command: &[S]) -> Result<Command, String> {
        let mut nanovisor = Command::new(env::nanovisor()?);
        nanovisor.args(["do", "--platform", &self.platform, "--image"]).arg(&self.image).args(&self.flags);
        if !command.is_empty() {
            nanovisor.arg("--");
        }
        nanovisor.args(command.iter().map(AsRef::as_ref));
        Ok(nanovisor)
    }

    /// Runs `command` with empty standard input.
    ///
    /// # Errors
    /// It could not be run at all.
    pub fn run<S: AsRef<str>>(&self, command: &[S]) -> Result<Output, String> {
        self.run_with(command, Stdio::null())
    }

    /// Runs `command` with `input`.
    ///
    /// # Errors
    /// It could not be run at all.
    pub fn run_with<S: AsRef<str>>(&self, command: &[S], input: Stdio) -> Result<Output, String> {
        supervise::run(&self.command(command)?, input, self.limit)
    }
}

/// Whether the binary has spurious wake-ups (`--chaos SEED`): status 2 is the command line's.
#[must_use]
pub fn has_chaos() -> bool {
    let Ok(nanovisor) = env::nanovisor() else { return false };
    let output = Command::new(nanovisor).args(["do", "--chaos", "1", "--image", "/nonexistent", "--", "x"]).output();
    output.is_ok_and(|o| o.status.code() != Some(2))
}
