//! seccomp(2), and prctl(2)'s older face of it.

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::seccomp::bpf::{Insn, MAX_LEN, Program};
use crate::kernel::seccomp::{self, action};
use crate::kernel::task::CurrentTask;
use crate::syscall_table;

syscall_table! {
    317 seccomp(op: u32, flags: u32, args: UserAddr) Partial("no SECCOMP_RET_USER_NOTIF listeners");
}

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const TSYNC_ESRCH: u32 = 16;

fn seccomp(cx: &mut CurrentTask<'_>, op: u32, flags: u32, args: UserAddr) -> SyscallResult {
    match op {
        SET_MODE_STRICT if flags == 0 && args.is_null() => seccomp::set_strict(cx.task).and_then(|()| ok()),
        SET_MODE_FILTER => set_filter(cx, flags, args),
        GET_ACTION_AVAIL if flags == 0 => match cx.mm()?.read_obj::<u32>(args)? {
            action::KILL_PROCESS
            | action::KILL_THREAD
            | action::TRAP
            | action::ERRNO
            | action::TRACE
            | action::LOG
            | action::ALLOW => ok(),
            _ => Err(Errno::EOPNOTSUPP),
        },
        GET_NOTIF_SIZES if flags == 0 => {
            // struct seccomp_notif, seccomp_notif_resp, seccomp_data.
            cx.mm()?.write_obj(args, &[80u16, 24, 64])?;
            ok()
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `prctl(PR_SET_SECCOMP)`.
///
/// # Errors
/// As seccomp(2).
pub fn from_prctl(cx: &mut CurrentTask<'_>, mode: u64, filter: u64) -> SyscallResult {
    match mode {
        1 => seccomp::set_strict(cx.task).and_then(|()| ok()),
        2 => set_filter(cx, 0, UserAddr(filter)),
        _ => Err(Errno::EINVAL),
    }
}

fn set_filter(cx: &mut CurrentTask<'_>, flags: u32, args: UserAddr) -> SyscallResult {
    if flags & !(TSYNC | LOG | SPEC_ALLOW | TSYNC_ESRCH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    // struct sock_fprog: a length, padding, a pointer.
    let [len, at] = mm.read_obj::<[u64; 2]>(args)?;
    let len = (len & 0xffff) as usize;
    if len == 0 || len > MAX_LEN || at == 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0u8; len * 8];
    mm.read_bytes(UserAddr(at), &mut raw)?;
    let decode = |b: &[u8]| b.try_into().map(Insn::from_bytes);
    let insns = raw.chunks_exact(8).map(decode).collect::<Result<Vec<_>, _>>().map_err(|_| Errno::EINVAL)?;
    let failed = seccomp::add_filter(cx, Program::new(insns)?, flags & TSYNC != 0)?;
    if failed != 0 && flags & TSYNC_ESRCH != 0 { Err(Errno::ESRCH) } else { ret(failed) }
}
