//! Names, usage, random bytes and what fits nowhere else.

use abi::{Errno, UserAddr};

use crate::kernel::op::{Flow, SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::usage::Usage;
use crate::syscall_table;

syscall_table! {
    63 uname(buf: UserAddr);
    98 getrusage(who: i32, usage: UserAddr) Partial("block input and output and major faults are told as 0");
    99 sysinfo(info: UserAddr);
    158 arch_prctl(code: i32, addr: u64) Partial("FS and GS bases; CPUID faulting is not offered");
    170 sethostname(name: UserAddr, len: i32);
    171 setdomainname(name: UserAddr, len: i32);
    318 getrandom(buf: UserAddr, len: usize, flags: u32);
    334 rseq(area: UserAddr, len: u32, flags: i32, signature: u32) Partial("ENOSYS, as on a kernel built without it");
}

/// What `uname -r` says. Programs test the number for features, so it is that of the kernel we follow.
pub const RELEASE: &str = "6.6.0-nanovisor";
/// What `uname -v` says.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC nanovisor";
/// Longest host or domain name.
const NAME_MAX: i32 = 64;

fn uname(cx: &mut CurrentTask<'_>, buf: UserAddr) -> SyscallResult {
    let names = cx.task.ns().uts.names.lock().clone();
    let fields: [&[u8]; 6] =
        [b"Linux", &names.hostname, RELEASE.as_bytes(), VERSION.as_bytes(), b"x86_64", &names.domainname];
    let mut out = [0u8; 65 * 6];
    for (index, field) in fields.iter().enumerate() {
        let n = field.len().min(64);
        out[index * 65..index * 65 + n].copy_from_slice(&field[..n]);
    }
    cx.mm()?.write_bytes(buf, &out)?;
    ok()
}

fn read_name(cx: &CurrentTask<'_>, name: UserAddr, len: i32) -> Result<Vec<u8>, Errno> {
    const CAP_SYS_ADMIN: u32 = 21;
    if !cx.creds().has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if !(0..=NAME_MAX).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    cx.mm()?.read_bytes(name, &mut bytes)?;
    // What lies behind a NUL is not shown.
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

fn sethostname(cx: &mut CurrentTask<'_>, name: UserAddr, len: i32) -> SyscallResult {
    let name = read_name(cx, name, len)?;
    cx.task.ns().uts.names.lock().hostname = name;
    ok()
}

fn setdomainname(cx: &mut CurrentTask<'_>, name: UserAddr, len: i32) -> SyscallResult {
    let name = read_name(cx, name, len)?;
    cx.task.ns().uts.names.lock().domainname = name;
    ok()
}

fn arch_prctl(cx: &mut CurrentTask<'_>, code: i32, addr: u64) -> SyscallResult {
    const SET_GS: i32 = 0x1001;
    const SET_FS: i32 = 0x1002;
    const GET_FS: i32 = 0x1003;
    const GET_GS: i32 = 0x1004;
    const GET_CPUID: i32 = 0x1011;
    const SET_CPUID: i32 = 0x1012;
    // Linux refuses what lies beyond user space (TASK_SIZE_MAX).
    const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
    let base = |addr: u64| if addr >= TASK_SIZE_MAX { Err(Errno::EPERM) } else { Ok(addr) };
    match code {
        SET_FS => cx.own.arch.regs.fs_base = base(addr)?,
        SET_GS => cx.own.arch.regs.gs_base = base(addr)?,
        GET_FS => cx.mm()?.write_obj(UserAddr(addr), &cx.own.arch.regs.fs_base)?,
        GET_GS => cx.mm()?.write_obj(UserAddr(addr), &cx.own.arch.regs.gs_base)?,
        GET_CPUID => return Ok(Flow::Return(1)),
        SET_CPUID => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    ok()
}

/// `struct rusage` of `usage`.
#[must_use]
pub fn rusage_bytes(usage: &Usage) -> [u8; 144] {
    let mut out = [0; 144];
    // By the index of the word: shared sizes, swaps, input, output and messages are not counted on Linux either.
    let fields = [
        (0, usage.user / 1_000_000_000),
        (1, usage.user % 1_000_000_000 / 1000),
        (2, usage.system / 1_000_000_000),
        (3, usage.system % 1_000_000_000 / 1000),
        (4, usage.max_rss),
        (8, usage.faults),
        (16, usage.waits),
        (17, usage.preemptions),
    ];
    for (index, field) in fields {
        out[index * 8..index * 8 + 8].copy_from_slice(&field.to_le_bytes());
    }
    out
}

fn getrusage(cx: &mut CurrentTask<'_>, who: i32, addr: UserAddr) -> SyscallResult {
    const RUSAGE_THREAD: i32 = 1;
    let usage = match who {
        0 => cx.task.group.usage(),
        -1 => cx.task.group.state.lock().children_usage,
        RUSAGE_THREAD => {
            let gone = cx.task.group.state.lock().dead_threads.max_rss;
            let own = cx.task.usage();
            Usage { max_rss: own.max_rss.max(gone), ..own }
        }
        _ => return Err(Errno::EINVAL),
    };
    cx.mm()?.write_bytes(addr, &rusage_bytes(&usage))?;
    ok()
}

fn sysinfo(cx: &mut CurrentTask<'_>, info: UserAddr) -> SyscallResult {
    let kernel = cx.kernel();
    let uptime = kernel.clock.monotonic().saturating_sub(kernel.clock.boot_time()) / 1_000_000_000;
    let (total, used) = (kernel.memory.limit(), kernel.memory.charged());
    let procs = u16::try_from(cx.task.pids().tree().task_count()).unwrap_or(u16::MAX);
    let mut out = [0u8; 112];
    let mut put = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, uptime.unsigned_abs());
    put(32, total);
    put(40, total.saturating_sub(used));
    put(48, kernel.memory.shared());
    put(80, u64::from(procs));
    // The unit of the memory fields: a byte.
    put(104, 1);
    cx.mm()?.write_bytes(info, &out)?;
    ok()
}

fn getrandom(cx: &mut CurrentTask<'_>, buf: UserAddr, len: usize, flags: u32) -> SyscallResult {
    const NONBLOCK: u32 = 1;
    const RANDOM: u32 = 2;
    const INSECURE: u32 = 4;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
        return Err(Errno::EINVAL);
    }
    let len = len.min(0x01ff_ffff);
    let mm = cx.mm()?;
    let mut done = 0;
    while done < len {
        let mut chunk = [0u8; 4096];
        let n = (len - done).min(chunk.len());
        crate::kernel::random::fill(&mut chunk[..n]);
        let at = buf.checked_add(done as u64).ok_or(Errno::EFAULT)?;
        if let Err(errno) = mm.write_bytes(at, &chunk[..n]) {
            return if done > 0 { Ok(Flow::Return(done as u64)) } else { Err(errno) };
        }
        done += n;
        // A handler waits no longer than one piece takes (random(4)).
        if crate::kernel::signal::wants_attention(cx.task) {
            break;
        }
    }
    Ok(Flow::Return(done as u64))
}

fn rseq(_cx: &mut CurrentTask<'_>, _area: UserAddr, _len: u32, _flags: i32, _signature: u32) -> SyscallResult {
    Err(Errno::ENOSYS)
}
