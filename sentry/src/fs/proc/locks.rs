//! `/proc/locks`.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Proc;
use crate::fs::pseudo::PseudoFile;
use crate::kernel::Kernel;
use crate::vfs::Inode;
use crate::vfs::locks::range::END;
use crate::vfs::locks::{Family, Line, LockKey};

/// The file.
pub(super) fn file(proc: &Proc) -> Arc<dyn Inode> {
    Arc::new(PseudoFile::new(&proc.fs, 0o444, proc.render(render)))
}

fn render(kernel: &Arc<Kernel>) -> Vec<u8> {
    let (mut out, mut number) = (String::new(), 0);
    for line in kernel.file_locks.lines() {
        number += u32::from(!line.waits);
        let _ = write!(out, "{number}: {}", if line.waits { "-> " } else { "" });
        describe(&mut out, &line);
    }
    out.into_bytes()
}

/// A lock without its number, as `lock_get_status` in `fs/locks.c` prints it.
pub(super) fn describe(out: &mut String, line: &Line) {
    let family = match line.what.family {
        Family::Process => "POSIX ",
        Family::OpenFile => "OFDLCK",
        Family::Flock => "FLOCK ",
    };
    let kind = if line.what.exclusive { "WRITE" } else { "READ " };
    let (dev, ino) = match line.key {
        LockKey::Inode(key) => (key.dev, key.ino),
        LockKey::Object(_) => (0, 0),
    };
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let last = if line.range.last >= END { "EOF".to_owned() } else { line.range.last.to_string() };
    let _ = writeln!(
        out,
        "{family} ADVISORY  {kind} {} {major:02x}:{minor:02x}:{ino} {} {last}",
        line.what.pid, line.range.start
    );
}
