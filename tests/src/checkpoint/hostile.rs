//! Snapshots whose kernel section was changed, with checksums that fit: whatever is in it, the sandbox refuses it or runs
//! it, and does not panic.

use std::path::Path;
use std::time::Duration;

use snapshot::{Kind, Reader, Writer};

use crate::runner::Case;
use crate::sandbox::Sandbox;

/// Changed snapshots that are tried.
const TRIES: u64 = 32;
/// Where the changes come from: the same each time.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A program with something of many kinds.
const PROGRAM: &str = "mkdir /tmp/d; exec 5</etc/hostname 6>/tmp/d/f 7<>/dev/ptmx; echo x >&6; sleep 1000 & cat /dev/null | \
    { echo ready > /proc/nanovisor/checkpoint; kill $!; echo over; }";

/// One case: what is checked is ours, not a platform's.
#[must_use]
pub fn cases(image: &Path) -> Vec<Case> {
    let image = image.to_owned();
    vec![Case::new("checkpoint/hostile", "ptrace", move || check(&image))]
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).unwrap_or(0)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.next(bytes.len());
        let value = [0, 1, 0x7f, 0x80, 0xff][self.next(5)];
        match self.next(4) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << self.next(8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = value),
            2 => bytes.insert(at, value),
            _ => {
                let _ = bytes.remove(at);
            }
        }
    }
}

fn check(image: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("making a temporary folder: {e}"))?;
    let dir = folder.path().to_string_lossy().into_owned();
    let saved = Sandbox::new(image, "ptrace").flags(&["--no-tty", "--checkpoint-at-ready", &dir, "--stop-after"]);
    saved.run(&["/bin/busybox", "sh", "-c", PROGRAM])?.expect_status(0)?;
    let path = folder.path().join("state");
    let whole = std::fs::read(&path).map_err(|e| e.to_string())?;
    let mut random = Random(SEED);
    for _ in 0..TRIES {
        let seed = random.0;
        let changed = changed(&whole, &mut random).map_err(|e| e.to_string())?;
        std::fs::write(&path, changed).map_err(|e| e.to_string())?;
        let restored = Sandbox::new(image, "ptrace").flags(&["--restore", &dir]).limit(Duration::from_secs(10));
        let output = restored.run::<&str>(&[])?;
        if output.ending.status == 117 || output.err().contains("panic") {
            return Err(format!("changed from seed {seed:#x}: status {}, {}", output.ending.status, output.err()));
        }
    }
    Ok(())
}

fn changed(whole: &[u8], random: &mut Random) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let reader = Reader::new(whole)?;
    let mut writer = Writer::new(reader.id());
    for kind in Kind::ALL {
        let mut bytes = reader.section(kind)?.to_vec();
        if kind == Kind::Kernel {
            (0..=random.next(3)).for_each(|_| random.change(&mut bytes));
        }
        writer.section(kind, bytes);
    }
    let mut out = Vec::new();
    writer.finish(&mut out)?;
    Ok(out)
}
