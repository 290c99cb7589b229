//! Snapshots of programs that use a host directory: what was open is opened again, what has gone is named.

use std::fs;
use std::path::Path;

use crate::env;
use crate::runner::Case;
use crate::sandbox::Sandbox;

/// Reads, writes, works and maps (its own program) in `/vol`, before and behind the checkpoint.
const PROGRAM: &str = "cd /vol/d && cp /bin/busybox /vol/busybox && exec /vol/busybox sh -c 'exec 3<../in 4>>../out; read a <&3; \
    echo before >&4; echo ready > /proc/nanovisor/checkpoint; read b <&3; echo \"$a $b $(pwd)\"; echo behind >&4; \
    /vol/busybox cat here; /vol/busybox mv here there'";

/// A case for each platform.
#[must_use]
pub fn cases(image: &Path) -> Vec<Case> {
    let of = |platform: String| {
        let (image, on) = (image.to_owned(), platform.clone());
        Case::new("checkpoint/volume", platform, move || check(&image, &on))
    };
    env::platforms().into_iter().map(of).collect()
}

fn check(image: &Path, platform: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let (snap, served) = (folder.path().join("snap"), folder.path().join("served"));
    fill(&served).map_err(|e| format!("filling {}: {e}", served.display()))?;
    let (snap, volume) = (snap.to_string_lossy().into_owned(), format!("{}:/vol", served.display()));
    let original = Sandbox::new(image, platform);
    let original = original.flags(&["--no-tty", "--volume", &volume, "--checkpoint-at-ready", &snap, "--stop-after"]);
    original.run(&["/bin/busybox", "sh", "-c", PROGRAM])?.expect_status(0)?;
    let restored = || Sandbox::new(image, platform).flags(&["--volume", &volume, "--restore", &snap]).run::<&str>(&[]);
    let output = restored()?;
    output.expect_status(0)?;
    if output.out() != "first second /vol/d\nheld\n" {
        return Err(format!("restored: {:?}, {}", output.out(), output.err()));
    }
    let written = fs::read_to_string(served.join("out")).map_err(|e| e.to_string())?;
    if written != "before\nbehind\n" || !served.join("d/there").exists() {
        return Err(format!("the host has {written:?}"));
    }
    let alone = Sandbox::new(image, platform).flags(&["--restore", &snap]).run::<&str>(&[])?;
    expect_refusal(&alone.err(), alone.ending.status, "host directory number 0")?;
    fs::remove_file(served.join("in")).map_err(|e| e.to_string())?;
    let gone = restored()?;
    expect_refusal(&gone.err(), gone.ending.status, "the file in of a host directory")
}

fn expect_refusal(err: &str, status: i32, words: &str) -> Result<(), String> {
    if status != 0 && err.contains(words) {
        return Ok(());
    }
    Err(format!("`{words}` was expected: status {status}, {err}"))
}

fn fill(served: &Path) -> std::io::Result<()> {
    fs::create_dir_all(served.join("d"))?;
    fs::write(served.join("in"), "first\nsecond\n")?;
    fs::write(served.join("d/here"), "held\n")
}
