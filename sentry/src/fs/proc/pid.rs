//! `/proc/PID` and `/proc/PID/task/TID`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::Errno;

use super::{Proc, extra, fds, maps, memory, mounts, status};
use crate::fs::pseudo::{Entry, Listing, PseudoDir, PseudoFile, PseudoLink};
use crate::kernel::oom;
use crate::kernel::task::{Task, Tid};
use crate::vfs::file::Target;
use crate::vfs::perm::CAP_SYS_PTRACE;
use crate::vfs::{Attr, Caller, FileDescription, FileType, Inode, PathRef};

/// The inode number of file `index` of a task.
pub(super) fn ino(tid: Tid, index: u64) -> u64 {
    (1 << 40) | (u64::from(tid.0.unsigned_abs()) << 16) | index
}

/// A task's part of /proc, which goes with it.
#[derive(Clone)]
pub(super) struct Of {
    pub proc: Proc,
    pub task: Weak<Task>,
    pub tid: Tid,
}

impl Of {
    pub(super) fn new(proc: &Proc, task: &Arc<Task>) -> Self {
        Of { proc: proc.clone(), task: Arc::downgrade(task), tid: task.tid }
    }

    /// The task.
    pub(super) fn task(&self) -> Result<Arc<Task>, Errno> {
        self.task.upgrade().ok_or(Errno::ESRCH)
    }

    /// Attributes of one of its files: owned by its user where it may be looked into, by root otherwise.
    pub(super) fn attr(&self, index: u64, kind: FileType, perm: u32) -> Attr {
        let mut attr = self.proc.fs.attr(self.proc.fs.key(ino(self.tid, index)), kind, perm);
        if let Some(task) = self.task.upgrade().filter(|t| t.group.is_dumpable()) {
            let creds = task.creds();
            (attr.uid, attr.gid) = (creds.euid(), creds.egid());
        }
        attr
    }
}

/// Whether the caller may look into `task` (`ptrace_may_access`, PTRACE_MODE_READ).
///
/// # Errors
/// `EACCES`.
pub(super) fn may_look(caller: &Caller<'_>, task: &Task) -> Result<(), Errno> {
    let Some(this) = caller.task else { return Ok(()) };
    if Arc::ptr_eq(&this.group, &task.group) || caller.creds.has_cap(CAP_SYS_PTRACE) {
        return Ok(());
    }
    let (mine, theirs) = (&caller.creds, task.creds());
    let same = theirs.uid[..3].iter().all(|u| *u == mine.fsuid()) && theirs.gid[..3].iter().all(|g| *g == mine.fsgid());
    let within = theirs.caps.permitted & !mine.caps.permitted == 0;
    if same && within && task.group.is_dumpable() { Ok(()) } else { Err(Errno::EACCES) }
}

type RenderTask = fn(&Proc, &Arc<Task>) -> Result<Vec<u8>, Errno>;
/// What an entry is: mode, whether only who may look into the task may open it, content.
type FileLine = (&'static str, u32, bool, RenderTask);

/// Files of processes and threads.
const FILES: &[FileLine] = &[
    ("stat", 0o444, false, status::stat),
    ("statm", 0o444, false, status::statm),
    ("status", 0o444, false, status::status),
    ("comm", 0o644, false, status::comm),
    ("cmdline", 0o444, false, status::cmdline),
    ("environ", 0o400, true, status::environ),
    ("auxv", 0o400, true, status::auxv),
    ("limits", 0o444, false, status::limits),
    ("io", 0o400, true, status::io),
    ("maps", 0o444, true, maps::maps),
    ("smaps", 0o444, true, maps::smaps),
    ("smaps_rollup", 0o444, true, maps::rollup),
    ("mounts", 0o444, false, |_, task| mounts::mounts(task)),
    ("mountinfo", 0o444, false, |_, task| mounts::mountinfo(task)),
    ("mountstats", 0o400, false, |_, task| mounts::mountstats(task)),
    ("cgroup", 0o444, false, |_, _| Ok(b"0::/\n".to_vec())),
    ("cpuset", 0o444, false, |_, _| Ok(b"/\n".to_vec())),
    ("wchan", 0o444, false, |_, _| Ok(b"0".to_vec())),
    ("syscall", 0o400, true, |_, _| Ok(b"running\n".to_vec())),
    ("stack", 0o400, true, |_, _| Ok(Vec::new())),
    ("personality", 0o400, true, extra::personality),
    ("sessionid", 0o444, false, |_, _| Ok(b"4294967295".to_vec())),
    ("loginuid", 0o644, false, |_, _| Ok(b"4294967295".to_vec())),
    ("oom_score", 0o444, false, |_, task| Ok(format!("{}\n", oom::score(&task.kernel, &task.group)).into_bytes())),
    ("oom_score_adj", 0o644, false, |_, task| Ok(format!("{}\n", adj_of(task)).into_bytes())),
    ("oom_adj", 0o644, false, |_, task| Ok(format!("{}\n", to_legacy(adj_of(task))).into_bytes())),
    ("uid_map", 0o644, false, |_, _| Ok(id_map())),
    ("gid_map", 0o644, false, |_, _| Ok(id_map())),
    ("setgroups", 0o644, false, |_, _| Ok(b"allow\n".to_vec())),
    ("schedstat", 0o444, false, status::schedstat),
    ("children", 0o444, false, extra::children),
    ("numa_maps", 0o444, true, extra::numa_maps),
    ("coredump_filter", 0o644, false, |_, _| Ok(b"00000033\n".to_vec())),
    ("clear_refs", 0o200, false, |_, _| Err(Errno::EINVAL)),
    ("projid_map", 0o644, false, |_, _| Ok(id_map())),
    ("timens_offsets", 0o644, false, |_, _| {
        Ok(b"monotonic           0         0\nboottime            0         0\n".to_vec())
    }),
    ("autogroup", 0o644, false, |_, _| Ok(b"/autogroup-1 nice 0\n".to_vec())),
    ("timerslack_ns", 0o666, true, |_, _| Ok(b"50000\n".to_vec())),
];

fn adj_of(task: &Task) -> i32 {
    task.group.oom_score_adj.load(Ordering::Relaxed)
}

/// `OOM_DISABLE` of the legacy `oom_adj`, whose scale is -17..=15.
const LEGACY_MIN: i32 = -17;

fn to_legacy(adj: i32) -> i32 {
    if adj == oom::ADJ_MAX { 15 } else { adj * -LEGACY_MIN / oom::ADJ_MAX }
}

/// `oom_score_adj_write`, `oom_adj_write`.
fn set_adj(task: &Task, text: &[u8], legacy: bool) -> Result<(), Errno> {
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let number: i32 = text.trim_end_matches('\0').trim().parse().map_err(|_| Errno::EINVAL)?;
    let adj = match (legacy, number) {
        (false, n) if (oom::ADJ_MIN..=oom::ADJ_MAX).contains(&n) => n,
        (true, 15) => oom::ADJ_MAX,
        (true, n) if (LEGACY_MIN..15).contains(&n) => n * oom::ADJ_MAX / -LEGACY_MIN,
        _ => return Err(Errno::EINVAL),
    };
    task.group.oom_score_adj.store(adj, Ordering::Relaxed);
    Ok(())
}

const LINKS: [&str; 3] = ["cwd", "root", "exe"];
const DIRS: [&str; 7] = ["fd", "fdinfo", "ns", "net", "task", "attr", "map_files"];
const MEMORY: [(&str, u32, memory::Kind); 2] =
    [("mem", 0o600, memory::Kind::Mem), ("pagemap", 0o400, memory::Kind::PageMap)];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The number of a task's namespace.
fn namespace_number(task: &Task, name: &str) -> u32 {
    let ns = task.ns();
    match name {
        "cgroup" => ns.cgroup,
        "ipc" => ns.ipc.ino,
        "mnt" => {
            let own = task.fs().and_then(|fs| fs.state.lock().ns.as_ref().map(|ns| ns.ino));
            own.unwrap_or(0xefff_fff8)
        }
        "net" => ns.net,
        "pid" => ns.pids.ino,
        "time" => 0xefff_fffa,
        "user" => 0xefff_fffd,
        _ => ns.uts.ino,
    }
}

fn id_map() -> Vec<u8> {
    b"         0          0 4294967295\n".to_vec()
}

struct TaskDir {
    of: Of,
    /// A process's directory, with `task` in it, not a thread's.
    process: bool,
}

/// The directory of a task: of its process, or its own under `task`.
pub(super) fn directory(proc: &Proc, task: &Arc<Task>, process: bool) -> Arc<dyn Inode> {
    let of = Of::new(proc, task);
    let attr = of.attr(if process { 0 } else { 1 }, FileType::Directory, 0o555);
    PseudoDir::passing(&proc.fs, attr, TaskDir { of, process })
}

/// The process whose directory this is.
pub(super) fn process_of(
    inode: &dyn std::any::Any,
) -> Option<Result<Arc<crate::kernel::thread_group::ThreadGroup>, Errno>> {
    let dir = inode.downcast_ref::<PseudoDir<TaskDir>>()?.listing();
    dir.process.then(|| dir.of.task().map(|t| t.group.clone()))
}

impl TaskDir {
    fn names(&self) -> impl Iterator<Item = (&'static str, FileType)> {
        // Some are only in the process's directory, some only in the threads'.
        let here = |n: &str| if self.process { n != "children" } else { n != "task" && n != "map_files" };
        let dirs = DIRS.iter().filter(move |n| here(n)).map(|n| (*n, FileType::Directory));
        let links = LINKS.iter().map(|n| (*n, FileType::Symlink));
        let memory = MEMORY.iter().map(|(n, _, _)| (*n, FileType::Regular));
        dirs.chain(links).chain(memory).chain(FILES.iter().filter(move |f| here(f.0)).map(|f| (f.0, FileType::Regular)))
    }

    fn file(&self, index: usize, line: &FileLine) -> Arc<dyn Inode> {
        let (name, perm, guarded, render) = *line;
        let of = self.of.clone();
        let attr = of.attr(100 + index as u64, FileType::Regular, perm);
        let fs = of.proc.fs.clone();
        let (reader, guard, writer) = (of.clone(), of.clone(), of);
        let mut file = PseudoFile::passing(&fs, attr, Box::new(move || render(&reader.proc, &reader.task()?)));
        if guarded {
            file = file.guarded(Box::new(move |caller| may_look(caller, &*guard.task()?)));
        }
        if name == "comm" {
            file = file.writable(Box::new(move |text| {
                let name = text.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
                writer.task()?.shared.lock().name = name.get(..name.len().min(15)).unwrap_or_default().to_vec();
                Ok(())
            }));
        } else if name.starts_with("oom_") && perm & 0o200 != 0 {
            file = file.writable(Box::new(move |text| set_adj(&*writer.task()?, text, name == "oom_adj")));
        } else if perm & 0o200 != 0 {
            // Settings that change nothing here: taken, as a program that sets them expects.
            file = file.writable(Box::new(|_| Ok(())));
        }
        Arc::new(file)
    }

    fn link(&self, index: usize, name: &'static str) -> Arc<dyn Inode> {
        let of = self.of.clone();
        let attr = of.attr(10 + index as u64, FileType::Symlink, 0o777);
        let fs = of.proc.fs.clone();
        let (shown, jump) = (of.clone(), of);
        Arc::new(PseudoLink::magic(
            &fs,
            attr,
            Box::new(move |caller| Ok(show(&leads_to(&shown, caller, name)?, &caller.root))),
            Box::new(move |caller| leads_to(&jump, caller, name)),
        ))
    }
}

/// Where `cwd`, `root` or `exe` leads.
fn leads_to(of: &Of, caller: &Caller<'_>, name: &str) -> Result<Target, Errno> {
    let task = of.task()?;
    may_look(caller, &task)?;
    if name == "exe" {
        let exe = task.mm().ok_or(Errno::ENOENT)?.program().exe.ok_or(Errno::ENOENT)?;
        return Ok(target_of(exe));
    }
    let fs = task.fs().ok_or(Errno::ENOENT)?;
    let state = fs.state.lock().clone();
    Ok(Target::Path(if name == "cwd" { state.cwd } else { state.root }))
}

/// An open file as the target of a magic link.
pub(super) fn target_of(file: Arc<FileDescription>) -> Target {
    match &file.path {
        Some(path) => Target::Path(path.clone()),
        None => Target::File(file),
    }
}

/// The text of a magic link.
pub(super) fn show(target: &Target, root: &PathRef) -> Vec<u8> {
    match target {
        Target::Path(path) => path.display(root),
        Target::File(file) => file.ops.describe().into_bytes(),
    }
}

impl Listing for TaskDir {
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.of.task().map_err(|_| Errno::ENOENT)?;
        if let Some(index) = FILES.iter().position(|f| f.0.as_bytes() == name) {
            return FILES.get(index).map(|line| self.file(index, line)).ok_or(Errno::ENOENT);
        }
        if let Some(index) = LINKS.iter().position(|n| n.as_bytes() == name) {
            return LINKS.get(index).map(|name| self.link(index, name)).ok_or(Errno::ENOENT);
        }
        let fs = &self.of.proc.fs;
        if let Some((index, (_, perm, kind))) = MEMORY.iter().enumerate().find(|(_, m)| m.0.as_bytes() == name) {
            let attr = self.of.attr(80 + index as u64, FileType::Regular, *perm);
            return Ok(Arc::new(memory::MemoryFileNode { of: self.of.clone(), attr, kind: *kind }));
        }
        let attr = |index, perm| self.of.attr(index, FileType::Directory, perm);
        let _ = caller;
        match name {
            b"fd" => Ok(PseudoDir::passing(fs, attr(20, 0o500), fds::Fds::new(&self.of, false))),
            b"fdinfo" => Ok(PseudoDir::passing(fs, attr(21, 0o555), fds::Fds::new(&self.of, true))),
            b"ns" => Ok(PseudoDir::passing(fs, attr(22, 0o511), Namespaces { of: self.of.clone() })),
            b"net" => Ok(self.of.proc.net.clone()),
            b"attr" => Ok(PseudoDir::passing(fs, attr(25, 0o555), extra::Attrs { of: self.of.clone() })),
            b"map_files" if self.process => {
                Ok(PseudoDir::passing(fs, attr(26, 0o500), extra::MapFiles { of: self.of.clone() }))
            }
            b"task" if self.process => Ok(PseudoDir::passing(fs, attr(24, 0o555), Threads { of: self.of.clone() })),
            _ => Err(Errno::ENOENT),
        }
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let entry = |(index, (name, kind)): (usize, (&str, FileType))| {
            (name.as_bytes().to_vec(), ino(self.of.tid, 1000 + index as u64), kind)
        };
        self.names().enumerate().map(entry).collect()
    }
}

/// `/proc/PID/task`.
struct Threads {
    of: Of,
}

impl Listing for Threads {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let tid = super::number(name).ok_or(Errno::ENOENT)?;
        let group = self.of.task().map_err(|_| Errno::ENOENT)?.group.clone();
        let task = self.of.proc.ns.pids.task(tid).ok_or(Errno::ENOENT)?;
        if Arc::ptr_eq(&task.group, &group) { Ok(directory(&self.of.proc, &task, false)) } else { Err(Errno::ENOENT) }
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let Ok(task) = self.of.task() else { return Vec::new() };
        let mut tids: Vec<Tid> = task.group.tasks().iter().map(|t| t.tid).collect();
        tids.sort();
        let entry = |tid: Tid| (tid.0.to_string().into_bytes(), ino(tid, 1), FileType::Directory);
        tids.into_iter().map(entry).collect()
    }
}

/// `/proc/PID/ns`.
struct Namespaces {
    of: Of,
}

impl Listing for Namespaces {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let found = NAMESPACES.iter().enumerate().find(|(_, n)| n.as_bytes() == name);
        let (index, name) = found.ok_or(Errno::ENOENT)?;
        let number = namespace_number(&*self.of.task()?, name);
        let attr = self.of.attr(40 + index as u64, FileType::Symlink, 0o777);
        let text = format!("{name}:[{number}]").into_bytes();
        let nowhere = |_: &Caller<'_>| Err(Errno::EACCES);
        Ok(Arc::new(PseudoLink::magic(&self.of.proc.fs, attr, Box::new(move |_| Ok(text.clone())), Box::new(nowhere))))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Vec<Entry> {
        let entry = |(index, name): (usize, &&str)| {
            (name.as_bytes().to_vec(), ino(self.of.tid, 40 + index as u64), FileType::Symlink)
        };
        NAMESPACES.iter().enumerate().map(entry).collect()
    }
}
