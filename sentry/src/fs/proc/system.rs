//! Files about the whole: CPUs, memory, time, what there is.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Proc;
use crate::fs::pseudo::{PseudoFile, fixed_dir, fixed_file};
use crate::kernel::Kernel;
use crate::kernel::task::Run;
use crate::syscalls::misc::{RELEASE, VERSION};
use crate::vfs::Inode;

/// Ticks of `sysconf(_SC_CLK_TCK)` in nanoseconds.
pub(super) const TICK: u64 = 10_000_000;

type NamedFile = (&'static str, Arc<dyn Inode>);

/// The files.
pub(super) fn files(proc: &Proc) -> Vec<NamedFile> {
    let made = |f: fn(&Arc<Kernel>) -> Vec<u8>| -> Arc<dyn Inode> {
        Arc::new(PseudoFile::new(&proc.fs, 0o444, proc.render(f)))
    };
    let fixed = |text: &str| fixed_file(&proc.fs, text);
    vec![
        ("cpuinfo", made(cpuinfo)),
        ("meminfo", made(meminfo)),
        ("stat", made(stat)),
        ("uptime", made(uptime)),
        ("loadavg", made(loadavg)),
        ("version", fixed(&format!("Linux version {RELEASE} (nanovisor) {VERSION}\n"))),
        (
            "filesystems",
            fixed("nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\toverlay\n\terofs\n"),
        ),
        (
            "devices",
            fixed(
                "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n",
            ),
        ),
        ("partitions", fixed("major minor  #blocks  name\n\n")),
        ("swaps", fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
        ("modules", fixed("")),
        ("diskstats", fixed("")),
        ("cgroups", fixed("#subsys_name\thierarchy\tnum_cgroups\tenabled\n")),
        ("cmdline", fixed("nanovisor\n")),
        ("vmstat", made(vmstat)),
        ("interrupts", made(interrupts)),
        ("softirqs", made(softirqs)),
        ("schedstat", fixed("version 15\ntimestamp 0\n")),
        ("buddyinfo", fixed("")),
        ("zoneinfo", fixed("")),
        ("slabinfo", fixed("slabinfo - version: 2.1\n")),
        ("kallsyms", fixed("")),
        ("consoles", fixed("console              -W- (EC    )    5:1\n")),
        ("crypto", fixed("")),
        ("dma", fixed("")),
        ("execdomains", fixed("0-0\tLinux           \t[kernel]\n")),
        ("fb", fixed("")),
        ("iomem", fixed("")),
        ("ioports", fixed("")),
        ("key-users", fixed("")),
        ("keys", fixed("")),
        ("misc", fixed("")),
        ("mdstat", fixed("Personalities : \nunused devices: <none>\n")),
        ("timer_list", fixed("")),
        ("pressure", pressure(proc)),
        ("sysvipc", sysvipc(proc)),
        (
            "tty",
            fixed_dir(
                &proc.fs,
                vec![(
                    "drivers",
                    fixed(
                        "/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/console         /dev/console    5       1 system:console\n/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\npty_master           /dev/ptm      128 0-1048575 pty:master\n",
                    ),
                )],
            ),
        ),
        ("bus", fixed_dir(&proc.fs, Vec::new())),
        ("driver", fixed_dir(&proc.fs, Vec::new())),
        ("irq", fixed_dir(&proc.fs, Vec::new())),
    ]
}

/// The flags of `/proc/cpuinfo` that this CPU has, as far as the standard library can tell.
fn cpu_flags() -> String {
    macro_rules! detected {
        ($($feature:tt $name:literal),* $(,)?) => {{
            let mut flags = String::from("fpu tsc cx8 cmov mmx fxsr");
            $(if std::arch::is_x86_feature_detected!($feature) {
                flags.push(' ');
                flags.push_str($name);
            })*
            flags.push_str(" syscall nx lm constant_tsc rep_good nopl");
            flags
        }};
    }
    detected!(
        "sse" "sse", "sse2" "sse2", "sse3" "pni", "pclmulqdq" "pclmulqdq", "ssse3" "ssse3", "fma" "fma",
        "sse4.1" "sse4_1", "sse4.2" "sse4_2", "movbe" "movbe", "popcnt" "popcnt", "aes" "aes", "xsave" "xsave",
        "avx" "avx", "f16c" "f16c", "rdrand" "rdrand", "lzcnt" "abm", "bmi1" "bmi1", "avx2" "avx2", "bmi2" "bmi2",
        "avx512f" "avx512f", "avx512dq" "avx512dq", "rdseed" "rdseed", "adx" "adx", "avx512cd" "avx512cd",
        "avx512bw" "avx512bw", "avx512vl" "avx512vl", "sha" "sha_ni", "xsaveopt" "xsaveopt", "xsavec" "xsavec",
        "vaes" "vaes", "gfni" "gfni", "vpclmulqdq" "vpclmulqdq",
    )
}

fn cpuinfo(kernel: &Arc<Kernel>) -> Vec<u8> {
    let count = kernel.sched.workers.len();
    let flags = cpu_flags();
    let mut out = String::new();
    for cpu in 0..count {
        let _ = write!(
            out,
            "processor\t: {cpu}\nvendor_id\t: nanovisor\ncpu family\t: 6\nmodel\t\t: 0\nmodel name\t: nanovisor virtual CPU\n\
             stepping\t: 0\ncpu MHz\t\t: 1000.000\ncache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: {count}\n\
             core id\t\t: {cpu}\ncpu cores\t: {count}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\n\
             fpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {flags}\nbugs\t\t:\n\
             bogomips\t: 2000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
             address sizes\t: 46 bits physical, 48 bits virtual\npower management:\n\n"
        );
    }
    out.into_bytes()
}

fn meminfo(kernel: &Arc<Kernel>) -> Vec<u8> {
    let total = kernel.memory.limit() / 1024;
    let frames = kernel.memory.used() / 1024;
    let kernel_objects = kernel.memory.kernel_bytes() / 1024;
    let free = total.saturating_sub(frames + kernel_objects);
    let shmem = kernel.memory.shared() / 1024;
    let anon = frames.saturating_sub(shmem);
    let mut out = String::new();
    let mut line = |name: &str, kib: u64| {
        let _ = writeln!(out, "{:<16}{kib:>8} kB", format!("{name}:"));
    };
    for (name, kib) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", shmem),
        ("SwapCached", 0),
        ("Active", frames),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", anon),
        ("Mapped", 0),
        ("Shmem", shmem),
        ("Slab", kernel_objects),
        ("CommitLimit", total),
        ("Committed_AS", frames),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("Hugepagesize", 2048),
    ] {
        line(name, kib);
    }
    out.push_str("HugePages_Total:       0\nHugePages_Free:        0\n");
    out.into_bytes()
}

fn boot_seconds(kernel: &Kernel) -> u64 {
    let up = kernel.clock.monotonic().saturating_sub(kernel.clock.boot_time());
    let at = kernel.clock.realtime().saturating_sub(up);
    at.max(0).cast_unsigned() / 1_000_000_000
}

fn stat(kernel: &Arc<Kernel>) -> Vec<u8> {
    let tasks = kernel.tasks();
    let (mut user, mut system) = (0u64, 0u64);
    for task in &tasks {
        let (total, own) = task.cpu_times();
        user += own / TICK;
        system += (total - own) / TICK;
    }
    let cpus = kernel.sched.workers.len() as u64;
    let up = kernel.clock.monotonic().saturating_sub(kernel.clock.boot_time()).max(0).cast_unsigned() / TICK;
    let idle = (up * cpus).saturating_sub(user + system);
    let mut out = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        let _ = writeln!(out, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0", user / cpus, system / cpus, idle / cpus);
    }
    let running = tasks.iter().filter(|t| matches!(t.run.get(), Run::Running | Run::Notified | Run::Queued)).count();
    let _ = write!(
        out,
        "intr 0\nctxt 0\nbtime {}\nprocesses {}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        boot_seconds(kernel),
        tasks.iter().map(|t| t.tid.0).max().unwrap_or(0),
    );
    out.into_bytes()
}

fn uptime(kernel: &Arc<Kernel>) -> Vec<u8> {
    let up = kernel.clock.monotonic().saturating_sub(kernel.clock.boot_time()).max(0) / 10_000_000;
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, up / 100, up % 100).into_bytes()
}

fn loadavg(kernel: &Arc<Kernel>) -> Vec<u8> {
    let tasks = kernel.tasks();
    let running = tasks.iter().filter(|t| t.run.get() != Run::Blocked).count();
    let last = tasks.iter().map(|t| t.tid.0).max().unwrap_or(0);
    format!("0.00 0.00 0.00 {running}/{} {last}\n", tasks.len()).into_bytes()
}

/// A header with a column for each CPU.
fn per_cpu(kernel: &Kernel, lines: &[(&str, &str)]) -> Vec<u8> {
    let cpus = kernel.sched.workers.len();
    let mut out = String::from("     ");
    for cpu in 0..cpus {
        let _ = write!(out, "{:>11}", format!("CPU{cpu}"));
    }
    out.push_str("       \n");
    for (name, what) in lines {
        let _ = write!(out, "{name:>4}:");
        for _ in 0..cpus {
            let _ = write!(out, "{:>11}", 0);
        }
        let _ = writeln!(out, "   {what}");
    }
    out.into_bytes()
}

fn interrupts(kernel: &Arc<Kernel>) -> Vec<u8> {
    per_cpu(kernel, &[("LOC", "Local timer interrupts"), ("RES", "Rescheduling interrupts"), ("TLB", "TLB shootdowns")])
}

fn softirqs(kernel: &Arc<Kernel>) -> Vec<u8> {
    per_cpu(
        kernel,
        &[("HI", ""), ("TIMER", ""), ("NET_TX", ""), ("NET_RX", ""), ("BLOCK", ""), ("SCHED", ""), ("RCU", "")],
    )
}

fn pressure(proc: &Proc) -> Arc<dyn Inode> {
    const SOME: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    const FULL: &str = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let file = || fixed_file(&proc.fs, [SOME, FULL].concat());
    fixed_dir(&proc.fs, vec![("cpu", file()), ("io", file()), ("memory", file())])
}

fn sysvipc(proc: &Proc) -> Arc<dyn Inode> {
    let file = |text: &str| fixed_file(&proc.fs, text);
    fixed_dir(
        &proc.fs,
        vec![
            (
                "msg",
                file(
                    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
                ),
            ),
            ("sem", file("       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n")),
            (
                "shm",
                file(
                    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
                ),
            ),
        ],
    )
}

fn vmstat(kernel: &Arc<Kernel>) -> Vec<u8> {
    let free = kernel.memory.limit().saturating_sub(kernel.memory.charged()) / 4096;
    format!("nr_free_pages {free}\npgfault 0\npgmajfault 0\n").into_bytes()
}
