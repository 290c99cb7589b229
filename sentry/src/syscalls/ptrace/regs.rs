//! Requests about a stopped task's registers.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use platform::{FpuState, UserRegs};

use super::{call_kind, req};
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::ptrace::{Kind, Stop};
use crate::kernel::seccomp::AUDIT_ARCH_X86_64;
use crate::kernel::task::{Task, TaskOwned};
use crate::mm::Mm;

/// Registers in `struct user_regs_struct`.
const WORDS: usize = 27;
/// `struct user_i387_struct`: an FXSAVE area.
const FX_LEN: usize = 512;
/// `struct user`, and where its debug registers lie.
const USER_LEN: u64 = 912;
const DEBUG_REGS: u64 = 848;
/// Where an XSAVE area says which components there are (`struct xstate_bv`), and where gdb looks for XCR0.
const XSTATE_BV: usize = 512;
const SW_XCR0: usize = 464;
/// End of user space as Linux sees it, for segment bases.
const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;

fn words(r: &UserRegs) -> [u64; WORDS] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        r.orig_rax, r.rip, r.cs, r.rflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ]
}

fn set_words(r: &mut UserRegs, from: &[u64; WORDS]) {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        r.orig_rax, r.rip, r.cs, r.rflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ] = *from;
}

fn bytes(words: &[u64; WORDS]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Changes registers as the tracer wants, within what user code may have.
fn set(own: &mut TaskOwned, from: &[u64; WORDS]) -> Result<(), Errno> {
    let mut regs = own.arch.regs;
    set_words(&mut regs, from);
    if regs.fs_base >= TASK_SIZE_MAX || regs.gs_base >= TASK_SIZE_MAX {
        return Err(Errno::EIO);
    }
    regs.sanitize();
    own.arch.regs = regs;
    if regs.orig_rax.cast_signed() < 0 {
        // Nothing is restarted then.
        own.syscall_nr = -1;
    }
    Ok(())
}

/// Overwrites the first bytes of the general registers.
fn set_bytes(own: &mut TaskOwned, raw: &[u8]) -> Result<(), Errno> {
    let mut all = words(&own.arch.regs);
    for (word, raw) in all.iter_mut().zip(raw.chunks_exact(8)) {
        *word = raw.try_into().map(u64::from_le_bytes).map_err(|_| Errno::EINVAL)?;
    }
    set(own, &all)
}

fn fpu_image(task: &Task, own: &TaskOwned) -> Vec<u8> {
    let platform = &task.kernel.platform;
    let mut image = own.arch.fpu.to_xsave(platform.xsave_size());
    image.truncate(platform.xsave_size().max(576));
    image[SW_XCR0..SW_XCR0 + 8].copy_from_slice(&(platform.xcr0() | 3).to_le_bytes());
    image
}

/// Loads the first bytes of an FPU image over the old state.
fn set_fpu(task: &Task, own: &mut TaskOwned, raw: &[u8]) -> Result<(), Errno> {
    const MXCSR_MASK: u32 = 0xffff;
    let mut image = fpu_image(task, own);
    let n = raw.len().min(image.len());
    image[..n].copy_from_slice(&raw[..n]);
    let mxcsr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
    let mut features = [0; 8];
    features.copy_from_slice(&image[XSTATE_BV..XSTATE_BV + 8]);
    // x87 and SSE are always there.
    let features = u64::from_le_bytes(features) | 3;
    let header_is_clean = image[XSTATE_BV + 8..XSTATE_BV + 64].iter().all(|b| *b == 0);
    if mxcsr & !MXCSR_MASK != 0 || features & !(task.kernel.platform.xcr0() | 3) != 0 || !header_is_clean {
        return Err(Errno::EINVAL);
    }
    image[SW_XCR0..SW_XCR0 + 8].fill(0);
    image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&features.to_le_bytes());
    own.arch.set_fpu(FpuState::Saved(image.into_boxed_slice()));
    Ok(())
}

/// Serves one request.
///
/// # Errors
/// As ptrace(2).
pub fn serve(
    mm: &Mm,
    task: &Arc<Task>,
    own: &mut TaskOwned,
    stop: &Stop,
    (request, addr, data): (i64, u64, u64),
) -> SyscallResult {
    let at = UserAddr(data);
    match request {
        req::GETREGS => mm.write_bytes(at, &bytes(&words(&own.arch.regs)))?,
        req::SETREGS => {
            let all = mm.read_obj::<[u64; WORDS]>(at)?;
            set(own, &all)?;
        }
        req::GETFPREGS => mm.write_bytes(at, &fpu_image(task, own)[..FX_LEN])?,
        req::SETFPREGS => {
            let mut raw = [0; FX_LEN];
            mm.read_bytes(at, &mut raw)?;
            set_fpu(task, own, &raw)?;
        }
        req::GETREGSET | req::SETREGSET => return regset(mm, task, own, (request == req::SETREGSET, addr, at)),
        req::PEEKUSR => {
            let value = peek_user(own, addr)?;
            mm.write_obj(at, &value)?;
        }
        req::POKEUSR => poke_user(own, addr, data)?,
        req::GET_SYSCALL_INFO => return call_info(mm, own, stop, addr, at),
        _ => return Err(Errno::EIO),
    }
    ok()
}

fn word_index(addr: u64) -> Result<usize, Errno> {
    if addr & 7 != 0 || addr >= USER_LEN {
        return Err(Errno::EIO);
    }
    usize::try_from(addr / 8).map_err(|_| Errno::EIO)
}

fn peek_user(own: &TaskOwned, addr: u64) -> Result<u64, Errno> {
    // Debug registers, and what only core dumps fill, are zero.
    Ok(words(&own.arch.regs).get(word_index(addr)?).copied().unwrap_or(0))
}

fn poke_user(own: &mut TaskOwned, addr: u64, data: u64) -> Result<(), Errno> {
    let index = word_index(addr)?;
    let mut all = words(&own.arch.regs);
    if let Some(word) = all.get_mut(index) {
        *word = data;
        return set(own, &all);
    }
    // No hardware breakpoints; clearing them is fine.
    if addr >= DEBUG_REGS && data == 0 { Ok(()) } else { Err(Errno::EIO) }
}

fn regset(mm: &Mm, task: &Task, own: &mut TaskOwned, (write, kind, iov): (bool, u64, UserAddr)) -> SyscallResult {
    const NT_PRSTATUS: u64 = 1;
    const NT_PRFPREG: u64 = 2;
    const NT_X86_XSTATE: u64 = 0x202;
    let [base, room] = mm.read_obj::<[u64; 2]>(iov)?;
    let image = match kind {
        NT_PRSTATUS => bytes(&words(&own.arch.regs)),
        NT_PRFPREG => fpu_image(task, own)[..FX_LEN].to_vec(),
        NT_X86_XSTATE => fpu_image(task, own),
        _ => return Err(Errno::EINVAL),
    };
    if room % 8 != 0 && kind == NT_PRSTATUS {
        return Err(Errno::EINVAL);
    }
    let len = usize::try_from(room).unwrap_or(usize::MAX).min(image.len());
    if write {
        let mut raw = vec![0; len];
        mm.read_bytes(UserAddr(base), &mut raw)?;
        if kind == NT_PRSTATUS { set_bytes(own, &raw)? } else { set_fpu(task, own, &raw)? }
    } else {
        mm.write_bytes(UserAddr(base), &image[..len])?;
    }
    mm.write_obj(iov.checked_add(8).ok_or(Errno::EFAULT)?, &(len as u64))?;
    ok()
}

/// PTRACE_GET_SYSCALL_INFO: `struct ptrace_syscall_info`.
fn call_info(mm: &Mm, own: &TaskOwned, stop: &Stop, size: u64, at: UserAddr) -> SyscallResult {
    let regs = &own.arch.regs;
    let mut out = vec![call_kind(stop), 0, 0, 0];
    out.extend_from_slice(&AUDIT_ARCH_X86_64.to_le_bytes());
    out.extend_from_slice(&regs.rip.to_le_bytes());
    out.extend_from_slice(&regs.rsp.to_le_bytes());
    match stop.kind {
        Kind::Entry | Kind::Seccomp(_) => {
            out.extend_from_slice(&regs.orig_rax.to_le_bytes());
            out.extend(regs.syscall_args().iter().flat_map(|a| a.to_le_bytes()));
            if let Kind::Seccomp(data) = stop.kind {
                out.extend_from_slice(&u32::from(data).to_le_bytes());
            }
        }
        Kind::Exit => {
            out.extend_from_slice(&regs.rax.to_le_bytes());
            out.push(u8::from((-4095..0).contains(&regs.rax.cast_signed())));
        }
        Kind::Signal | Kind::Event | Kind::Group => {}
    }
    let n = usize::try_from(size).unwrap_or(usize::MAX).min(out.len());
    mm.write_bytes(at, &out[..n])?;
    crate::kernel::op::ret(out.len() as u64)
}
