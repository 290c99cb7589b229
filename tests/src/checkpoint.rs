//! Checkpoints: a program that says that it is ready is saved, goes on, and is restored from what was saved.
//!
//! What it prints behind `--- ready` must be the same natively, in the original, and in every restored sandbox: on the
//! platform that it was saved on, on the other, and twice from one snapshot.

pub mod hostile;
pub mod volume;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::env;
use crate::output::Output;
use crate::runner::Case;
use crate::sandbox::Sandbox;

/// The line before the checkpoint.
const READY: &str = "--- ready\n";

/// A program that is checkpointed: its native output, and how it is run.
pub trait Subject: Send + Sync {
    /// What it prints natively.
    ///
    /// # Errors
    /// The native run failed.
    fn native(&self) -> Result<&Output, String>;
    /// The command line in the sandbox.
    fn command(&self) -> Vec<String>;
    /// Its image.
    fn image(&self) -> &Path;
    /// How long a run may take.
    fn limit(&self) -> Duration;
}

/// A case for each platform to save on.
#[must_use]
pub fn cases(test: &str, subject: &Arc<dyn Subject>) -> Vec<Case> {
    let of = |platform: String| {
        let (subject, on) = (subject.clone(), platform.clone());
        Case::new(test, platform, move || check(&*subject, &on))
    };
    env::platforms().into_iter().map(of).collect()
}

fn check(subject: &dyn Subject, platform: &str) -> Result<(), String> {
    let native = subject.native()?;
    let folder = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let dir = folder.path().to_string_lossy().into_owned();
    let sandbox = Sandbox::new(subject.image(), platform).flags(&["--no-tty", "--checkpoint-at-ready", &dir]);
    let original = sandbox.limit(subject.limit()).run(&subject.command())?;
    same("the original", &native.out(), native, &original)?;
    let expected = native.out();
    let (_, after) = expected.split_once(READY).ok_or("natively the program was never ready")?;
    for on in std::iter::once(platform.to_owned()).chain(env::platforms()) {
        let restored = Sandbox::new(subject.image(), &on).flags(&["--restore", &dir]).limit(subject.limit());
        let restored = restored.run::<&str>(&[])?;
        same(&format!("restored on {on}"), after, native, &restored)?;
    }
    Ok(())
}

fn same(who: &str, expected: &str, native: &Output, got: &Output) -> Result<(), String> {
    let expected = Output { stdout: expected.as_bytes().to_vec(), ..native.clone() };
    crate::compare::compare(&expected, got, false).map_err(|e| format!("{who}: {e}"))
}

/// What tells instances of one snapshot apart, a line each.
const IDENTITY: &str = "echo ready > /proc/nanovisor/checkpoint; cut -d' ' -f2 /proc/nanovisor/checkpoint; \
    cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid";

/// Instances of one snapshot differ, from the original and from each other.
#[must_use]
pub fn unique_cases(image: &Path) -> Vec<Case> {
    let of = |platform: String| {
        let (image, on) = (image.to_owned(), platform.clone());
        Case::new("checkpoint/unique", platform, move || check_unique(&image, &on))
    };
    env::platforms().into_iter().map(of).collect()
}

fn check_unique(image: &Path, platform: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let dir = folder.path().to_string_lossy().into_owned();
    let original = Sandbox::new(image, platform).flags(&["--no-tty", "--checkpoint-at-ready", &dir]);
    let mut seen = vec![original.run(&["/bin/busybox", "sh", "-c", IDENTITY])?.expect_status(0)?.out()];
    for _ in 0..2 {
        let restored = Sandbox::new(image, platform).flags(&["--restore", &dir]);
        seen.push(restored.run::<&str>(&[])?.expect_status(0)?.out());
    }
    let lines: Vec<Vec<&str>> = seen.iter().map(|out| out.lines().collect()).collect();
    if lines.iter().any(|l| l.len() != 4) {
        return Err(format!("four lines each were expected: {seen:?}"));
    }
    for (what, line) in ["instance id", "boot id", "random bytes", "uuid"].iter().zip(0..) {
        let mut values: Vec<&str> = lines.iter().filter_map(|l| l.get(line).copied()).collect();
        values.sort_unstable();
        values.dedup();
        if values.len() != seen.len() {
            return Err(format!("two instances have the same {what}: {values:?}"));
        }
    }
    Ok(())
}

/// Snapshots that are no snapshots, or another image's, are refused by one clear line, and nothing of them runs.
#[must_use]
pub fn refusal_cases(image: &Path, other: &Path) -> Vec<Case> {
    let (image, other) = (image.to_owned(), other.to_owned());
    vec![Case::new("checkpoint/refused", "ptrace", move || check_refused(&image, &other))]
}

fn check_refused(image: &Path, other: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let dir = folder.path().to_string_lossy().into_owned();
    let saved = Sandbox::new(image, "ptrace").flags(&["--no-tty", "--checkpoint-at-ready", &dir, "--stop-after"]);
    saved.run(&["/bin/busybox", "sh", "-c", "echo x > /proc/nanovisor/checkpoint; echo ran"])?.expect_status(0)?;
    let refused = |image: &Path, words: &str| {
        let output = Sandbox::new(image, "ptrace").flags(&["--restore", &dir]).run::<&str>(&[])?;
        if output.ending.status == 0 || !output.stdout.is_empty() || !output.err().contains(words) {
            return Err(format!("`{words}` was expected: status {}, {}", output.ending.status, output.err()));
        }
        Ok(())
    };
    refused(other, "the image that it was made from")?;
    let path = folder.path().join("state");
    let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut damaged = bytes.clone();
        change(&mut damaged);
        std::fs::write(&path, damaged).map_err(|e| e.to_string())
    };
    damage(&|b| b.truncate(b.len() / 2))?;
    refused(image, "bytes and should have")?;
    damage(&|b| b.truncate(0))?;
    refused(image, "not a snapshot")?;
    damage(&|b| b.iter_mut().skip(8).take(1).for_each(|v| *v = 99))?;
    refused(image, "format version 99")?;
    damage(&|b| b.iter_mut().rev().take(1).for_each(|v| *v ^= 1))?;
    refused(image, "damaged (checksum)")?;
    damage(&|_| {})?;
    let pages = folder.path().join("pages");
    let all = std::fs::read(&pages).map_err(|e| e.to_string())?;
    std::fs::write(&pages, all.get(..all.len() / 2).unwrap_or_default()).map_err(|e| e.to_string())?;
    refused(image, "pages file has")?;
    std::fs::write(&pages, &all).map_err(|e| e.to_string())?;
    let output = Sandbox::new(image, "ptrace").flags(&["--restore", &dir]).run::<&str>(&[])?;
    output.expect_status(0)?;
    if output.out() == "ran\n" { Ok(()) } else { Err(format!("the whole snapshot: {}", output.out())) }
}
