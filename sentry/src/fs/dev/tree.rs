//! What lies in /dev.

use abi::Errno;

use crate::vfs::{Caller, FileType, NewNode, PathRef, change};

/// Name, major, minor, mode.
const DEVICES: [(&str, u64, u64, u32); 7] = [
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("console", 5, 1, 0o600),
];

const LINKS: [(&str, &str); 5] = [
    // The one of the devpts that is mounted there (runtime-spec, "dev symbolic links").
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes the devices, links and mount points of an empty /dev.
///
/// # Errors
/// `ENOSPC`.
pub fn populate(caller: &Caller<'_>, dev: &PathRef) -> Result<(), Errno> {
    for (name, major, minor, mode) in DEVICES {
        let rdev = nix::sys::stat::makedev(major, minor);
        let fill = |node: &mut NewNode| {
            node.rdev = rdev;
            Ok(())
        };
        change::make(caller, dev.clone(), name.as_bytes(), FileType::CharDevice, mode, fill)?;
    }
    for (name, target) in LINKS {
        let fill = |node: &mut NewNode| {
            node.target = target.as_bytes().to_vec();
            Ok(())
        };
        change::make(caller, dev.clone(), name.as_bytes(), FileType::Symlink, 0o777, fill)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        change::make(caller, dev.clone(), name.as_bytes(), FileType::Directory, 0o755, |_| Ok(()))?;
    }
    Ok(())
}
