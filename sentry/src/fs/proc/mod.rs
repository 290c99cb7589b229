//! /proc: what this kernel knows of itself and of its processes; nothing of the host.
//!
//! One file a kind of thing: `system` (files about the whole), `sysctl` (/proc/sys), `pid` (a process's directory),
//! `status`, `maps`, `fds`, `mounts` (files in it). Content is made when a file is read from its start.

mod extra;
mod fds;
mod locks;
mod maps;
mod memory;
mod mounts;
pub mod nanovisor;
mod net;
mod pid;
mod status;
mod sysctl;
mod system;

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::fs::pseudo::{Entry, Listing, PseudoDir, PseudoFs, PseudoLink, Render, fixed_link};
use crate::kernel::Kernel;
use crate::kernel::container::Namespaces;
use crate::kernel::task::{Task, Tid};
use crate::vfs::mount::SuperBlock;
use crate::vfs::mount_ns;
use crate::vfs::{Caller, FileType, Inode, PathRef};

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;

/// What all parts of /proc need.
#[derive(Clone)]
struct Proc {
    fs: Arc<PseudoFs>,
    kernel: Weak<Kernel>,
    /// Those of who mounted it: whose processes are listed, whose names shown.
    ns: Namespaces,
    /// `/proc/PID/net`, the same for all.
    net: Arc<dyn Inode>,
}

impl Proc {
    /// A render function that is given the kernel.
    fn render(&self, f: impl Fn(&Arc<Kernel>) -> Vec<u8> + Send + Sync + 'static) -> Render {
        let kernel = self.kernel.clone();
        Box::new(move || kernel.upgrade().map(|k| f(&k)).ok_or(Errno::ESRCH))
    }
}

/// The root of the tree, from which a task's paths are shown.
fn root_of(task: &Task) -> Option<PathRef> {
    let state = task.fs()?.state.lock().clone();
    mount_ns::root_of(&task.kernel.vfs.mounts, &state).ok().map(|m| m.root_path())
}

struct Root {
    proc: Proc,
    fixed: Vec<(&'static str, Arc<dyn Inode>)>,
}

fn number(name: &[u8]) -> Option<Tid> {
    let digits = std::str::from_utf8(name).ok()?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok().map(Tid) } else { None }
}

impl Listing for Root {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if let Some((_, inode)) = self.fixed.iter().find(|(n, _)| n.as_bytes() == name) {
            return Ok(inode.clone());
        }
        let tid = number(name).ok_or(Errno::ENOENT)?;
        let task = self.proc.ns.pids.task(tid).ok_or(Errno::ENOENT)?;
        Ok(pid::directory(&self.proc, &task, true))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let entry = |(name, inode): &(&str, Arc<dyn Inode>)| {
            let attr = inode.attr();
            (name.as_bytes().to_vec(), attr.key.ino, attr.kind)
        };
        self.fixed.iter().map(entry).collect()
    }

    fn from(&self, caller: &Caller<'_>, from: u64) -> Vec<(u64, Entry)> {
        // Processes come and go: their cookies are made of their ids, behind those of the files.
        const PIDS: u64 = 1 << 20;
        let fixed = self.entries(caller).into_iter().enumerate();
        let mut all: Vec<(u64, Entry)> = fixed.map(|(i, e)| (i as u64 + 1, e)).collect();
        let groups = self.proc.ns.pids.groups();
        for group in groups {
            let tgid = group.tgid.0;
            let cookie = PIDS + u64::from(tgid.unsigned_abs());
            all.push((cookie, (tgid.to_string().into_bytes(), pid::ino(group.tgid, 0), FileType::Directory)));
        }
        all.sort_by_key(|(cookie, _)| *cookie);
        all.retain(|(cookie, _)| *cookie > from);
        all
    }
}

fn self_links(proc: &Proc) -> [(&'static str, Arc<dyn Inode>); 2] {
    let this = PseudoLink::new(
        &proc.fs,
        Box::new(|caller| {
            let task = caller.task.ok_or(Errno::ENOENT)?;
            Ok(task.group.tgid.0.to_string().into_bytes())
        }),
    );
    let thread = PseudoLink::new(
        &proc.fs,
        Box::new(|caller| {
            let task = caller.task.ok_or(Errno::ENOENT)?;
            Ok(format!("{}/task/{}", task.group.tgid.0, task.tid.0).into_bytes())
        }),
    );
    [("self", Arc::new(this)), ("thread-self", Arc::new(thread))]
}

/// The process whose directory in a /proc `file` opens; `None` where it is none.
#[must_use]
pub fn process_of(
    file: &crate::vfs::FileDescription,
) -> Option<Result<Arc<crate::kernel::thread_group::ThreadGroup>, Errno>> {
    pid::process_of(file.inode.as_ref()?.as_any())
}

/// The arguments of a process, each with a NUL; empty where it has none.
#[must_use]
pub fn command_line(task: &Task) -> Vec<u8> {
    status::arguments(task)
}

/// The file system, for the processes of `ns`.
#[must_use]
pub fn mount(kernel: &Arc<Kernel>, ns: &Namespaces) -> SuperBlock {
    let fs = PseudoFs::new(kernel.vfs.new_dev(), MAGIC);
    let proc = Proc { fs: fs.clone(), kernel: Arc::downgrade(kernel), ns: ns.clone(), net: net::directory(&fs) };
    let mut fixed = Vec::new();
    fixed.extend(self_links(&proc));
    fixed.extend(system::files(&proc));
    fixed.push(("locks", locks::file(&proc)));
    fixed.push(("sys", sysctl::directory(&proc)));
    fixed.push(("mounts", fixed_link(&fs, "self/mounts")));
    fixed.push(("net", fixed_link(&fs, "self/net")));
    fixed.push(("nanovisor", nanovisor::directory(&proc)));
    SuperBlock::new("proc", b"proc", String::new(), false, PseudoDir::new(&fs, 0o555, Root { proc, fixed }))
}
