//! /proc/sys.

use std::sync::Arc;

use abi::Errno;

use super::Proc;
use crate::fs::pseudo::{PseudoFile, fixed_dir, fixed_file};
use crate::kernel::Kernel;
use crate::kernel::pids::PID_LIMIT;
use crate::kernel::random;
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
    let kernel = proc.kernel.clone();
    let file = PseudoFile::new(&proc.fs, 0o644, proc.render(|k: &Arc<Kernel>| line(k.uts.lock().hostname.clone())));
    Arc::new(file.writable(Box::new(move |text| {
        let kernel = kernel.upgrade().ok_or(Errno::ESRCH)?;
        let name = text.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
        kernel.uts.lock().hostname = name.get(..name.len().min(NAME_MAX)).unwrap_or_default().to_vec();
        Ok(())
    })))
}

/// The directory.
pub(super) fn directory(proc: &Proc) -> Arc<dyn Inode> {
    let fs = &proc.fs;
    let dir = |entries| fixed_dir(fs, entries);
    let file = |text: &str| fixed_file(fs, text);
    let uuids: Arc<dyn Inode> = Arc::new(PseudoFile::new(fs, 0o444, Box::new(|| Ok(uuid().into_bytes()))));
    let domain = proc.render(|k: &Arc<Kernel>| line(k.uts.lock().domainname.clone()));
    let random = dir(vec![
        ("boot_id", file(&uuid())),
        ("uuid", uuids),
        ("entropy_avail", file("256\n")),
        ("poolsize", file("256\n")),
    ]);
    let kernel = dir(vec![
        ("hostname", hostname(proc)),
        ("domainname", Arc::new(PseudoFile::new(fs, 0o444, domain))),
        ("osrelease", file(&format!("{RELEASE}\n"))),
        ("ostype", file("Linux\n")),
        ("version", file(&format!("{VERSION}\n"))),
        ("pid_max", file(&format!("{}\n", PID_LIMIT + 1))),
        ("threads-max", file("63000\n")),
        ("cap_last_cap", file("40\n")),
        ("ngroups_max", file("65536\n")),
        ("core_pattern", file("core\n")),
        ("core_uses_pid", file("0\n")),
        ("randomize_va_space", file("2\n")),
        ("shmmax", file("18446744073692774399\n")),
        ("shmall", file("18446744073692774399\n")),
        ("shmmni", file("4096\n")),
        ("msgmax", file("8192\n")),
        ("msgmnb", file("16384\n")),
        ("msgmni", file("32000\n")),
        ("sem", file("32000\t1024000000\t500\t32000\n")),
        ("tainted", file("0\n")),
        ("seccomp", dir(vec![("actions_avail", file("\n"))])),
        ("yama", dir(vec![("ptrace_scope", file("0\n"))])),
        ("random", random),
    ]);
    let vm = dir(vec![
        ("overcommit_memory", file("0\n")),
        ("overcommit_ratio", file("50\n")),
        ("max_map_count", file("65530\n")),
        ("mmap_min_addr", file("65536\n")),
        ("swappiness", file("60\n")),
        ("nr_hugepages", file("0\n")),
    ]);
    let fs_dir = dir(vec![
        ("file-max", file("9223372036854775807\n")),
        ("file-nr", file("0\t0\t9223372036854775807\n")),
        ("nr_open", file("1048576\n")),
        ("pipe-max-size", file("1048576\n")),
        ("protected_symlinks", file("0\n")),
        ("protected_hardlinks", file("0\n")),
        (
            "inotify",
            dir(vec![
                ("max_queued_events", file("16384\n")),
                ("max_user_instances", file("128\n")),
                ("max_user_watches", file("65536\n")),
            ]),
        ),
        ("epoll", dir(vec![("max_user_watches", file("1000000\n"))])),
    ]);
    let core = dir(vec![("somaxconn", file("4096\n")), ("rmem_max", file("212992\n")), ("wmem_max", file("212992\n"))]);
    let ipv4 = dir(vec![
        ("ip_local_port_range", file("32768\t60999\n")),
        ("ip_unprivileged_port_start", file("1024\n")),
        ("tcp_fin_timeout", file("60\n")),
    ]);
    let unix = dir(vec![("max_dgram_qlen", file("512\n"))]);
    let net = dir(vec![("core", core), ("ipv4", ipv4), ("unix", unix)]);
    dir(vec![("kernel", kernel), ("vm", vm), ("fs", fs_dir), ("net", net)])
}
