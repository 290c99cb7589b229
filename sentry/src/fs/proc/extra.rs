//! Smaller parts of a process's directory: `attr`, `map_files`, `children`, `numa_maps`, `personality`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use super::Proc;
use super::pid::{Of, may_look, show, target_of};
use crate::fs::pseudo::{Entry, Listing, PseudoFile, PseudoLink};
use crate::kernel::task::Task;
use crate::mm::info::MapsEntry;
use crate::vfs::{Caller, FileType, Inode};

/// `attr`: the files of a security module that is not there.
pub(super) struct Attrs {
    pub of: Of,
}

const ATTRS: [&str; 6] = ["current", "exec", "fscreate", "keycreate", "prev", "sockcreate"];

impl Listing for Attrs {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let index = ATTRS.iter().position(|n| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let attr = self.of.attr(60 + index as u64, FileType::Regular, 0o666);
        let none = || Err(Errno::EINVAL);
        let file = PseudoFile::passing(&self.of.proc.fs, attr, Box::new(none));
        Ok(Arc::new(file.writable(Box::new(|_| Err(Errno::EINVAL)))))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let ino = |index: usize| super::pid::ino(self.of.tid, 60 + index as u64);
        ATTRS.iter().enumerate().map(|(i, n)| (n.as_bytes().to_vec(), ino(i), FileType::Regular)).collect()
    }
}

/// `map_files`: a link for every mapping of a file.
pub(super) struct MapFiles {
    pub of: Of,
}

impl MapFiles {
    fn mapped(of: &Of) -> Vec<(String, MapsEntry)> {
        let mm = of.task().ok().and_then(|t| t.mm());
        let maps = mm.map(|mm| mm.maps()).unwrap_or_default();
        let named = |e: MapsEntry| (format!("{:x}-{:x}", e.range.start, e.range.end), e);
        maps.into_iter().filter(|e| e.file.is_some()).map(named).collect()
    }
}

impl Listing for MapFiles {
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        may_look(caller, &*self.of.task()?)?;
        let found = Self::mapped(&self.of).into_iter().find(|(n, _)| n.as_bytes() == name);
        let (_, entry) = found.ok_or(Errno::ENOENT)?;
        let file = entry.file.ok_or(Errno::ENOENT)?;
        let mut attr = self.of.attr(70, FileType::Symlink, 0o600);
        attr.size = 64;
        let shown = file.clone();
        Ok(Arc::new(PseudoLink::magic(
            &self.of.proc.fs,
            attr,
            Box::new(move |caller| Ok(show(&target_of(shown.clone()), &caller.root))),
            Box::new(move |_| Ok(target_of(file.clone()))),
        )))
    }

    fn entries(&self, caller: &Caller<'_>) -> Vec<Entry> {
        if !self.of.task().is_ok_and(|task| may_look(caller, &task).is_ok()) {
            return Vec::new();
        }
        let ino = super::pid::ino(self.of.tid, 70);
        Self::mapped(&self.of).into_iter().map(|(n, _)| (n.into_bytes(), ino, FileType::Symlink)).collect()
    }
}

/// `children`: those of the process, at its first thread.
pub(super) fn children(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    if !task.is_leader() {
        return Ok(Vec::new());
    }
    let children = task.group.state.lock().children.clone();
    Ok(children.iter().map(|c| format!("{} ", c.tgid.0)).collect::<String>().into_bytes())
}

/// `numa_maps`: all memory is on node 0.
pub(super) fn numa_maps(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for entry in task.mm().map(|mm| mm.maps()).unwrap_or_default() {
        let _ = write!(out, "{:08x} default", entry.range.start);
        if entry.private > 0 {
            let _ = write!(out, " anon={} dirty={}", entry.private / 4096, entry.private / 4096);
        }
        if entry.resident > 0 {
            let _ = write!(out, " N0={}", entry.resident / 4096);
        }
        out.push_str(" kernelpagesize_kB=4\n");
    }
    Ok(out.into_bytes())
}

/// `personality`.
pub(super) fn personality(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    Ok(format!("{:08x}\n", task.group.personality.load(Ordering::Relaxed)).into_bytes())
}
