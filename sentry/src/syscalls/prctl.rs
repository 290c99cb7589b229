//! prctl and personality.

use std::sync::atomic::Ordering;

use abi::{Errno, UserAddr};

use crate::kernel::creds::ALL_CAPS;
use crate::kernel::exec::COMM_LEN;
use crate::kernel::op::{Flow, SyscallResult, ok, ret};
use crate::kernel::signal::info::NSIG;
use crate::kernel::task::CurrentTask;
use crate::syscall_table;
use crate::syscalls::creds::change;

syscall_table! {
    135 personality(persona: u32) Partial("PER_LINUX only; flags are kept and shown");
    157 prctl(option: i32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) Partial("names, credentials, dumpable, subreaper, slack, THP; not PR_SET_MM, speculation, tagged addresses");
}

const CAP_SETPCAP: u32 = 8;

#[allow(missing_docs, reason = "named as in prctl(2)")]
mod pr {
    pub const SET_PDEATHSIG: i32 = 1;
    pub const GET_PDEATHSIG: i32 = 2;
    pub const GET_DUMPABLE: i32 = 3;
    pub const SET_DUMPABLE: i32 = 4;
    pub const GET_KEEPCAPS: i32 = 7;
    pub const SET_KEEPCAPS: i32 = 8;
    pub const GET_TIMING: i32 = 13;
    pub const SET_TIMING: i32 = 14;
    pub const SET_NAME: i32 = 15;
    pub const GET_NAME: i32 = 16;
    pub const GET_SECCOMP: i32 = 21;
    pub const SET_SECCOMP: i32 = 22;
    pub const CAPBSET_READ: i32 = 23;
    pub const CAPBSET_DROP: i32 = 24;
    pub const GET_TSC: i32 = 25;
    pub const SET_TSC: i32 = 26;
    pub const GET_SECUREBITS: i32 = 27;
    pub const SET_SECUREBITS: i32 = 28;
    pub const SET_TIMERSLACK: i32 = 29;
    pub const GET_TIMERSLACK: i32 = 30;
    pub const SET_MM: i32 = 35;
    pub const SET_CHILD_SUBREAPER: i32 = 36;
    pub const GET_CHILD_SUBREAPER: i32 = 37;
    pub const SET_NO_NEW_PRIVS: i32 = 38;
    pub const GET_NO_NEW_PRIVS: i32 = 39;
    pub const GET_TID_ADDRESS: i32 = 40;
    pub const SET_THP_DISABLE: i32 = 41;
    pub const GET_THP_DISABLE: i32 = 42;
    pub const CAP_AMBIENT: i32 = 47;
    pub const SET_VMA: i32 = 0x5356_4d41;
    pub const SET_PTRACER: i32 = 0x5961_6d61;
}

fn flag(value: u64) -> Result<bool, Errno> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

fn none(args: &[u64]) -> Result<(), Errno> {
    if args.iter().all(|a| *a == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn prctl(cx: &mut CurrentTask<'_>, option: i32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) -> SyscallResult {
    let rest = [arg3, arg4, arg5];
    match option {
        pr::SET_NAME | pr::GET_NAME => name(cx, option == pr::SET_NAME, UserAddr(arg2)),
        pr::SET_PDEATHSIG => {
            let signo = i32::try_from(arg2).ok().filter(|s| (0..=NSIG).contains(s)).ok_or(Errno::EINVAL)?;
            cx.task.death_signal.store(signo, Ordering::Relaxed);
            ok()
        }
        pr::GET_PDEATHSIG => put(cx, arg2, cx.task.death_signal.load(Ordering::Relaxed)),
        pr::GET_DUMPABLE => ret(cx.task.group.dumpable.load(Ordering::Relaxed)),
        pr::SET_DUMPABLE => {
            cx.task.group.dumpable.store(u8::from(flag(arg2)?), Ordering::Relaxed);
            ok()
        }
        pr::SET_CHILD_SUBREAPER => {
            cx.task.group.state.lock().subreaper = arg2 != 0;
            ok()
        }
        pr::GET_CHILD_SUBREAPER => put(cx, arg2, i32::from(cx.task.group.state.lock().subreaper)),
        pr::SET_TIMERSLACK => {
            cx.own.timer_slack = if arg2 == 0 { 50_000 } else { arg2 };
            ok()
        }
        pr::GET_TIMERSLACK => Ok(Flow::Return(cx.own.timer_slack)),
        pr::GET_TIMING => ret(0u64),
        pr::GET_SECCOMP => ret(cx.task.seccomp.mode()),
        pr::SET_SECCOMP => crate::syscalls::seccomp::from_prctl(cx, arg2, arg3),
        pr::SET_TIMING => {
            if arg2 == 0 {
                ok()
            } else {
                Err(Errno::EINVAL)
            }
        }
        pr::GET_TSC => put(cx, arg2, 1),
        pr::SET_TSC => {
            if arg2 == 1 {
                ok()
            } else {
                Err(Errno::EINVAL)
            }
        }
        pr::GET_TID_ADDRESS => {
            cx.mm()?.write_obj(UserAddr(arg2), &cx.own.clear_tid)?;
            ok()
        }
        pr::SET_THP_DISABLE => none(&rest).and_then(|()| ok()),
        pr::GET_THP_DISABLE => none(&[arg2, arg3, arg4, arg5]).and_then(|()| ret(0u64)),
        // Names of mappings are shown nowhere yet; the call succeeds only where the kernel is built with them.
        // Every process may trace its equals here, so there is nobody to be let in.
        pr::SET_PTRACER => ok(),
        pr::SET_VMA => Err(Errno::EINVAL),
        pr::SET_MM => Err(Errno::EPERM),
        _ => identity(cx, option, arg2, rest),
    }
}

/// The options about credentials.
fn identity(cx: &mut CurrentTask<'_>, option: i32, arg2: u64, rest: [u64; 3]) -> SyscallResult {
    let creds = cx.creds();
    match option {
        pr::GET_KEEPCAPS => ret(u64::from(creds.keep_caps)),
        pr::SET_KEEPCAPS => {
            const SECBIT_KEEP_CAPS_LOCKED: u32 = 1 << 5;
            let keep = flag(arg2)?;
            if creds.securebits & SECBIT_KEEP_CAPS_LOCKED != 0 {
                return Err(Errno::EPERM);
            }
            set(cx, |c| c.keep_caps = keep)
        }
        pr::SET_NO_NEW_PRIVS => {
            if arg2 != 1 {
                return Err(Errno::EINVAL);
            }
            none(&rest)?;
            set(cx, |c| c.no_new_privs = true)
        }
        pr::GET_NO_NEW_PRIVS => {
            none(&[arg2])?;
            none(&rest)?;
            ret(u64::from(creds.no_new_privs))
        }
        pr::CAPBSET_READ => ret(u64::from(creds.caps.bounding & cap_bit(arg2)? != 0)),
        pr::CAPBSET_DROP => {
            if !creds.has_cap(CAP_SETPCAP) {
                return Err(Errno::EPERM);
            }
            let bit = cap_bit(arg2)?;
            set(cx, |c| c.caps.bounding &= !bit)
        }
        pr::GET_SECUREBITS => ret(creds.securebits | if creds.keep_caps { 1 << 4 } else { 0 }),
        pr::SET_SECUREBITS => set_securebits(cx, arg2),
        pr::CAP_AMBIENT => ambient(cx, arg2, rest),
        _ => Err(Errno::EINVAL),
    }
}

fn set(cx: &CurrentTask<'_>, edit: impl FnOnce(&mut crate::kernel::creds::Creds)) -> SyscallResult {
    change(cx, |creds| {
        edit(creds);
        Ok(())
    })?;
    ok()
}

fn cap_bit(cap: u64) -> Result<u64, Errno> {
    let bit = u32::try_from(cap).ok().and_then(|c| 1u64.checked_shl(c)).unwrap_or(0);
    if bit & ALL_CAPS == 0 { Err(Errno::EINVAL) } else { Ok(bit) }
}

fn put(cx: &CurrentTask<'_>, at: u64, value: i32) -> SyscallResult {
    cx.mm()?.write_obj(UserAddr(at), &value)?;
    ok()
}

fn name(cx: &mut CurrentTask<'_>, set: bool, at: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    let mut bytes = [0u8; COMM_LEN + 1];
    if !set {
        let name = cx.task.shared.lock().name.clone();
        let n = name.len().min(COMM_LEN);
        bytes[..n].copy_from_slice(&name[..n]);
        mm.write_bytes(at, &bytes)?;
        return ok();
    }
    // Read byte by byte, as strncpy_from_user: the string may end right before unmapped memory.
    let mut name = Vec::new();
    while name.len() < COMM_LEN {
        let at = at.checked_add(name.len() as u64).ok_or(Errno::EFAULT)?;
        match mm.read_obj::<u8>(at)? {
            0 => break,
            byte => name.push(byte),
        }
    }
    cx.task.shared.lock().name = name;
    ok()
}

/// `PR_SET_SECUREBITS`: each bit has a lock bit above it.
fn set_securebits(cx: &CurrentTask<'_>, arg: u64) -> SyscallResult {
    const ALL_BITS: u32 = 0x55;
    const ALL_LOCKS: u32 = 0xaa;
    let creds = cx.creds();
    let old = creds.securebits;
    let new = u32::try_from(arg).map_err(|_| Errno::EPERM)?;
    let locked = (old & ALL_LOCKS) >> 1;
    let bad = locked & (old ^ new) != 0 || old & ALL_LOCKS & !new != 0 || new & !(ALL_BITS | ALL_LOCKS) != 0;
    if bad || !creds.has_cap(CAP_SETPCAP) {
        return Err(Errno::EPERM);
    }
    set(cx, |c| {
        c.securebits = new & !(1 << 4);
        c.keep_caps = new & (1 << 4) != 0;
    })
}

fn ambient(cx: &CurrentTask<'_>, what: u64, rest: [u64; 3]) -> SyscallResult {
    const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    let creds = cx.creds();
    none(&rest[1..])?;
    if what == 4 {
        none(&rest)?;
        return set(cx, |c| c.caps.ambient = 0);
    }
    let bit = cap_bit(rest[0])?;
    match what {
        1 => ret(u64::from(creds.caps.ambient & bit != 0)),
        2 => {
            let may = creds.caps.permitted & creds.caps.inheritable & bit != 0;
            if !may || creds.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            set(cx, |c| c.caps.ambient |= bit)
        }
        3 => set(cx, |c| c.caps.ambient &= !bit),
        _ => Err(Errno::EINVAL),
    }
}

fn personality(cx: &mut CurrentTask<'_>, persona: u32) -> SyscallResult {
    const QUERY: u32 = u32::MAX;
    let slot = &cx.task.group.personality;
    if persona == QUERY { ret(slot.load(Ordering::Relaxed)) } else { ret(slot.swap(persona, Ordering::Relaxed)) }
}
