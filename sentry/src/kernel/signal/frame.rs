//! Signal frames, byte for byte as Linux lays them on an x86-64 stack (`arch/x86/kernel/signal_64.c`, `fpu/signal.c`).
//!
//! From low to high: return address (the restorer), `ucontext`, `siginfo`, padding, XSAVE image with its magic words.

use abi::{Errno, UserAddr};
use platform::{FpuState, UserRegs};

use crate::kernel::signal::action::{SigAction, sa};
use crate::kernel::signal::info::{SigInfo, SigSet, UNBLOCKABLE};
use crate::kernel::signal::{self, AltStack, FaultContext, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK};
use crate::kernel::task::CurrentTask;

/// Bytes below the stack pointer that leaf functions use.
const RED_ZONE: u64 = 128;
/// `struct rt_sigframe` without the FPU state.
const FRAME: usize = 440;
/// `struct ucontext`, where it begins, and where parts of it lie in the frame.
const UC: usize = 8;
const UC_STACK: usize = UC + 16;
const UC_MCONTEXT: usize = UC + 40;
const UC_SIGMASK: usize = UC + 296;
const SIGINFO: usize = UC + 304;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
/// `FP_XSTATE_MAGIC1`, `FP_XSTATE_MAGIC2` and where `struct _fpx_sw_bytes` lies in the FXSAVE area.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const SW_BYTES: usize = 464;
/// Bytes of the FXSAVE area, and with the XSAVE header.
const FXSAVE: usize = 512;
const XSAVE_MIN: usize = 576;
/// x87 and SSE: always in a frame.
const FP_SSE: u64 = 3;
/// MXCSR bits that exist (with DAZ).
const MXCSR_MASK: u32 = 0xffff;
/// Smallest alternate stack that `sigaltstack` takes.
pub const MINSIGSTKSZ: u64 = 2048;

/// The most a frame needs of a stack: AT_MINSIGSTKSZ (`init_sigframe_size`).
#[must_use]
pub fn max_size(xsave_size: usize) -> usize {
    // Frame, two alignments' worth of padding, XSAVE image with its trailing magic.
    (FRAME + 63 + 15 + xsave_size.max(XSAVE_MIN) + 4).next_multiple_of(16)
}

struct Buffer(Vec<u8>);

impl Buffer {
    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn get_u32(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn get_u64(raw: &[u8], at: usize) -> u64 {
    raw.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// General registers of `struct sigcontext_64`, in order.
fn context_registers(regs: &UserRegs) -> [u64; 18] {
    [
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.rflags,
    ]
}

fn set_context_registers(regs: &mut UserRegs, from: &[u64; 18]) {
    [
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.rflags,
    ] = *from;
}

/// Where the frame goes: stack pointer of the handler, address of the FPU state.
fn place(rsp: u64, alt: &AltStack, on_alt: bool, fpu_size: u64) -> Option<(u64, u64)> {
    let nested = alt.in_use(rsp);
    let mut sp = rsp.wrapping_sub(RED_ZONE);
    let mut entering = false;
    if on_alt && alt.state(sp) == 0 {
        sp = alt.sp.wrapping_add(alt.size);
        entering = true;
    }
    let fpu = sp.checked_sub(fpu_size)? & !63;
    // As at a function's entry: 8 bytes off a multiple of 16.
    let frame = (fpu.checked_sub(FRAME as u64)? & !15).checked_sub(8)?;
    // A frame that would run over the alternate stack's end is an overflow of it.
    ((!nested && !entering) || alt.holds(frame)).then_some((frame, fpu))
}

fn fpu_image(state: &FpuState, size: usize, xcr0: u64) -> Vec<u8> {
    let size = size.max(XSAVE_MIN);
    let mut image = Buffer(state.to_xsave(size));
    image.0.truncate(size);
    let features = get_u64(&image.0, FXSAVE) | FP_SSE;
    image.u64(FXSAVE, features & (xcr0 | FP_SSE));
    image.u32(SW_BYTES, MAGIC1);
    let total = u32::try_from(size).unwrap_or(0);
    image.u32(SW_BYTES + 4, total.saturating_add(4));
    image.u64(SW_BYTES + 8, xcr0 | FP_SSE);
    image.u32(SW_BYTES + 16, total);
    image.0[SW_BYTES + 20..SW_BYTES + 48].fill(0);
    image.0.extend_from_slice(&MAGIC2.to_le_bytes());
    image.0
}

fn build(regs: &UserRegs, fault: &FaultContext, alt: &AltStack, action: &SigAction, fpu: u64, mask: SigSet) -> Buffer {
    let mut frame = Buffer(vec![0; FRAME]);
    frame.u64(0, action.restorer);
    frame.u64(UC, UC_FLAGS);
    frame.u64(UC_STACK, alt.sp);
    frame.u32(UC_STACK + 8, alt.flags);
    frame.u64(UC_STACK + 16, alt.size);
    for (index, value) in context_registers(regs).iter().enumerate() {
        frame.u64(UC_MCONTEXT + index * 8, *value);
    }
    frame.u16(UC_MCONTEXT + 144, 0x33);
    frame.u16(UC_MCONTEXT + 150, 0x2b);
    frame.u64(UC_MCONTEXT + 152, fault.error_code);
    frame.u64(UC_MCONTEXT + 160, fault.trapno);
    frame.u64(UC_MCONTEXT + 168, mask);
    frame.u64(UC_MCONTEXT + 176, fault.cr2);
    frame.u64(UC_MCONTEXT + 184, fpu);
    frame.u64(UC_SIGMASK, mask);
    frame
}

/// Writes the frame for `info` and points the registers at the handler.
///
/// # Errors
/// `EFAULT` where the stack cannot take it, or the action has no restorer (x86-64 has no other way back).
pub fn push(cx: &mut CurrentTask<'_>, info: &SigInfo, action: &SigAction, mask: SigSet) -> Result<(), Errno> {
    if action.flags & sa::RESTORER == 0 {
        return Err(Errno::EFAULT);
    }
    cx.save_fpu();
    let platform = cx.kernel().platform.clone();
    let image = fpu_image(&cx.own.arch.fpu, platform.xsave_size(), platform.xcr0());
    let alt = cx.own.altstack;
    let on_alt = action.flags & sa::ONSTACK != 0;
    let rsp = cx.own.arch.regs.rsp;
    let (sp, fpu) = place(rsp, &alt, on_alt, image.len() as u64).ok_or(Errno::EFAULT)?;
    let mut frame = build(&cx.own.arch.regs, &cx.own.fault, &alt, action, fpu, mask);
    frame.0[SIGINFO..SIGINFO + 128].copy_from_slice(&info.to_bytes());
    let mm = cx.mm()?;
    mm.write_bytes(UserAddr(fpu), &image)?;
    mm.write_bytes(UserAddr(sp), &frame.0)?;
    let regs = &mut cx.own.arch.regs;
    (regs.rdi, regs.rsi, regs.rdx) = (u64::from(info.signo.cast_unsigned()), sp + SIGINFO as u64, sp + UC as u64);
    (regs.rax, regs.rip, regs.rsp) = (0, action.handler, sp);
    // DF, RF and TF off.
    regs.rflags &= !(0x400 | 0x1_0000 | 0x100);
    regs.sanitize();
    cx.own.arch.set_fpu(FpuState::Initial);
    Ok(())
}

/// `rt_sigreturn(2)`: takes the frame off the stack again. A frame that Linux would refuse earns SIGSEGV.
///
/// # Errors
/// `EFAULT` where the frame cannot be read or is not sound.
pub fn pop(cx: &mut CurrentTask<'_>) -> Result<(), Errno> {
    let mm = cx.mm()?;
    let sp = cx.own.arch.regs.rsp.wrapping_sub(8);
    let mut raw = [0; SIGINFO];
    mm.read_bytes(UserAddr(sp), &mut raw)?;
    signal::set_mask(cx, get_u64(&raw, UC_SIGMASK) & !UNBLOCKABLE);
    let mut values = [0; 18];
    for (index, value) in values.iter_mut().enumerate() {
        *value = get_u64(&raw, UC_MCONTEXT + index * 8);
    }
    let regs = &mut cx.own.arch.regs;
    set_context_registers(regs, &values);
    regs.sanitize();
    regs.orig_rax = u64::MAX;
    let fpu = read_fpu(cx, get_u64(&raw, UC_MCONTEXT + 184))?;
    cx.own.arch.set_fpu(fpu);
    let wanted = AltStack {
        sp: get_u64(&raw, UC_STACK),
        flags: get_u32(&raw, UC_STACK + 8),
        size: get_u64(&raw, UC_STACK + 16),
    };
    // Errors are nobody's business here (restore_altstack).
    let _ = set_altstack(cx, wanted);
    Ok(())
}

/// The FPU state at `addr`, checked as `fpu__restore_sig` checks it.
fn read_fpu(cx: &CurrentTask<'_>, addr: u64) -> Result<FpuState, Errno> {
    if addr == 0 {
        return Ok(FpuState::Initial);
    }
    let mm = cx.mm()?;
    let platform = &cx.kernel().platform;
    let (size, xcr0) = (platform.xsave_size().max(XSAVE_MIN), platform.xcr0() | FP_SSE);
    let mut legacy = vec![0; FXSAVE];
    mm.read_bytes(UserAddr(addr), &mut legacy)?;
    if get_u32(&legacy, 24) & !MXCSR_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    let claimed = get_u32(&legacy, SW_BYTES + 16) as usize;
    let extended = get_u32(&legacy, SW_BYTES + 4) as usize;
    let sound = get_u32(&legacy, SW_BYTES) == MAGIC1 && (XSAVE_MIN..=size).contains(&claimed) && claimed <= extended;
    let mut image = legacy;
    image.resize(size, 0);
    if !sound || !read_extended(&mm, addr, claimed, &mut image)? {
        // Only x87 and SSE; the rest is as after a reset.
        image[FXSAVE..].fill(0);
        image[FXSAVE..FXSAVE + 8].copy_from_slice(&FP_SSE.to_le_bytes());
        return Ok(FpuState::Saved(image.into_boxed_slice()));
    }
    let features = get_u64(&image, FXSAVE);
    let rest_is_zero = image[FXSAVE + 8..XSAVE_MIN].iter().all(|b| *b == 0);
    if features & !xcr0 != 0 || !rest_is_zero {
        return Err(Errno::EINVAL);
    }
    let kept = features & get_u64(&image, SW_BYTES + 8);
    image[FXSAVE..FXSAVE + 8].copy_from_slice(&kept.to_le_bytes());
    Ok(FpuState::Saved(image.into_boxed_slice()))
}

/// Reads what lies behind the legacy area; answers whether the closing magic is there.
fn read_extended(mm: &crate::mm::Mm, addr: u64, claimed: usize, image: &mut [u8]) -> Result<bool, Errno> {
    let at = |offset: usize| addr.checked_add(offset as u64).map(UserAddr).ok_or(Errno::EFAULT);
    let mut magic = [0; 4];
    mm.read_bytes(at(claimed)?, &mut magic)?;
    if u32::from_le_bytes(magic) != MAGIC2 {
        return Ok(false);
    }
    mm.read_bytes(at(FXSAVE)?, &mut image[FXSAVE..claimed])?;
    Ok(true)
}

/// What `sigaltstack(2)` does with a new stack.
///
/// # Errors
/// `EPERM` while it is in use; `EINVAL` for unknown flags; `ENOMEM` where it is too small.
pub fn set_altstack(cx: &mut CurrentTask<'_>, wanted: AltStack) -> Result<(), Errno> {
    if cx.own.altstack.in_use(cx.own.arch.regs.rsp) {
        return Err(Errno::EPERM);
    }
    let mode = wanted.flags & !SS_AUTODISARM;
    if !matches!(mode, 0 | SS_ONSTACK | SS_DISABLE) {
        return Err(Errno::EINVAL);
    }
    cx.own.altstack = if mode == SS_DISABLE {
        AltStack { sp: 0, size: 0, flags: wanted.flags }
    } else if wanted.size < MINSIGSTKSZ {
        return Err(Errno::ENOMEM);
    } else {
        wanted
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_aligned_like_calls() {
        let none = AltStack::default();
        let (sp, fpu) = place(0x7000_1234, &none, true, 836).unwrap_or_default();
        assert_eq!((sp % 16, fpu % 64), (8, 0));
        assert!(fpu + 836 <= 0x7000_1234 - RED_ZONE);
        assert_eq!(place(100, &none, false, 836), None);
    }

    #[test]
    fn the_alternate_stack_is_used_once_and_not_overrun() {
        let alt = AltStack { sp: 0x10_0000, flags: 0, size: 8192 };
        let (sp, _) = place(0x7000_0000, &alt, true, 836).unwrap_or_default();
        assert!(alt.holds(sp));
        let (nested, _) = place(sp, &alt, true, 836).unwrap_or_default();
        assert!(nested < sp && alt.holds(nested));
        let small = AltStack { size: 1024, ..alt };
        assert_eq!(place(0x7000_0000, &small, true, 836), None);
    }
}
