//! `/proc/PID/{stat,statm,status,comm,cmdline,environ,auxv,limits,io,schedstat}`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{AddrRange, Errno, UserAddr};

use super::Proc;
use super::system::TICK;
use crate::kernel::limits::INFINITY;
use crate::kernel::signal::pending_set;
use crate::kernel::task::{Run, Task, flags};

/// Most bytes of arguments or environment that are shown.
const STRINGS_MAX: u64 = 2 << 20;

/// The state's letter and word.
fn state(task: &Task) -> (char, &'static str) {
    if task.run.get() == Run::Dead || (task.group.is_zombie() && task.is_leader()) {
        return ('Z', "zombie");
    }
    if task.flags.load(Ordering::Relaxed) & flags::TRACE_STOP != 0 {
        return ('t', "tracing stop");
    }
    if task.flags.load(Ordering::Relaxed) & flags::STOPPED != 0 {
        return ('T', "stopped");
    }
    match task.run.get() {
        Run::Blocked => ('S', "sleeping"),
        _ => ('R', "running"),
    }
}

fn name(task: &Task) -> String {
    String::from_utf8_lossy(&task.shared.lock().name).into_owned()
}

/// `comm`.
pub(super) fn comm(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let mut text = task.shared.lock().name.clone();
    text.push(b'\n');
    Ok(text)
}

/// `stat`.
pub(super) fn stat(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let group = &task.group;
    let (pgid, sid) = (group.pgid(), group.sid());
    let sessions = &task.kernel.sessions;
    let tty = sessions.terminal(task.pids(), sid).map_or(0, |t| encode_dev(t.device()));
    let tpgid = sessions.foreground(task.pids(), sid).unwrap_or(-1);
    let mm = task.mm();
    let sizes = mm.as_ref().map(|mm| mm.stats()).unwrap_or_default();
    let program = mm.as_ref().map(|mm| mm.program());
    let range = |pick: fn(&crate::mm::ProgramInfo) -> AddrRange| {
        program.as_ref().map_or((0, 0), |p| (pick(p).start, pick(p).end))
    };
    let (code, data, args, env) = (range(|p| p.code), range(|p| p.data), range(|p| p.args), range(|p| p.env));
    let stack = program.as_ref().map_or(0, |p| p.start_stack);
    let usage = if task.is_leader() { group.usage() } else { task.usage() };
    let (user, system) = (usage.user / TICK, usage.system / TICK);
    let children = group.state.lock().children_usage;
    let (ignored, caught) = group.signals.actions().sets();
    let started = task.start_time.saturating_sub(task.kernel.clock.boot_time()).max(0).cast_unsigned() / TICK;
    let threads = group.tasks().len().max(1);
    let sched = *task.sched_attr.lock();
    let status = group.state.lock().zombie.unwrap_or(0);
    let mut out = format!("{} ({}) {} ", task.tid.0, name(task), state(task).0);
    let _ = write!(
        out,
        "{} {pgid} {sid} {tty} {tpgid} 4194304 {} {} 0 0 ",
        group.parent_tgid(),
        usage.faults,
        children.faults
    );
    let _ = write!(out, "{user} {system} {} {} ", children.user / TICK, children.system / TICK);
    let _ = write!(out, "{} {} {threads} 0 {started} ", 20 + sched.nice, sched.nice);
    let _ = write!(out, "{} {} {} ", sizes.size, sizes.rss() / 4096, u64::MAX);
    let _ = write!(out, "{} {} {stack} 0 0 ", code.0, code.1);
    let blocked = task.signals.mask();
    let _ = write!(out, "{} {blocked} {ignored} {caught} ", pending_set(task));
    let _ = write!(out, "0 0 0 {} {} ", exit_signal(task), task.last_cpu.load(Ordering::Relaxed));
    let _ = write!(out, "{} {} 0 0 0 ", sched.priority, sched.policy);
    let _ = writeln!(out, "{} {} 0 {} {} {} {} {status}", data.0, data.1, args.0, args.1, env.0, env.1);
    Ok(out.into_bytes())
}

fn exit_signal(task: &Task) -> i32 {
    if task.is_leader() { task.group.state.lock().exit_signal } else { -1 }
}

/// `new_encode_dev`.
fn encode_dev(dev: u64) -> u64 {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// `statm`: pages.
pub(super) fn statm(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let s = task.mm().map(|mm| mm.stats()).unwrap_or_default();
    let page = |bytes: u64| bytes / 4096;
    let text = format!(
        "{} {} {} {} 0 {} 0\n",
        page(s.size),
        page(s.rss()),
        page(s.rss_file + s.rss_shmem),
        page(s.exe),
        page(s.data + s.stack)
    );
    Ok(text.into_bytes())
}

/// `status`.
pub(super) fn status(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let creds = task.creds();
    let group = &task.group;
    let umask = task.fs().map_or(0o22, |fs| fs.state.lock().umask);
    let (letter, word) = state(task);
    let mut out = format!("Name:\t{}\nUmask:\t{umask:04o}\nState:\t{letter} ({word})\n", name(task));
    let _ = write!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\n", group.tgid.0, task.tid.0, group.parent_tgid());
    let tracer = task.ptrace.tracer().map_or(0, |t| t.tgid.0);
    let ids = |ids: &[u32; 4]| ids.map(|i| i.to_string()).join("\t");
    let _ = write!(out, "TracerPid:\t{}\nUid:\t{}\nGid:\t{}\n", tracer, ids(&creds.uid), ids(&creds.gid));
    let slots = task.fds().and_then(|fds| fds.numbers().last().copied()).unwrap_or(0);
    let slots = (slots.unsigned_abs() + 1).next_power_of_two().max(64);
    let groups: String = creds.groups.iter().map(|g| format!("{g} ")).collect();
    let _ = write!(out, "FDSize:\t{slots}\nGroups:\t{groups}\n");
    let _ = write!(
        out,
        "NStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\n",
        group.tgid.0,
        task.tid.0,
        group.pgid(),
        group.sid()
    );
    if let Some(mm) = task.mm() {
        memory(&mm.stats(), &mut out);
    }
    let (ignored, caught) = group.signals.actions().sets();
    let own = task.signals.pending.load(Ordering::Relaxed);
    let shared = group.signals.pending.load(Ordering::Relaxed);
    let limit = group.limit(crate::kernel::limits::resource::SIGPENDING);
    let _ = write!(out, "Threads:\t{}\nSigQ:\t0/{limit}\n", group.tasks().len().max(1));
    let _ = write!(out, "SigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{:016x}\n", task.signals.mask());
    let _ = write!(out, "SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n");
    let caps = &creds.caps;
    let _ = write!(out, "CapInh:\t{:016x}\nCapPrm:\t{:016x}\n", caps.inheritable, caps.permitted);
    let _ = write!(out, "CapEff:\t{:016x}\nCapBnd:\t{:016x}\n", caps.effective, caps.bounding);
    let _ = write!(out, "CapAmb:\t{:016x}\nNoNewPrivs:\t{}\n", caps.ambient, u8::from(creds.no_new_privs));
    let _ = writeln!(out, "Seccomp:\t{}\nSeccomp_filters:\t{}", task.seccomp.mode(), task.seccomp.filters());
    out.push_str("Speculation_Store_Bypass:\tvulnerable\n");
    let cpus = task.kernel.sched.workers.len().min(63);
    let list = if cpus > 1 { format!("0-{}", cpus - 1) } else { "0".to_owned() };
    let _ = write!(out, "Cpus_allowed:\t{:x}\nCpus_allowed_list:\t{list}\n", (1u64 << cpus) - 1);
    out.push_str("Mems_allowed:\t1\nMems_allowed_list:\t0\n");
    let usage = task.usage();
    let _ = writeln!(out, "voluntary_ctxt_switches:\t{}", usage.waits);
    let _ = writeln!(out, "nonvoluntary_ctxt_switches:\t{}", usage.preemptions);
    Ok(out.into_bytes())
}

fn memory(s: &crate::mm::info::MmStats, out: &mut String) {
    for (name, bytes) in [
        ("VmPeak", s.most_size),
        ("VmSize", s.size),
        ("VmLck", s.locked),
        ("VmPin", 0),
        ("VmHWM", s.most_rss),
        ("VmRSS", s.rss()),
        ("RssAnon", s.rss_anon),
        ("RssFile", s.rss_file),
        ("RssShmem", s.rss_shmem),
        ("VmData", s.data),
        ("VmStk", s.stack),
        ("VmExe", s.exe),
        ("VmLib", s.lib),
        ("VmPTE", (s.rss() / 512).max(4096)),
        ("VmSwap", 0),
    ] {
        let _ = writeln!(out, "{name}:\t{:>8} kB", bytes / 1024);
    }
}

/// The guest bytes of `range`, as far as they can be read.
fn strings(task: &Task, pick: fn(&crate::mm::ProgramInfo) -> AddrRange) -> Vec<u8> {
    let Some(mm) = task.mm() else { return Vec::new() };
    let range = pick(&mm.program());
    let mut out = vec![0u8; usize::try_from(range.len().min(STRINGS_MAX)).unwrap_or(0)];
    if mm.read_bytes(UserAddr(range.start), &mut out).is_err() {
        out.clear();
    }
    out
}

/// `cmdline`.
pub(super) fn cmdline(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    Ok(arguments(task))
}

/// The arguments, as the program shows them.
pub(super) fn arguments(task: &Task) -> Vec<u8> {
    let mut text = strings(task, |p| p.args);
    // A program that overwrote its arguments without a NUL at the end shows up to the first (setproctitle).
    if text.last().is_some_and(|b| *b != 0) {
        text.extend(strings(task, |p| p.env));
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        text.truncate(end);
    }
    text
}

/// `environ`.
pub(super) fn environ(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    Ok(strings(task, |p| p.env))
}

/// `auxv`.
pub(super) fn auxv(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let words = task.mm().map(|mm| mm.program().auxv).unwrap_or_default();
    Ok(words.iter().flat_map(|w| w.to_le_bytes()).collect())
}

/// `limits`.
pub(super) fn limits(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    const ROWS: [(&str, u32, &str); 16] = [
        ("Max cpu time", 0, "seconds"),
        ("Max file size", 1, "bytes"),
        ("Max data size", 2, "bytes"),
        ("Max stack size", 3, "bytes"),
        ("Max core file size", 4, "bytes"),
        ("Max resident set", 5, "bytes"),
        ("Max processes", 6, "processes"),
        ("Max open files", 7, "files"),
        ("Max locked memory", 8, "bytes"),
        ("Max address space", 9, "bytes"),
        ("Max file locks", 10, "locks"),
        ("Max pending signals", 11, "signals"),
        ("Max msgqueue size", 12, "bytes"),
        ("Max nice priority", 13, ""),
        ("Max realtime priority", 14, ""),
        ("Max realtime timeout", 15, "us"),
    ];
    let limits = *task.group.limits.lock();
    let show = |v: u64| if v == INFINITY { "unlimited".to_owned() } else { v.to_string() };
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (name, number, unit) in ROWS {
        if let Some(limit) = limits.get(number) {
            let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", show(limit.soft), show(limit.hard));
        }
    }
    Ok(out.into_bytes())
}

/// `io`: not counted.
pub(super) fn io(_proc: &Proc, _task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
}

/// `schedstat`.
pub(super) fn schedstat(_proc: &Proc, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    Ok(format!("{} 0 0\n", task.cpu_times().0).into_bytes())
}
