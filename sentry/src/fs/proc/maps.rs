//! `/proc/PID/maps`, `smaps`, `smaps_rollup`.

use std::fmt::Write as _;
use std::sync::Arc;

use abi::Errno;
use platform::Prot;

use super::{Proc, root_of};
use crate::kernel::task::Task;
use crate::mm::info::MapsEntry;
use crate::vfs::PathRef;

/// Where names start in a line (`seq_setwidth` in `fs/proc/task_mmu.c`).
const NAME_COLUMN: usize = 73;

fn line(entry: &MapsEntry, root: Option<&PathRef>) -> Vec<u8> {
    let flag = |on: bool, c: char| if on { c } else { '-' };
    let key = match &entry.file {
        Some(file) => file.inode.as_ref().map(|i| i.attr().key).or(entry.key),
        None => entry.key,
    };
    let (dev, ino) = key.map_or((0, 0), |k| (k.dev, k.ino));
    let text = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {ino} ",
        entry.range.start,
        entry.range.end,
        flag(entry.prot.contains(Prot::READ), 'r'),
        flag(entry.prot.contains(Prot::WRITE), 'w'),
        flag(entry.prot.contains(Prot::EXEC), 'x'),
        if entry.shared { 's' } else { 'p' },
        entry.offset,
        nix::sys::stat::major(dev),
        nix::sys::stat::minor(dev),
    );
    let mut out = text.into_bytes();
    let name = match (&entry.file, &entry.label) {
        (Some(file), _) => match (&file.path, root) {
            (Some(path), Some(root)) => Some(path.display(root)),
            _ => Some(file.ops.describe().into_bytes()),
        },
        (None, label) => label.clone(),
    };
    if let Some(name) = name {
        out.resize(out.len().max(NAME_COLUMN), b' ');
        for byte in name {
            // Only newlines are escaped here.
            if byte == b'\n' { out.extend_from_slice(b"\\012") } else { out.push(byte) }
        }
    }
    out.push(b'\n');
    out
}

fn entries(task: &Arc<Task>) -> Vec<MapsEntry> {
    task.mm().map(|mm| mm.maps()).unwrap_or_default()
}

/// `maps`.
pub(super) fn maps(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let root = root_of(task);
    Ok(entries(task).iter().flat_map(|e| line(e, root.as_ref())).collect())
}

struct Sums {
    size: u64,
    rss: u64,
    private: u64,
}

fn details(sums: &Sums, out: &mut String) {
    let file = sums.rss.saturating_sub(sums.private);
    for (name, bytes) in [
        ("Rss", sums.rss),
        ("Pss", sums.rss),
        ("Pss_Dirty", sums.private),
        ("Shared_Clean", file),
        ("Shared_Dirty", 0),
        ("Private_Clean", 0),
        ("Private_Dirty", sums.private),
        ("Referenced", sums.rss),
        ("Anonymous", sums.private),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", 0),
    ] {
        let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
    }
}

/// `smaps`.
pub(super) fn smaps(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let root = root_of(task);
    let mut out = Vec::new();
    for entry in entries(task) {
        out.extend(line(&entry, root.as_ref()));
        let sums = Sums { size: entry.range.len(), rss: entry.resident, private: entry.private };
        let mut text = format!("{:<16}{:>8} kB\n", "Size:", sums.size / 1024);
        text.push_str("KernelPageSize:        4 kB\nMMUPageSize:           4 kB\n");
        details(&sums, &mut text);
        text.push_str("THPeligible:           0\nVmFlags:");
        for (on, name) in [
            (entry.prot.contains(Prot::READ), " rd"),
            (entry.prot.contains(Prot::WRITE), " wr"),
            (entry.prot.contains(Prot::EXEC), " ex"),
            (entry.shared, " sh"),
        ] {
            text.push_str(if on { name } else { "" });
        }
        text.push_str(" mr mw me \n");
        out.extend(text.into_bytes());
    }
    Ok(out)
}

/// `smaps_rollup`.
pub(super) fn rollup(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let all = entries(task);
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(Vec::new()) };
    let sums = all.iter().fold(Sums { size: 0, rss: 0, private: 0 }, |s, e| Sums {
        size: s.size + e.range.len(),
        rss: s.rss + e.resident,
        private: s.private + e.private,
    });
    let mut out = format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", first.range.start, last.range.end);
    while out.len() < NAME_COLUMN {
        out.push(' ');
    }
    out.push_str("[rollup]\n");
    details(&sums, &mut out);
    Ok(out.into_bytes())
}
