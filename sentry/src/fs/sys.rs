//! A small /sys: the CPUs and a few places that programs look at.

use std::sync::Arc;

use crate::fs::pseudo::{PseudoFile, PseudoFs, fixed_dir, fixed_file};
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
    let list = |names: &[(&'static str, &str)]| {
        names.iter().map(|(name, text)| (*name, file(format!("{text}\n")))).collect::<Vec<_>>()
    };
    let mut cpus: Vec<(&'static str, Arc<dyn Inode>)> = CPU_NAMES
        .iter()
        .take(count)
        .enumerate()
        .map(|(cpu, name)| (*name, dir(vec![("topology", dir(topology(fs, cpu, count)))])))
        .collect();
    for name in ["online", "possible", "present"] {
        cpus.push((name, file(range.clone())));
    }
    cpus.extend(list(&[("offline", ""), ("isolated", ""), ("nohz_full", ""), ("kernel_max", "8191")]));
    cpus.push(("smt", dir(list(&[("active", "0"), ("control", "notsupported")]))));
    let mut node0 = list(&[("distance", "10")]);
    node0.push(("cpulist", file(range.clone())));
    node0.push(("cpumap", file(format!("{:x}\n", mask(count)))));
    node0.push(("meminfo", Arc::new(node_meminfo(fs, kernel))));
    let mut node =
        list(&[("online", "0"), ("possible", "0"), ("has_cpu", "0"), ("has_memory", "0"), ("has_normal_memory", "0")]);
    node.push(("node0", dir(node0)));
    let source = dir(list(&[("available_clocksource", "tsc"), ("current_clocksource", "tsc")]));
    let system =
        dir(vec![("cpu", dir(cpus)), ("node", dir(node)), ("clocksource", dir(vec![("clocksource0", source)]))]);
    let thp = dir(list(&[
        ("enabled", "always [madvise] never"),
        ("defrag", "always defer defer+madvise [madvise] never"),
        ("shmem_enabled", "always within_size advise [never] deny force"),
        ("use_zero_page", "1"),
        ("hpage_pmd_size", "2097152"),
    ]));
    let empty = || dir(Vec::new());
    let root = dir(vec![
        ("devices", dir(vec![("system", system), ("virtual", empty())])),
        (
            "kernel",
            dir(vec![
                ("mm", dir(vec![("transparent_hugepage", thp), ("hugepages", empty())])),
                ("security", empty()),
                ("debug", empty()),
                ("tracing", empty()),
                ("config", empty()),
            ]),
        ),
        ("fs", dir(vec![("cgroup", empty()), ("fuse", empty()), ("bpf", empty())])),
        ("class", dir(vec![("net", empty()), ("block", empty()), ("tty", empty())])),
        ("dev", dir(vec![("block", empty()), ("char", empty())])),
        ("block", empty()),
        ("bus", empty()),
        ("firmware", empty()),
        ("module", empty()),
        ("power", empty()),
    ]);
    SuperBlock::new("sysfs", b"sysfs", String::new(), false, root)
}

/// A bit for each of `count` CPUs.
fn mask(count: usize) -> u64 {
    u64::MAX.checked_shr(64u32.saturating_sub(u32::try_from(count).unwrap_or(64))).unwrap_or(0)
}

/// Every CPU is a core of its own in one package.
fn topology(fs: &Arc<PseudoFs>, cpu: usize, count: usize) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let all = if count > 1 { format!("0-{}", count - 1) } else { "0".to_owned() };
    let bit = format!("{:x}", 1u64.checked_shl(u32::try_from(cpu).unwrap_or(0)).unwrap_or(0));
    let every = format!("{:x}", mask(count));
    let values = [
        ("core_id", cpu.to_string()),
        ("physical_package_id", "0".to_owned()),
        ("die_id", "0".to_owned()),
        ("cluster_id", "-1".to_owned()),
        ("thread_siblings", bit.clone()),
        ("thread_siblings_list", cpu.to_string()),
        ("core_cpus", bit),
        ("core_cpus_list", cpu.to_string()),
        ("core_siblings", every.clone()),
        ("core_siblings_list", all.clone()),
        ("package_cpus", every.clone()),
        ("package_cpus_list", all.clone()),
        ("die_cpus", every),
        ("die_cpus_list", all),
    ];
    values.into_iter().map(|(name, text)| (name, fixed_file(fs, format!("{text}\n")))).collect()
}

fn node_meminfo(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>) -> PseudoFile {
    let kernel = Arc::downgrade(kernel);
    let render = move || {
        let kernel = kernel.upgrade().ok_or(abi::Errno::ESRCH)?;
        let (total, used) = (kernel.memory.limit() / 1024, kernel.memory.used() / 1024);
        let mut out = String::new();
        for (name, kib) in [("MemTotal", total), ("MemFree", total.saturating_sub(used)), ("MemUsed", used)] {
            out.push_str(&format!("Node 0 {:<15}{kib:>8} kB\n", format!("{name}:")));
        }
        Ok(out.into_bytes())
    };
    PseudoFile::new(fs, 0o444, Box::new(render))
}
