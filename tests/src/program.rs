//! The differential cases of whole programs: scripts of `tests/programs` and the demo's, in the Debian image, with the
//! interpreter that their suffix names, from standard input.
//!
//! Lines of a script's head comment, all optional, as for guest programs: `status: N`, `limit: SECONDS`, `chaos: no`,
//! `soak: yes`, `memory: SIZE`, `volume: PATH`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::checkpoint::{self, Subject};
use crate::output::Output;
use crate::runner::Case;
use crate::sandbox::Sandbox;
use crate::volume::Volume;
use crate::{compare, env, native};

/// A script and how to run it.
struct Script {
    path: PathBuf,
    interpreter: &'static [&'static str],
    status: i32,
    limit: Duration,
    memory: String,
    chaos: bool,
    soak: bool,
    /// It is checkpointed: its text is an argument, since what a restored shell has not read yet would be lost.
    inline: Option<String>,
    volume: Option<String>,
    image: PathBuf,
    root: PathBuf,
    native: OnceLock<Result<Output, String>>,
}

/// The interpreter of a file, by its suffix.
fn interpreter(path: &Path) -> Option<&'static [&'static str]> {
    match path.extension()?.to_str()? {
        "sh" => Some(&["/bin/bash", "-s"]),
        "py" => Some(&["/usr/bin/python3", "-"]),
        "js" => Some(&["/usr/bin/node", "-"]),
        _ => None,
    }
}

impl Script {
    fn read(path: &Path, status: i32, image: &Path, root: &Path) -> Result<Option<Self>, String> {
        let Some(interpreter) = interpreter(path) else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut script = Script {
            path: path.to_owned(),
            interpreter,
            status,
            limit: Duration::from_secs(120),
            memory: "2G".to_owned(),
            chaos: true,
            soak: false,
            inline: None,
            volume: None,
            image: image.to_owned(),
            root: root.to_owned(),
            native: OnceLock::new(),
        };
        for line in text.lines().take_while(|l| l.starts_with('#') || l.starts_with("//")) {
            if let Some((key, value)) = line.trim_start_matches(['#', '/']).trim().split_once(": ") {
                script.set(key, value.trim()).ok_or_else(|| format!("{}: `{line}`", path.display()))?;
            }
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        script.inline = name.starts_with("ckpt_").then_some(text);
        Ok(Some(script))
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "status" => self.status = value.parse().ok()?,
            "limit" => self.limit = Duration::from_secs(value.parse().ok()?),
            "memory" => value.clone_into(&mut self.memory),
            "chaos" => self.chaos = value != "no",
            "volume" => self.volume = Some(value.to_owned()),
            "soak" => self.soak = value == "yes",
            _ => {}
        }
        Some(())
    }

    fn input(&self) -> Result<Stdio, String> {
        if self.inline.is_some() {
            return Ok(Stdio::null());
        }
        File::open(&self.path).map(Stdio::from).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn command(&self) -> Vec<String> {
        let program = self.interpreter.first().copied().unwrap_or_default();
        match &self.inline {
            Some(text) => {
                let flag = if program.ends_with("node") { "-e" } else { "-c" };
                vec![program.to_owned(), flag.to_owned(), text.clone()]
            }
            None => self.interpreter.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    fn native(&self) -> Result<&Output, String> {
        let run = || native::run_with(&self.root, &self.command(), self.input()?, Duration::from_secs(60));
        self.native.get_or_init(run).as_ref().map_err(Clone::clone)
    }

    fn check_native(&self) -> Result<(), String> {
        self.native()?.expect_status(self.status).map(|_| ())
    }

    fn check(&self, platform: &str) -> Result<(), String> {
        let native = self.native()?;
        let limit = self.limit * if platform.contains("+chaos") { 2 } else { 1 };
        let sandbox = Sandbox::new(&self.image, platform).flags(&["--memory", &self.memory]).limit(limit);
        let volume = Volume::of_run(self.volume.as_deref(), platform)?;
        let sandbox = sandbox.flags(&Volume::flags(volume.as_ref()));
        compare::compare(native, &sandbox.run_with(&self.command(), self.input()?)?, false)
    }
}

impl Subject for Script {
    fn native(&self) -> Result<&Output, String> {
        Script::native(self)
    }

    fn command(&self) -> Vec<String> {
        Script::command(self)
    }

    fn image(&self) -> &Path {
        &self.image
    }

    fn limit(&self) -> Duration {
        self.limit
    }
}

/// Scripts of `folder`, sorted, with the status that each ends with.
fn scripts(folder: &str) -> Result<Vec<(PathBuf, i32)>, String> {
    let dir = env::repo().join(folder);
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut all: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    all.sort();
    // The demo's programs carry no head of ours; this one ends with a status of its own.
    Ok(all.into_iter().map(|p| (p.clone(), if p.ends_with("demo/demo.js") { 5 } else { 0 })).collect())
}

/// Cases of every script: natively, on each platform, and with spurious wake-ups where `chaos` is set.
///
/// # Errors
/// A script cannot be read.
pub fn cases(image: &Path, root: &Path, chaos: bool) -> Result<Vec<Case>, String> {
    let mut all = Vec::new();
    for (kind, folder) in [("program", "tests/programs"), ("demo", "demo")] {
        for (path, status) in scripts(folder)? {
            let Some(script) = Script::read(&path, status, image, root)? else { continue };
            if script.soak && !env::soak() {
                continue;
            }
            let name = path.file_name().map(|n| n.to_string_lossy().replace('.', "_")).unwrap_or_default();
            all.extend(of_script(&Arc::new(script), &format!("{kind}/{name}"), chaos));
        }
    }
    Ok(all)
}

fn of_script(script: &Arc<Script>, test: &str, chaos: bool) -> Vec<Case> {
    let platforms = env::variants(chaos && script.chaos, script.volume.is_some());
    let native = script.clone();
    let mut cases = vec![Case::new(test, "native", move || native.check_native())];
    for platform in platforms {
        let (script, on) = (script.clone(), platform.clone());
        cases.push(Case::new(test, platform, move || script.check(&on)));
    }
    if script.inline.is_some() {
        let saved: Arc<dyn Subject> = script.clone();
        cases.extend(checkpoint::cases(&test.replacen("program/ckpt_", "checkpoint/", 1), &saved));
    }
    cases
}
