//! The differential cases of the guest programs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::checkpoint::{self, Subject};
use crate::compile::{Link, Program};
use crate::output::Output;
use crate::runner::Case;
use crate::sandbox::Sandbox;
use crate::volume::Volume;
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
        let volume = Volume::of_run(self.program.volume.as_deref(), platform)?;
        let sandbox = Sandbox::new(image, platform).flags(&["--memory", &self.program.memory]).limit(limit);
        let sandbox = sandbox.flags(&Volume::flags(volume.as_ref()));
        let output = sandbox.run(&self.command())?;
        compare::compare(native, &output, self.program.stderr)
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
    let platforms = env::variants(chaos && guest.program.chaos, guest.program.volume.is_some());
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
