//! From the stop of a stub to an [`Exit`].

use libc::{c_int, pid_t};
use platform::arch::{INITIAL_RFLAGS, USER_CS, USER_RFLAGS, USER_SS};
use platform::{Exception, Exit, USER_END, UserRegs};

use crate::fpu::{self, FpuFormat};
use crate::kick::KICK;
use crate::sys::{self, SigInfo, Status};

/// What a stop means.
pub enum Stop {
    /// The kernel's business.
    Exit(Exit),
    /// A page fault at this address, by a protection key or not.
    Page {
        /// cr2.
        addr: u64,
        /// `SEGV_PKUERR`.
        pkey: bool,
    },
    /// A kick, or anything of the host's own that guests know nothing of.
    Kick,
}

const SI_KERNEL: c_int = 0x80;
const SEGV_PKUERR: c_int = 4;
const BUS_ADRALN: c_int = 1;
const FPE_INTDIV: c_int = 1;
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

const PROTECTION: Exit = exception(13, None);

const fn exception(vector: u8, si_code: Option<c_int>) -> Exit {
    Exit::Exception(Exception { vector, error_code: 0, si_code })
}

/// Decodes a stop of `pid`, whose registers were read into `regs`; corrects them to what the trait promises.
pub fn decode(pid: pid_t, format: &FpuFormat, status: Status, regs: &mut UserRegs) -> Stop {
    let signal = status.stop_signal().unwrap_or(0);
    if status.event() != 0 {
        return Stop::Kick;
    }
    let stop = if signal == libc::SIGTRAP | 0x80 { gate(pid, regs) } else { by_signal(pid, format, signal, regs) };
    regs.rflags = (regs.rflags & USER_RFLAGS) | INITIAL_RFLAGS;
    if regs.cs != USER_CS {
        // 32-bit code was entered through a far jump or sysenter: not supported, whatever it was about to do.
        (regs.cs, regs.ss) = (USER_CS, USER_SS);
        return Stop::Exit(PROTECTION);
    }
    if regs.rip >= USER_END { outside(regs, stop) } else { stop }
}

/// Guest code jumped to the stub's own pages (or into the host's vDSO area) and something happened there. For the
/// guest nothing is mapped there, so it is the fetch that faults.
fn outside(regs: &mut UserRegs, stop: Stop) -> Stop {
    match stop {
        Stop::Exit(Exit::Syscall) => {
            regs.rip = regs.rip.wrapping_sub(2);
            regs.orig_rax = u64::MAX;
            Stop::Page { addr: regs.rip, pkey: false }
        }
        Stop::Exit(Exit::Exception(Exception { vector: 13, .. })) | Stop::Kick => stop,
        Stop::Exit(_) | Stop::Page { .. } => Stop::Page { addr: regs.rip, pkey: false },
    }
}

/// A system call stop: `syscall`, or another gate that this kernel does not have.
fn gate(pid: pid_t, regs: &mut UserRegs) -> Stop {
    // `syscall` leaves the next rip in rcx, but not under FRED, where only the host knows.
    let native = regs.cs == USER_CS && (regs.rcx == regs.rip || sys::is_native_syscall(pid).unwrap_or(false));
    regs.rax = regs.orig_rax;
    if native {
        regs.rcx = regs.rip;
        regs.r11 = (regs.rflags & USER_RFLAGS) | INITIAL_RFLAGS;
        return Stop::Exit(Exit::Syscall);
    }
    // int 0x80 and sysenter are two bytes long.
    regs.rip = regs.rip.wrapping_sub(2);
    regs.orig_rax = u64::MAX;
    Stop::Exit(PROTECTION)
}

fn by_signal(pid: pid_t, format: &FpuFormat, signal: c_int, regs: &mut UserRegs) -> Stop {
    regs.orig_rax = u64::MAX;
    if signal == KICK {
        return Stop::Kick;
    }
    let Ok(info) = sys::siginfo(pid) else { return Stop::Kick };
    if info.code <= 0 {
        // Sent by a process of the host's: nothing the guest did.
        return Stop::Kick;
    }
    match signal {
        libc::SIGSEGV if info.code == SI_KERNEL => Stop::Exit(PROTECTION),
        libc::SIGSEGV => Stop::Page { addr: info.addr, pkey: info.code == SEGV_PKUERR },
        libc::SIGBUS => Stop::Exit(bus(info)),
        libc::SIGTRAP => Stop::Exit(exception(if info.code == SI_KERNEL { 3 } else { 1 }, Some(info.code))),
        libc::SIGILL => Stop::Exit(exception(6, Some(info.code))),
        libc::SIGFPE => {
            let vector = match info.code {
                FPE_INTDIV => 0,
                _ if fpu::x87_error_pending(format, pid) => 16,
                _ => 19,
            };
            Stop::Exit(exception(vector, Some(info.code)))
        }
        libc::SIGSYS => vsyscall(info, regs),
        _ => Stop::Kick,
    }
}

fn bus(info: SigInfo) -> Exit {
    match info.code {
        // A stack segment fault: a non-canonical address used through rsp or rbp.
        SI_KERNEL => exception(12, None),
        BUS_ADRALN => exception(17, Some(info.code)),
        _ => Exit::BusError { addr: info.addr },
    }
}

/// The host kernel began to emulate a call through the vsyscall page, was stopped by the stub's filter, and returned
/// from it. For the guest it is a jump to a page that is not there.
fn vsyscall(info: SigInfo, regs: &mut UserRegs) -> Stop {
    let entry = match regs.rax {
        96 => VSYSCALL,
        201 => VSYSCALL + 0x400,
        _ => VSYSCALL + 0x800,
    };
    if info.addr & !0xfff == VSYSCALL || regs.rsp >= 8 {
        regs.rip = entry;
        regs.rsp = regs.rsp.wrapping_sub(8);
    }
    Stop::Page { addr: entry, pkey: false }
}
