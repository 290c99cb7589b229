//! /proc/sys.

use std::sync::Arc;

use super::Proc;
use crate::fs::pseudo::{PseudoFile, PseudoFs, fixed_dir, fixed_file};
use crate::kernel::pids::PID_LIMIT;
use crate::kernel::random;
use crate::sync::{Level, Mutex};
use crate::syscalls::misc::{RELEASE, VERSION};
use crate::vfs::Inode;

/// Longest host name.
const NAME_MAX: usize = 64;

/// A random UUID, version 4.
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    random::fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    text
}

fn hostname(proc: &Proc) -> Arc<dyn Inode> {
    let (uts, set) = (proc.ns.uts.clone(), proc.ns.uts.clone());
    let file = PseudoFile::new(&proc.fs, 0o644, Box::new(move || Ok(line(uts.names.lock().hostname.clone()))));
    Arc::new(file.writable(Box::new(move |text| {
        let name = text.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
        set.names.lock().hostname = name.get(..name.len().min(NAME_MAX)).unwrap_or_default().to_vec();
        Ok(())
    })))
}

/// A setting that is kept and shown and changes nothing: what sets it wants to see it set.
fn setting(fs: &Arc<PseudoFs>, initial: &str) -> Arc<dyn Inode> {
    let value = Arc::new(Mutex::new(Level::Leaf, initial.as_bytes().to_vec()));
    let (shown, set) = (value.clone(), value);
    let file = PseudoFile::new(fs, 0o644, Box::new(move || Ok(line(shown.lock().clone()))));
    Arc::new(file.writable(Box::new(move |text| {
        let text = text.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
        *set.lock() = text.get(..text.len().min(NAME_MAX)).unwrap_or_default().to_vec();
        Ok(())
    })))
}

/// A directory of files with fixed texts (`=`) and settings (`~`), told by the value's first character.
fn values(fs: &Arc<PseudoFs>, list: &[(&'static str, &str)]) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let made = |(name, value): &(&'static str, &str)| match value.split_at_checked(1) {
        Some(("~", initial)) => (*name, setting(fs, initial)),
        Some((_, fixed)) => (*name, fixed_file(fs, format!("{fixed}\n"))),
        None => (*name, fixed_file(fs, "\n")),
    };
    list.iter().map(made).collect()
}

/// The directory.
pub(super) fn directory(proc: &Proc) -> Arc<dyn Inode> {
    let fs = &proc.fs;
    let net = fixed_dir(
        fs,
        vec![
            ("core", fixed_dir(fs, values(fs, NET_CORE))),
            ("ipv4", fixed_dir(fs, values(fs, NET_IPV4))),
            ("ipv6", ipv6(fs)),
            ("unix", fixed_dir(fs, values(fs, &[("max_dgram_qlen", "~512")]))),
        ],
    );
    let user = fixed_dir(fs, values(fs, USER));
    let vm = fixed_dir(fs, values(fs, VM));
    fixed_dir(fs, vec![("kernel", kernel(proc)), ("vm", vm), ("fs", files(fs)), ("net", net), ("user", user)])
}

fn kernel(proc: &Proc) -> Arc<dyn Inode> {
    let fs = &proc.fs;
    let uuids: Arc<dyn Inode> = Arc::new(PseudoFile::new(fs, 0o444, Box::new(|| Ok(uuid().into_bytes()))));
    let uts = proc.ns.uts.clone();
    let domain = Box::new(move || Ok(line(uts.names.lock().domainname.clone())));
    let mut random = values(
        fs,
        &[
            ("entropy_avail", "=256"),
            ("poolsize", "=256"),
            ("urandom_min_reseed_secs", "~60"),
            ("write_wakeup_threshold", "~256"),
        ],
    );
    random.push(("boot_id", fixed_file(fs, uuid())));
    random.push(("uuid", uuids));
    let mut all = values(fs, KERNEL);
    all.push(("hostname", hostname(proc)));
    all.push(("domainname", Arc::new(PseudoFile::new(fs, 0o444, domain))));
    all.push(("osrelease", fixed_file(fs, format!("{RELEASE}\n"))));
    all.push(("version", fixed_file(fs, format!("{VERSION}\n"))));
    all.push(("pid_max", setting(fs, &(PID_LIMIT + 1).to_string())));
    all.push((
        "seccomp",
        fixed_dir(
            fs,
            values(
                fs,
                &[("actions_avail", "=kill_process kill_thread trap errno trace log allow"), ("actions_logged", "~")],
            ),
        ),
    ));
    all.push(("yama", fixed_dir(fs, values(fs, &[("ptrace_scope", "=0")]))));
    all.push(("keys", fixed_dir(fs, values(fs, &[("maxkeys", "~200"), ("maxbytes", "~20000")]))));
    all.push(("random", fixed_dir(fs, random)));
    fixed_dir(fs, all)
}

fn files(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let inotify = [("max_queued_events", "=16384"), ("max_user_instances", "=128"), ("max_user_watches", "=65536")];
    let mqueue = [
        ("msg_max", "~10"),
        ("msgsize_max", "~8192"),
        ("queues_max", "~256"),
        ("msg_default", "~10"),
        ("msgsize_default", "~8192"),
    ];
    let mut all = values(fs, FS);
    all.push(("inotify", fixed_dir(fs, values(fs, &inotify))));
    all.push(("mqueue", fixed_dir(fs, values(fs, &mqueue))));
    all.push(("epoll", fixed_dir(fs, values(fs, &[("max_user_watches", "~1000000")]))));
    all.push(("binfmt_misc", fixed_dir(fs, Vec::new())));
    fixed_dir(fs, all)
}

fn ipv6(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let conf = || fixed_dir(fs, values(fs, &[("disable_ipv6", "~0"), ("forwarding", "~0"), ("accept_ra", "~1")]));
    let mut all = values(fs, &[("bindv6only", "~0"), ("ip_nonlocal_bind", "~0")]);
    all.push(("conf", fixed_dir(fs, vec![("all", conf()), ("default", conf()), ("lo", conf())])));
    fixed_dir(fs, all)
}

type Values = &'static [(&'static str, &'static str)];

const KERNEL: Values = &[
    ("ostype", "=Linux"),
    ("threads-max", "~63000"),
    ("cap_last_cap", "=40"),
    ("ngroups_max", "=65536"),
    ("core_pattern", "~core"),
    ("core_uses_pid", "~0"),
    ("randomize_va_space", "~2"),
    ("shmmax", "~18446744073692774399"),
    ("shmall", "~18446744073692774399"),
    ("shmmni", "~4096"),
    ("shm_rmid_forced", "~0"),
    ("msgmax", "~8192"),
    ("msgmnb", "~16384"),
    ("msgmni", "~32000"),
    ("sem", "~32000\t1024000000\t500\t32000"),
    ("tainted", "~0"),
    ("panic", "~0"),
    ("panic_on_oops", "~0"),
    ("printk", "~4\t4\t1\t7"),
    ("dmesg_restrict", "~1"),
    ("kptr_restrict", "~1"),
    ("sysrq", "~0"),
    ("overflowuid", "~65534"),
    ("overflowgid", "~65534"),
    ("perf_event_paranoid", "~4"),
    ("perf_event_max_sample_rate", "~100000"),
    ("unprivileged_bpf_disabled", "~2"),
    ("io_uring_disabled", "~2"),
    ("modprobe", "~"),
    ("modules_disabled", "=1"),
    ("sched_rt_period_us", "~1000000"),
    ("sched_rt_runtime_us", "~950000"),
    ("sched_autogroup_enabled", "~0"),
    ("numa_balancing", "~0"),
    ("ns_last_pid", "~1"),
    ("auto_msgmni", "~0"),
    ("watchdog", "~0"),
    ("hung_task_timeout_secs", "~0"),
];

const VM: Values = &[
    ("overcommit_memory", "~0"),
    ("overcommit_ratio", "~50"),
    ("overcommit_kbytes", "~0"),
    ("max_map_count", "~65530"),
    ("mmap_min_addr", "~65536"),
    ("mmap_rnd_bits", "~28"),
    ("swappiness", "~60"),
    ("nr_hugepages", "=0"),
    ("nr_overcommit_hugepages", "=0"),
    ("min_free_kbytes", "~67584"),
    ("dirty_ratio", "~20"),
    ("dirty_background_ratio", "~10"),
    ("dirty_bytes", "~0"),
    ("dirty_background_bytes", "~0"),
    ("dirty_expire_centisecs", "~3000"),
    ("dirty_writeback_centisecs", "~500"),
    ("vfs_cache_pressure", "~100"),
    ("drop_caches", "~0"),
    ("compact_memory", "~0"),
    ("page-cluster", "~3"),
    ("oom_dump_tasks", "~1"),
    ("oom_kill_allocating_task", "~0"),
    ("panic_on_oom", "~0"),
    ("zone_reclaim_mode", "~0"),
    ("legacy_va_layout", "~0"),
    ("admin_reserve_kbytes", "~8192"),
    ("user_reserve_kbytes", "~131072"),
    ("unprivileged_userfaultfd", "~0"),
    ("memfd_noexec", "~0"),
    ("stat_interval", "~1"),
];

const FS: Values = &[
    ("file-max", "~9223372036854775807"),
    ("file-nr", "=0\t0\t9223372036854775807"),
    ("nr_open", "=1048576"),
    ("inode-nr", "=1024\t0"),
    ("inode-state", "=1024\t0\t0\t0\t0\t0\t0"),
    ("dentry-state", "=1024\t0\t45\t0\t0\t0"),
    ("aio-nr", "=0"),
    ("aio-max-nr", "~65536"),
    ("lease-break-time", "~45"),
    ("leases-enable", "~1"),
    ("dir-notify-enable", "=0"),
    ("mount-max", "=8192"),
    ("overflowuid", "~65534"),
    ("overflowgid", "~65534"),
    ("pipe-max-size", "=1048576"),
    ("pipe-user-pages-hard", "~0"),
    ("pipe-user-pages-soft", "~16384"),
    ("protected_symlinks", "=0"),
    ("protected_hardlinks", "=0"),
    ("protected_fifos", "=0"),
    ("protected_regular", "=0"),
    ("suid_dumpable", "~0"),
];

const NET_CORE: Values = &[
    ("somaxconn", "~4096"),
    ("rmem_max", "~212992"),
    ("rmem_default", "~212992"),
    ("wmem_max", "~212992"),
    ("wmem_default", "~212992"),
    ("optmem_max", "~131072"),
    ("netdev_max_backlog", "~1000"),
    ("busy_poll", "~0"),
    ("busy_read", "~0"),
];

const NET_IPV4: Values = &[
    ("ip_forward", "~0"),
    ("ip_default_ttl", "~64"),
    ("ip_local_port_range", "~32768\t60999"),
    ("ip_local_reserved_ports", "~"),
    ("ip_unprivileged_port_start", "~1024"),
    ("ip_nonlocal_bind", "~0"),
    ("ping_group_range", "~1\t0"),
    ("icmp_echo_ignore_all", "~0"),
    ("tcp_fin_timeout", "~60"),
    ("tcp_keepalive_time", "~7200"),
    ("tcp_keepalive_intvl", "~75"),
    ("tcp_keepalive_probes", "~9"),
    ("tcp_syn_retries", "~6"),
    ("tcp_synack_retries", "~5"),
    ("tcp_retries1", "~3"),
    ("tcp_retries2", "~15"),
    ("tcp_syncookies", "~1"),
    ("tcp_max_syn_backlog", "~512"),
    ("tcp_mem", "~94413\t125885\t188826"),
    ("tcp_rmem", "~4096\t131072\t6291456"),
    ("tcp_wmem", "~4096\t16384\t4194304"),
    ("tcp_sack", "~1"),
    ("tcp_timestamps", "~1"),
    ("tcp_window_scaling", "~1"),
    ("tcp_fastopen", "~1"),
    ("tcp_tw_reuse", "~2"),
    ("tcp_ecn", "~2"),
    ("tcp_congestion_control", "~cubic"),
    ("tcp_available_congestion_control", "=reno cubic"),
    ("tcp_allowed_congestion_control", "~reno cubic"),
    ("tcp_slow_start_after_idle", "~1"),
    ("tcp_no_metrics_save", "~0"),
    ("udp_mem", "~188829\t251772\t377658"),
    ("udp_rmem_min", "~4096"),
    ("udp_wmem_min", "~4096"),
];

const USER: Values = &[
    ("max_user_namespaces", "=0"),
    ("max_mnt_namespaces", "~47000"),
    ("max_pid_namespaces", "=0"),
    ("max_net_namespaces", "=0"),
    ("max_ipc_namespaces", "=0"),
    ("max_uts_namespaces", "=0"),
    ("max_cgroup_namespaces", "=0"),
    ("max_time_namespaces", "=0"),
    ("max_inotify_instances", "~128"),
    ("max_inotify_watches", "~65536"),
];
