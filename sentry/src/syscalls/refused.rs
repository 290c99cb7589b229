//! Calls that a sandbox answers as a Linux without the feature, or a caller without the right, would: truthfully, and
//! without effect.

use abi::{Errno, UserAddr};

use crate::kernel::op::{Flow, SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::args::UserStr;

syscall_table! {
    103 syslog(kind: i32, buf: UserAddr, len: i32) Partial("an empty log");
    134 uselib(path: UserStr) Partial("ENOSYS, as on a kernel without CONFIG_USELIB");
    139 sysfs(option: i32, arg1: u64, arg2: u64) Partial("ENOSYS, as on a kernel without CONFIG_SYSFS_SYSCALL");
    154 modify_ldt(func: i32, ptr: UserAddr, count: u64) Partial("reads an empty table; ENOSYS for entries: 16-bit segments cannot be made");
    156 _sysctl(args: UserAddr) Partial("ENOSYS, as on every Linux since 5.5");
    163 acct(path: UserAddr) Partial("ENOSYS, as on a kernel without accounting");
    167 swapon(path: UserStr, flags: i32) Partial("EPERM");
    168 swapoff(path: UserStr) Partial("EPERM");
    169 reboot(magic1: u32, magic2: u32, cmd: u32, arg: u64) Partial("EPERM");
    172 iopl(level: u32) Partial("EPERM above level 0");
    173 ioperm(from: u64, count: u64, on: i32) Partial("EPERM to turn ports on");
    175 init_module(image: UserAddr, len: u64, args: UserStr) Partial("EPERM");
    176 delete_module(name: UserStr, flags: u32) Partial("EPERM");
    179 quotactl(cmd: u32, special: UserStr, id: i32, addr: UserAddr) Partial("ENOSYS, as on a kernel without quotas");
    205 set_thread_area(desc: UserAddr) Partial("ENOSYS, as for 64-bit programs");
    211 get_thread_area(desc: UserAddr) Partial("ENOSYS, as for 64-bit programs");
    246 kexec_load(entry: u64, count: u64, segments: UserAddr, flags: u64) Partial("EPERM");
    248 add_key(kind: UserStr, description: UserStr, payload: UserAddr, len: usize, ring: i32) Partial("ENOSYS, as on a kernel without keys");
    249 request_key(kind: UserStr, description: UserStr, callout: UserStr, ring: i32) Partial("ENOSYS, as on a kernel without keys");
    250 keyctl(op: i32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) Partial("ENOSYS, as on a kernel without keys");
    298 perf_event_open(attr: UserAddr, pid: i32, cpu: i32, group: i32, flags: u64) Partial("EACCES, as under kernel.perf_event_paranoid = 3");
    313 finit_module(fd: i32, args: UserStr, flags: i32) Partial("EPERM");
    320 kexec_file_load(kernel: i32, initrd: i32, len: u64, cmdline: UserAddr, flags: u64) Partial("EPERM");
    321 bpf(cmd: i32, attr: UserAddr, size: u32) Partial("EPERM, as under kernel.unprivileged_bpf_disabled = 1");
    323 userfaultfd(flags: i32) Partial("ENOSYS, as on a kernel without it");
    425 io_uring_setup(entries: u32, params: UserAddr) Partial("ENOSYS, as on a kernel without it");
    426 io_uring_enter(fd: i32, submit: u32, complete: u32, flags: u32, sig: UserAddr, size: usize) Partial("ENOSYS, as on a kernel without it");
    427 io_uring_register(fd: i32, op: u32, arg: UserAddr, count: u32) Partial("ENOSYS, as on a kernel without it");
    444 landlock_create_ruleset(attr: UserAddr, size: usize, flags: u32) Partial("EOPNOTSUPP, as where it is off at boot");
    445 landlock_add_rule(ruleset: i32, kind: i32, attr: UserAddr, flags: u32) Partial("EOPNOTSUPP, as where it is off at boot");
    446 landlock_restrict_self(ruleset: i32, flags: u32) Partial("EOPNOTSUPP, as where it is off at boot");
    447 memfd_secret(flags: u32) Partial("ENOSYS, as on a kernel without it");
}

/// Handlers that answer one errno, whatever they are given.
macro_rules! answers {
    ($($errno:ident: $($name:ident($($ty:ty),*)),*;)*) => { $($(
        fn $name(_cx: &mut CurrentTask<'_> $(, _: $ty)*) -> SyscallResult {
            Err(Errno::$errno)
        }
    )*)* };
}

answers! {
    ENOSYS: uselib(UserStr), sysfs(i32, u64, u64), _sysctl(UserAddr), acct(UserAddr),
        quotactl(u32, UserStr, i32, UserAddr), set_thread_area(UserAddr), get_thread_area(UserAddr),
        add_key(UserStr, UserStr, UserAddr, usize, i32), request_key(UserStr, UserStr, UserStr, i32),
        keyctl(i32, u64, u64, u64, u64), userfaultfd(i32), io_uring_setup(u32, UserAddr),
        io_uring_enter(i32, u32, u32, u32, UserAddr, usize), io_uring_register(i32, u32, UserAddr, u32),
        memfd_secret(u32);
    EPERM: swapon(UserStr, i32), swapoff(UserStr), reboot(u32, u32, u32, u64), init_module(UserAddr, u64, UserStr),
        delete_module(UserStr, u32), kexec_load(u64, u64, UserAddr, u64), finit_module(i32, UserStr, i32),
        kexec_file_load(i32, i32, u64, UserAddr, u64), bpf(i32, UserAddr, u32);
    EACCES: perf_event_open(UserAddr, i32, i32, i32, u64);
    EOPNOTSUPP: landlock_create_ruleset(UserAddr, usize, u32), landlock_add_rule(i32, i32, UserAddr, u32),
        landlock_restrict_self(i32, u32);
}

/// syslog(2): a kernel log with nothing in it.
fn syslog(cx: &mut CurrentTask<'_>, kind: i32, buf: UserAddr, len: i32) -> SyscallResult {
    const CAP_SYSLOG: u32 = 34;
    /// Bytes that `dmesg` is told the log may have.
    const SIZE_BUFFER: u64 = 1 << 17;
    let creds = cx.creds();
    // SYSLOG_ACTION_READ_ALL and SYSLOG_ACTION_SIZE_BUFFER are everybody's.
    if !matches!(kind, 3 | 10) && !creds.has_cap(CAP_SYSLOG) {
        return Err(Errno::EPERM);
    }
    match kind {
        0 | 1 | 5..=7 | 9 => ok(),
        2..=4 if buf.is_null() || len < 0 => Err(Errno::EINVAL),
        2..=4 => ok(),
        8 if (1..=8).contains(&len) => ok(),
        10 => Ok(Flow::Return(SIZE_BUFFER)),
        _ => Err(Errno::EINVAL),
    }
}

/// modify_ldt(2).
fn modify_ldt(_cx: &mut CurrentTask<'_>, func: i32, _ptr: UserAddr, _count: u64) -> SyscallResult {
    // Reading a table without entries gives nothing.
    if func == 0 { ok() } else { Err(Errno::ENOSYS) }
}

fn iopl(_cx: &mut CurrentTask<'_>, level: u32) -> SyscallResult {
    match level {
        0 => ok(),
        1..=3 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn ioperm(_cx: &mut CurrentTask<'_>, from: u64, count: u64, on: i32) -> SyscallResult {
    const PORTS: u64 = 65536;
    let end = from.checked_add(count).filter(|end| *end > from && *end <= PORTS);
    match end {
        None => Err(Errno::EINVAL),
        Some(_) if on != 0 => Err(Errno::EPERM),
        Some(_) => ok(),
    }
}
