//! The control group of a container as it sees it: the root of a cgroup v2 hierarchy with its limits and what it uses,
//! read-only (cgroups(7)). Runtimes such as the JVM and Go size themselves by it.

use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::boot::request::Stats;
use crate::fs::pseudo::{PseudoFile, PseudoFs, fixed_dir, fixed_file};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::vfs::Inode;
use crate::vfs::mount::SuperBlock;

/// `CGROUP2_SUPER_MAGIC`.
const MAGIC: u64 = 0x6367_7270;

type Show = fn(&Arc<Container>, &Stats) -> String;

/// Files whose content never changes.
const FIXED: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpu memory pids\n"),
    ("cgroup.subtree_control", "\n"),
    ("cgroup.type", "domain\n"),
    ("cgroup.max.depth", "max\n"),
    ("cgroup.max.descendants", "max\n"),
    ("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n"),
    ("cpu.weight", "100\n"),
    ("memory.high", "max\n"),
    ("memory.low", "0\n"),
    ("memory.min", "0\n"),
    ("memory.swap.current", "0\n"),
    ("memory.swap.max", "0\n"),
];

/// Files that tell of the container.
const SHOWN: &[(&str, Show)] = &[
    ("cgroup.procs", |container, _| ids(container.groups().iter().filter(|g| !g.is_zombie()).map(|g| g.tgid.0))),
    ("cgroup.threads", |container, _| ids(container.tasks().iter().map(|task| task.tid.0))),
    ("cgroup.events", |container, _| format!("populated 1\nfrozen {}\n", u8::from(container.is_frozen()))),
    ("cgroup.freeze", |container, _| format!("{}\n", u8::from(container.is_frozen()))),
    ("cpu.max", |container, _| cpu_max(container)),
    ("cpu.stat", |_, stats| {
        let usec = |nanos: u64| nanos / 1000;
        let cpu = &stats.cpu;
        let (total, user, system) = (usec(cpu.total), usec(cpu.user), usec(cpu.system));
        format!(
            "usage_usec {total}\nuser_usec {user}\nsystem_usec {system}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
        )
    }),
    ("memory.current", |_, stats| format!("{}\n", stats.memory.usage)),
    ("memory.peak", |_, stats| format!("{}\n", stats.memory.max_usage)),
    ("memory.max", |_, stats| limit(stats.memory.limit)),
    ("memory.stat", |_, stats| {
        let memory = &stats.memory;
        format!("anon {}\nfile {}\nkernel {}\n", memory.anon, memory.file, memory.kernel)
    }),
    ("memory.events", |_, stats| {
        let (max, kills) = (stats.memory.failcnt, stats.memory.oom_kills);
        format!("low 0\nhigh 0\nmax {max}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n")
    }),
    ("pids.current", |_, stats| format!("{}\n", stats.pids)),
    ("pids.max", |_, stats| limit(stats.pids_limit)),
];

fn limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max\n".to_owned(), |limit| format!("{limit}\n"))
}

/// Quota and period, microseconds.
fn cpu_max(container: &Container) -> String {
    const PERIOD: u64 = 100_000;
    match container.usage.cpu_limit() {
        Some(millis) => format!("{} {PERIOD}\n", millis.saturating_mul(PERIOD / 1000)),
        None => format!("max {PERIOD}\n"),
    }
}

fn ids(ids: impl Iterator<Item = i32>) -> String {
    ids.fold(String::new(), |mut text, id| {
        let _ = writeln!(text, "{id}");
        text
    })
}

/// The file system.
#[must_use]
pub fn mount(kernel: &Arc<Kernel>, container: &Arc<Container>) -> SuperBlock {
    let fs = PseudoFs::new(kernel.vfs.new_dev(), MAGIC);
    let mut files: Vec<(&'static str, Arc<dyn Inode>)> =
        FIXED.iter().map(|(name, text)| (*name, fixed_file(&fs, *text))).collect();
    for (name, show) in SHOWN {
        let of: (Weak<Kernel>, Weak<Container>) = (Arc::downgrade(kernel), Arc::downgrade(container));
        let render = move || {
            let (kernel, container) = of.0.upgrade().zip(of.1.upgrade()).ok_or(Errno::ENODEV)?;
            Ok(show(&container, &kernel.stats(&container)).into_bytes())
        };
        files.push((name, Arc::new(PseudoFile::new(&fs, 0o444, Box::new(render)))));
    }
    SuperBlock::new("cgroup2", b"cgroup", String::new(), false, fixed_dir(&fs, files))
}
