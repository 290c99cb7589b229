//! Who a task is: user and group ids, capabilities (credentials(7), capabilities(7)).

use std::sync::Arc;

use abi::{Errno, UserAddr};

use crate::kernel::creds::{ALL_CAPS, Creds};
use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::{CurrentTask, Tid};
use crate::syscall_table;

syscall_table! {
    102 getuid();
    104 getgid();
    105 setuid(uid: u32);
    106 setgid(gid: u32);
    107 geteuid();
    108 getegid();
    113 setreuid(ruid: u32, euid: u32);
    114 setregid(rgid: u32, egid: u32);
    115 getgroups(size: i32, list: UserAddr);
    116 setgroups(size: i32, list: UserAddr);
    117 setresuid(ruid: u32, euid: u32, suid: u32);
    118 getresuid(ruid: UserAddr, euid: UserAddr, suid: UserAddr);
    119 setresgid(rgid: u32, egid: u32, sgid: u32);
    120 getresgid(rgid: UserAddr, egid: UserAddr, sgid: UserAddr);
    122 setfsuid(uid: u32);
    123 setfsgid(gid: u32);
    125 capget(header: UserAddr, data: UserAddr);
    126 capset(header: UserAddr, data: UserAddr);
}

/// "Leave it as it is".
const KEEP: u32 = u32::MAX;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;
/// Capabilities about files, which follow the file-system user id.
const FS_CAPS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 27 | 1 << 32;
const NGROUPS_MAX: usize = 65_536;
const SECBIT_NO_SETUID_FIXUP: u32 = 4;

/// Changes the calling thread's credentials.
pub fn change(cx: &CurrentTask<'_>, change: impl FnOnce(&mut Creds) -> Result<(), Errno>) -> Result<(), Errno> {
    let old = cx.creds();
    let mut new = Creds::clone(&old);
    change(&mut new)?;
    if new != *old {
        if new.uid[1] != old.uid[1] || new.gid[1] != old.gid[1] {
            // As commit_creds: a process that changed who it is may not be looked into, and loses PDEATHSIG.
            cx.task.group.dumpable.store(0, std::sync::atomic::Ordering::Relaxed);
            cx.task.death_signal.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        let before = std::mem::replace(&mut cx.task.shared.lock().creds, Arc::new(new));
        drop(before);
    }
    Ok(())
}

fn getuid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.creds().uid[0])
}

fn geteuid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.creds().euid())
}

fn getgid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.creds().gid[0])
}

fn getegid(cx: &mut CurrentTask<'_>) -> SyscallResult {
    ret(cx.creds().egid())
}

/// What a change of user ids does to capabilities (`cap_task_fix_setuid`).
fn fix_caps(new: &mut Creds, old: &Creds) {
    if new.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
        return;
    }
    let had_root = old.uid[..3].contains(&0);
    if had_root && !new.uid[..3].contains(&0) {
        if !new.keep_caps {
            new.caps.permitted = 0;
            new.caps.effective = 0;
        }
        new.caps.ambient = 0;
    }
    match (old.euid(), new.euid()) {
        (0, e) if e != 0 => new.caps.effective = 0,
        (o, 0) if o != 0 => new.caps.effective = new.caps.permitted,
        _ => {}
    }
}

fn set_uids(cx: &CurrentTask<'_>, set: impl FnOnce(&mut Creds, bool) -> Result<(), Errno>) -> SyscallResult {
    let old = cx.creds();
    change(cx, |new| {
        set(new, old.has_cap(CAP_SETUID))?;
        new.uid[3] = new.uid[1];
        fix_caps(new, &old);
        Ok(())
    })?;
    ok()
}

fn set_gids(cx: &CurrentTask<'_>, set: impl FnOnce(&mut Creds, bool) -> Result<(), Errno>) -> SyscallResult {
    let privileged = cx.creds().has_cap(CAP_SETGID);
    change(cx, |new| {
        set(new, privileged)?;
        new.gid[3] = new.gid[1];
        Ok(())
    })?;
    ok()
}

/// `setuid` and `setgid`: all ids for the privileged, else the effective one among real and saved.
fn set_one(ids: &mut [u32; 4], id: u32, privileged: bool) -> Result<(), Errno> {
    if id == KEEP {
        return Err(Errno::EINVAL);
    }
    if privileged {
        *ids = [id; 4];
    } else if ids[0] == id || ids[2] == id {
        ids[1] = id;
    } else {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// `setreuid` and `setregid`.
fn set_two(ids: &mut [u32; 4], real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
    let old = *ids;
    if real != KEEP {
        if !privileged && real != old[0] && real != old[1] {
            return Err(Errno::EPERM);
        }
        ids[0] = real;
    }
    if effective != KEEP {
        if !privileged && !old[..3].contains(&effective) {
            return Err(Errno::EPERM);
        }
        ids[1] = effective;
    }
    if real != KEEP || effective != KEEP && effective != old[0] {
        ids[2] = ids[1];
    }
    Ok(())
}

/// `setresuid` and `setresgid`.
fn set_three(ids: &mut [u32; 4], wanted: [u32; 3], privileged: bool) -> Result<(), Errno> {
    let old = *ids;
    for (slot, id) in ids.iter_mut().zip(wanted) {
        if id != KEEP {
            if !privileged && !old[..3].contains(&id) {
                return Err(Errno::EPERM);
            }
            *slot = id;
        }
    }
    Ok(())
}

fn setuid(cx: &mut CurrentTask<'_>, uid: u32) -> SyscallResult {
    set_uids(cx, |c, p| set_one(&mut c.uid, uid, p))
}

fn setgid(cx: &mut CurrentTask<'_>, gid: u32) -> SyscallResult {
    set_gids(cx, |c, p| set_one(&mut c.gid, gid, p))
}

fn setreuid(cx: &mut CurrentTask<'_>, ruid: u32, euid: u32) -> SyscallResult {
    set_uids(cx, |c, p| set_two(&mut c.uid, ruid, euid, p))
}

fn setregid(cx: &mut CurrentTask<'_>, rgid: u32, egid: u32) -> SyscallResult {
    set_gids(cx, |c, p| set_two(&mut c.gid, rgid, egid, p))
}

fn setresuid(cx: &mut CurrentTask<'_>, ruid: u32, euid: u32, suid: u32) -> SyscallResult {
    set_uids(cx, |c, p| set_three(&mut c.uid, [ruid, euid, suid], p))
}

fn setresgid(cx: &mut CurrentTask<'_>, rgid: u32, egid: u32, sgid: u32) -> SyscallResult {
    set_gids(cx, |c, p| set_three(&mut c.gid, [rgid, egid, sgid], p))
}

fn write_three(cx: &CurrentTask<'_>, at: [UserAddr; 3], ids: [u32; 4]) -> SyscallResult {
    let mm = cx.mm()?;
    for (addr, id) in at.into_iter().zip(ids) {
        mm.write_obj(addr, &id)?;
    }
    ok()
}

fn getresuid(cx: &mut CurrentTask<'_>, ruid: UserAddr, euid: UserAddr, suid: UserAddr) -> SyscallResult {
    write_three(cx, [ruid, euid, suid], cx.creds().uid)
}

fn getresgid(cx: &mut CurrentTask<'_>, rgid: UserAddr, egid: UserAddr, sgid: UserAddr) -> SyscallResult {
    write_three(cx, [rgid, egid, sgid], cx.creds().gid)
}

/// Answers the old id, whether or not it changed.
fn setfsuid(cx: &mut CurrentTask<'_>, uid: u32) -> SyscallResult {
    let old = cx.creds();
    if uid != KEEP && (old.uid.contains(&uid) || old.has_cap(CAP_SETUID)) {
        change(cx, |new| {
            new.uid[3] = uid;
            match (old.fsuid(), uid) {
                (0, u) if u != 0 => new.caps.effective &= !FS_CAPS,
                (o, 0) if o != 0 => new.caps.effective |= new.caps.permitted & FS_CAPS,
                _ => {}
            }
            Ok(())
        })?;
    }
    ret(old.fsuid())
}

fn setfsgid(cx: &mut CurrentTask<'_>, gid: u32) -> SyscallResult {
    let old = cx.creds();
    if gid != KEEP && (old.gid.contains(&gid) || old.has_cap(CAP_SETGID)) {
        change(cx, |new| {
            new.gid[3] = gid;
            Ok(())
        })?;
    }
    ret(old.fsgid())
}

fn getgroups(cx: &mut CurrentTask<'_>, size: i32, list: UserAddr) -> SyscallResult {
    let creds = cx.creds();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size > 0 {
        if size < creds.groups.len() {
            return Err(Errno::EINVAL);
        }
        cx.mm()?.write_bytes(list, zerocopy::IntoBytes::as_bytes(creds.groups.as_slice()))?;
    }
    ret(creds.groups.len() as u64)
}

fn setgroups(cx: &mut CurrentTask<'_>, size: i32, list: UserAddr) -> SyscallResult {
    if !cx.creds().has_cap(CAP_SETGID) {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).ok().filter(|n| *n <= NGROUPS_MAX).ok_or(Errno::EINVAL)?;
    let mut groups = vec![0u32; size];
    cx.mm()?.read_bytes(list, zerocopy::IntoBytes::as_mut_bytes(groups.as_mut_slice()))?;
    if groups.contains(&KEEP) {
        return Err(Errno::EINVAL);
    }
    // The kernel keeps them sorted.
    groups.sort_unstable();
    change(cx, |new| {
        new.groups = groups;
        Ok(())
    })?;
    ok()
}

const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads the header: how many 32-bit sets, and for whom. An unknown version is answered with ours.
fn cap_header(cx: &CurrentTask<'_>, header: UserAddr) -> Result<Option<(usize, i32)>, Errno> {
    let mm = cx.mm()?;
    let [version, pid]: [u32; 2] = mm.read_obj(header)?;
    let sets = match version {
        CAP_VERSION_1 => 1,
        CAP_VERSION_2 | CAP_VERSION_3 => 2,
        _ => {
            mm.write_obj(header, &CAP_VERSION_3)?;
            return Ok(None);
        }
    };
    Ok(Some((sets, pid.cast_signed())))
}

fn halves(set: u64) -> [u32; 2] {
    [u32::try_from(set & 0xffff_ffff).unwrap_or(0), u32::try_from(set >> 32).unwrap_or(0)]
}

fn capget(cx: &mut CurrentTask<'_>, header: UserAddr, data: UserAddr) -> SyscallResult {
    let Some((sets, pid)) = cap_header(cx, header)? else {
        return if data.is_null() { ok() } else { Err(Errno::EINVAL) };
    };
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = match pid {
        0 => cx.creds(),
        pid => cx.task.pids().task(Tid(pid)).ok_or(Errno::ESRCH)?.creds(),
    };
    if data.is_null() {
        return ok();
    }
    let (e, p, i) = (halves(creds.caps.effective), halves(creds.caps.permitted), halves(creds.caps.inheritable));
    let all = [e[0], p[0], i[0], e[1], p[1], i[1]];
    cx.mm()?.write_bytes(data, zerocopy::IntoBytes::as_bytes(&all[..sets * 3]))?;
    ok()
}

fn capset(cx: &mut CurrentTask<'_>, header: UserAddr, data: UserAddr) -> SyscallResult {
    let Some((sets, pid)) = cap_header(cx, header)? else { return Err(Errno::EINVAL) };
    if pid != 0 && pid != cx.task.tid.0 {
        return Err(Errno::EPERM);
    }
    let mut raw = [0u32; 6];
    cx.mm()?.read_bytes(data, zerocopy::IntoBytes::as_mut_bytes(&mut raw[..sets * 3]))?;
    let join = |at: usize| (u64::from(raw[at]) | u64::from(raw[at + 3]) << 32) & ALL_CAPS;
    let (effective, permitted, inheritable) = (join(0), join(1), join(2));
    let old = cx.creds();
    let had = old.caps;
    let may_inherit =
        if old.has_cap(CAP_SETPCAP) { had.inheritable | had.bounding } else { had.inheritable | had.permitted };
    let bad = inheritable & !(may_inherit | had.permitted) != 0
        || inheritable & !(had.inheritable | had.bounding) != 0
        || permitted & !had.permitted != 0
        || effective & !permitted != 0;
    if bad {
        return Err(Errno::EPERM);
    }
    change(cx, |new| {
        (new.caps.effective, new.caps.permitted, new.caps.inheritable) = (effective, permitted, inheritable);
        new.caps.ambient &= permitted & inheritable;
        Ok(())
    })?;
    ok()
}
