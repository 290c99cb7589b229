//! A small /sys: the CPUs and a few places that programs look at.

use std::sync::Arc;

use crate::fs::pseudo::{PseudoFs, fixed_dir, fixed_file};
use crate::kernel::Kernel;
use crate::vfs::Inode;
use crate::vfs::mount::SuperBlock;

/// `SYSFS_MAGIC`.
const MAGIC: u64 = 0x6265_6572;

/// Names of CPUs, as long as directories need them.
const CPU_NAMES: [&str; 16] = [
    "cpu0", "cpu1", "cpu2", "cpu3", "cpu4", "cpu5", "cpu6", "cpu7", "cpu8", "cpu9", "cpu10", "cpu11", "cpu12", "cpu13",
    "cpu14", "cpu15",
];

/// The file system.
#[must_use]
pub fn mount(kernel: &Arc<Kernel>) -> SuperBlock {
    let fs = &PseudoFs::new(kernel.vfs.new_dev(), MAGIC);
    let dir = |entries| fixed_dir(fs, entries);
    let file = |text: String| fixed_file(fs, text);
    let count = kernel.sched.workers.len();
    let range = if count > 1 { format!("0-{}\n", count - 1) } else { "0\n".to_owned() };
    let mut cpus: Vec<(&'static str, Arc<dyn Inode>)> =
        CPU_NAMES.iter().take(count).map(|name| (*name, dir(Vec::new()))).collect();
    for name in ["online", "possible", "present"] {
        cpus.push((name, file(range.clone())));
    }
    cpus.push(("offline", file("\n".to_owned())));
    cpus.push(("kernel_max", file("8191\n".to_owned())));
    let thp = dir(vec![("enabled", file("always [madvise] never\n".to_owned()))]);
    let root = dir(vec![
        ("devices", dir(vec![("system", dir(vec![("cpu", dir(cpus))]))])),
        ("kernel", dir(vec![("mm", dir(vec![("transparent_hugepage", thp)]))])),
        ("fs", dir(vec![("cgroup", dir(Vec::new()))])),
        ("class", dir(vec![("net", dir(Vec::new()))])),
        ("block", dir(Vec::new())),
    ]);
    SuperBlock::new("sysfs", b"sysfs", String::new(), false, root)
}
