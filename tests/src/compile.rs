//! Guest programs: what their first lines say, and compiling them.
//!
//! Lines of a program's head comment, all optional:
//!
//!     // build: static dynamic     how it is linked, one test each (static | dynamic | static-pie); static
//!     // flags: -mavx2 -lm          more for the compiler
//!     // args: a b                  its arguments
//!     // compare: stderr            standard error must agree too
//!     // status: 3                  its native exit status; 0
//!     // limit: 60                  seconds it may take in a sandbox; 30
//!     // memory: 512M               memory of its sandbox; 1G
//!     // init: sh                   runs as a child of a shell, on both sides: for what concerns process 1
//!     // chaos: no                  its output depends on what wakes it: not run with spurious wake-ups
//!     // volume: /tmp               once more with a host directory there (`--volume`), where it does its work
//!     // soak: yes                  too long for every run
//!     // alone: yes                 not beside other tests

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::env;

/// A program and how to run it.
#[derive(Clone, Debug)]
pub struct Program {
    /// File name without `.c`.
    pub name: String,
    /// Its source.
    pub source: PathBuf,
    /// How it is linked; one test each.
    pub links: Vec<Link>,
    flags: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Whether standard error is compared.
    pub stderr: bool,
    /// Its native exit status.
    pub status: i32,
    /// How long it may take in a sandbox.
    pub limit: Duration,
    /// `--memory` of its sandbox.
    pub memory: String,
    /// Run below a shell.
    pub init: bool,
    /// Run with spurious wake-ups too.
    pub chaos: bool,
    /// Where a host directory is to lie in some runs.
    pub volume: Option<String>,
    /// Only in soak runs.
    pub soak: bool,
    /// With nothing beside it.
    pub alone: bool,
}

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// `-static`.
    Static,
    /// With the system's C library.
    Dynamic,
    /// `-static-pie`.
    StaticPie,
}

impl Link {
    /// Added to the program's name; nothing for static.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Link::Static => "",
            Link::Dynamic => ".dynamic",
            Link::StaticPie => ".pie",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Link::Static => Some("-static"),
            Link::Dynamic => None,
            Link::StaticPie => Some("-static-pie"),
        }
    }
}

/// All programs of `tests/guest`.
///
/// # Errors
/// The folder cannot be read, or a program's head says what is not known.
pub fn programs() -> Result<Vec<Program>, String> {
    let dir = env::repo().join("tests/guest");
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut all = Vec::new();
    for path in entries.flatten().map(|e| e.path()) {
        if path.extension().is_some_and(|e| e == "c") {
            all.push(Program::read(&path)?);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

impl Program {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let mut program = Program {
            name,
            source: path.to_owned(),
            links: vec![Link::Static],
            flags: Vec::new(),
            args: Vec::new(),
            stderr: false,
            status: 0,
            limit: Duration::from_secs(30),
            memory: "1G".to_owned(),
            init: false,
            chaos: true,
            volume: None,
            soak: false,
            alone: false,
        };
        for line in text.lines().take_while(|l| l.starts_with("//") || l.trim().is_empty()) {
            if let Some((key, value)) = line.trim_start_matches('/').trim().split_once(": ") {
                program.set(key, value.trim()).map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        Ok(program)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let words = || value.split_whitespace();
        let yes = value == "yes";
        let bad = || format!("`{key}: {value}` is not understood (tests/README.md)");
        match key {
            "build" => self.links = words().map(link).collect::<Option<_>>().ok_or_else(bad)?,
            "flags" => self.flags = words().map(str::to_owned).collect(),
            "args" => self.args = words().map(str::to_owned).collect(),
            "compare" => self.stderr = value == "stderr",
            "status" => self.status = value.parse().map_err(|_| bad())?,
            "limit" => self.limit = Duration::from_secs(value.parse().map_err(|_| bad())?),
            "memory" => value.clone_into(&mut self.memory),
            "init" => self.init = value == "sh",
            "chaos" => self.chaos = value != "no",
            "volume" => self.volume = Some(value.to_owned()),
            "soak" => self.soak = yes,
            "alone" => self.alone = yes,
            // A sentence with a colon.
            _ => {}
        }
        Ok(())
    }

    /// The compiled program for `link` under `dir`, compiled now if its source is newer.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, link: Link, dir: &Path) -> Result<PathBuf, String> {
        let out = dir.join(format!("{}{}", self.name, link.suffix()));
        if modified(&out) > modified(&self.source).max(headers()) {
            return Ok(out);
        }
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-Wall", "-pthread", "-s", "-o"]).arg(&out).arg(&self.source);
        gcc.args(link.flag()).args(&self.flags);
        let output = gcc.output().map_err(|e| format!("gcc: {e}; run `make setup`"))?;
        if output.status.success() {
            return Ok(out);
        }
        Err(format!("{} does not compile:\n{}", self.source.display(), String::from_utf8_lossy(&output.stderr)))
    }
}

fn link(word: &str) -> Option<Link> {
    match word {
        "static" => Some(Link::Static),
        "dynamic" => Some(Link::Dynamic),
        "static-pie" => Some(Link::StaticPie),
        _ => None,
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// The newest header that programs share.
fn headers() -> Option<SystemTime> {
    let entries = std::fs::read_dir(env::repo().join("tests/guest")).ok()?;
    entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "h"))
        .filter_map(|p| modified(&p))
        .max()
}

/// Compiles every program in every way, two at a time. Returns what does not compile: name and message.
///
/// # Errors
/// The folder cannot be made.
pub fn compile_all(programs: &[Program], dir: &Path) -> Result<Vec<(String, String)>, String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let work = Mutex::new(programs.iter().flat_map(|p| p.links.iter().map(move |l| (p, *l))));
    let broken = Mutex::new(Vec::new());
    let next = || work.lock().ok().and_then(|mut w| w.next());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((program, link)) = next() {
                    if let (Err(e), Ok(mut broken)) = (program.compile(link, dir), broken.lock()) {
                        broken.push((format!("{}{}", program.name, link.suffix()), e));
                    }
                }
            });
        }
    });
    Ok(broken.into_inner().unwrap_or_default())
}
