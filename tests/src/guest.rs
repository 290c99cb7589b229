//! The differential cases of the guest programs.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::checkpoint::{self, Subject};
use crate::compile::{Link, Program};
use crate::output::Output;
use crate::runner::Case;
use crate::sandbox::Sandbox;
use crate::{compare, env, native, rootfs};

/// A program linked in one way, with its native result once that is known.
struct Guest {
    program: Program,
    link: Link,
    root: PathBuf,
    native: OnceLock<Result<Output, String>>,
}

impl Guest {
    fn command(&self) -> Vec<String> {
        let path = format!("{}/{}{}", rootfs::PROGRAMS, self.program.name, self.link.suffix());
        if self.program.init {
            // Not `exec`: the shell stays process 1 (or its like) and passes the status on.
            let line = format!("{path} \"$@\"; exit $?");
            let shell = ["/bin/sh".to_owned(), "-c".to_owned(), line, "sh".to_owned()];
            return shell.into_iter().chain(self.program.args.clone()).collect();
        }
        std::iter::once(path).chain(self.program.args.clone()).collect()
    }

    /// The native run, made once.
    fn native(&self) -> Result<&Output, String> {
        let run = || native::run(&self.root, &self.command(), Duration::from_secs(30));
        self.native.get_or_init(run).as_ref().map_err(Clone::clone)
    }

    fn check_native(&self) -> Result<(), String> {
        self.native()?.expect_status(self.program.status).map(|_| ())
    }

    /// Whether it is one of those that are checkpointed as well.
    fn is_checkpointed(&self) -> bool {
        self.program.name.starts_with("ckpt_")
    }

    fn check(&self, image: &Path, platform: &str) -> Result<(), String> {
        let native = self.native()?;
        let chaos = platform.contains("+chaos");
        let limit = self.program.limit * if chaos { 2 } else { 1 };
        let mut sandbox = Sandbox::new(image, platform).flags(&["--memory", &self.program.memory]).limit(limit);
        let volume = self.program.volume.as_ref().filter(|_| platform.contains("+volume"));
        let volume = volume.map(|at| Volume::new(at)).transpose()?;
        if let Some(volume) = &volume {
            sandbox = sandbox.flags(&["--volume", &volume.flag()]);
        }
        let output = sandbox.run(&self.command())?;
        compare::compare(native, &output, self.program.stderr)
    }
}

/// An empty host directory for one run.
struct Volume {
    dir: PathBuf,
    at: String,
}

impl Volume {
    fn new(at: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("volume-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = env::scratch().join(name);
        let made = fs::create_dir_all(&dir).and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o1777)));
        made.map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Volume { dir, at: at.to_owned() })
    }

    /// What `--volume` is told. Nobody else changes it, and nobody else looks: both ways to remember must do.
    fn flag(&self) -> String {
        let mode =
            if self.dir.as_os_str().as_bytes().last().is_some_and(|b| b % 2 == 0) { "exclusive" } else { "shared" };
        format!("{}:{}:{mode}", self.dir.display(), self.at)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A guest program that is checkpointed.
struct Saved {
    guest: Arc<Guest>,
    image: PathBuf,
}

impl Subject for Saved {
    fn native(&self) -> Result<&Output, String> {
        self.guest.native()
    }

    fn command(&self) -> Vec<String> {
        self.guest.command()
    }

    fn image(&self) -> &Path {
        &self.image
    }

    fn limit(&self) -> Duration {
        self.guest.program.limit
    }
}

/// Cases of every program: natively, on each of `platforms`, and with spurious wake-ups where `chaos` is set. Programs
/// of `broken` fail with their message.
#[must_use]
pub fn cases(programs: &[Program], broken: &[(String, String)], root: &Path, image: &Path, chaos: bool) -> Vec<Case> {
    let mut all = Vec::new();
    for program in programs {
        for link in &program.links {
            let name = format!("{}{}", program.name, link.suffix());
            let test = format!("guest/{name}");
            if let Some((_, message)) = broken.iter().find(|(broken, _)| *broken == name) {
                let message = message.clone();
                all.push(Case::new(test, "native", move || Err(message.clone())));
                continue;
            }
            if program.soak && !env::soak() {
                continue;
            }
            let (program, link) = (program.clone(), *link);
            let guest = Arc::new(Guest { program, link, root: root.to_owned(), native: OnceLock::new() });
            all.extend(of_guest(&guest, &test, image, chaos));
        }
    }
    all
}

fn of_guest(guest: &Arc<Guest>, test: &str, image: &Path, chaos: bool) -> Vec<Case> {
    let mut platforms = env::platforms();
    if chaos && guest.program.chaos {
        platforms.extend(env::platforms().iter().map(|p| format!("{p}+chaos")));
    }
    if guest.program.volume.is_some() {
        platforms.extend(env::platforms().iter().map(|p| format!("{p}+volume")));
        if chaos && guest.program.chaos {
            platforms.extend(env::platforms().iter().map(|p| format!("{p}+volume+chaos")));
        }
    }
    let native = guest.clone();
    let mut cases = vec![Case::new(test, "native", move || native.check_native())];
    for platform in platforms {
        let (guest, image, on) = (guest.clone(), image.to_owned(), platform.clone());
        cases.push(Case::new(test, platform, move || guest.check(&image, &on)));
    }
    if guest.is_checkpointed() {
        let saved: Arc<dyn Subject> = Arc::new(Saved { guest: guest.clone(), image: image.to_owned() });
        cases.extend(checkpoint::cases(&test.replacen("guest/ckpt_", "checkpoint/", 1), &saved));
    }
    if guest.program.alone {
        cases = cases.into_iter().map(Case::alone).collect();
    }
    cases
}
