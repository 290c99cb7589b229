//! Faults and exceptions of guest code, as the signals Linux makes of them (`arch/x86/kernel/traps.c`, `mm/fault.c`).

use platform::arch::RFLAGS_TF;
use platform::{Access, Exception};

use crate::kernel::signal::info::{SigInfo, code};
use crate::kernel::signal::send::force;
use crate::kernel::task::CurrentTask;
use crate::mm::FaultSignal;

/// What a signal frame says of the last fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FaultContext {
    /// Exception vector.
    pub trapno: u64,
    /// Hardware error code.
    pub error_code: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// Page fault vector.
const PAGE_FAULT: u64 = 14;
/// `TRAP_BRKPT`.
const TRAP_BRKPT: i32 = 1;
/// `SEGV_PKUERR`.
const SEGV_PKUERR: i32 = 4;

/// The guest touched what it may not: SIGSEGV or SIGBUS, forced.
pub fn force_fault(cx: &mut CurrentTask<'_>, addr: u64, access: Access, bad: FaultSignal) {
    log::debug!("tid {}: signal {} at {addr:#x} rip {:#x}", cx.task.tid.0, bad.signal, cx.own.arch.regs.rip);
    let present = bad.signal == libc::SIGSEGV && bad.code != 1;
    let pkey = bad.signal == libc::SIGSEGV && bad.code == SEGV_PKUERR;
    // X86_PF_PROT, WRITE, USER, INSTR, PK.
    let error_code =
        u64::from(present) | u64::from(access.write) << 1 | 1 << 2 | u64::from(access.exec) << 4 | u64::from(pkey) << 5;
    cx.own.fault = FaultContext { trapno: PAGE_FAULT, error_code, cr2: addr };
    force(cx, SigInfo::fault(bad.signal, bad.code, addr));
}

/// Signal, code, and whether `si_addr` is the instruction, for an exception vector.
fn classify(vector: u8) -> (i32, i32, bool) {
    match vector {
        0 => (libc::SIGFPE, 1, true),  // FPE_INTDIV
        1 => (libc::SIGTRAP, 2, true), // TRAP_TRACE
        3 => (libc::SIGTRAP, code::SI_KERNEL, false),
        11 | 12 => (libc::SIGBUS, code::SI_KERNEL, false), // segment not present, stack segment
        6 => (libc::SIGILL, 2, true),                      // ILL_ILLOPN
        16 | 19 => (libc::SIGFPE, 0, true),                // fpu__exception_code, below
        17 => (libc::SIGBUS, 1, false),                    // BUS_ADRALN
        // Overflow, bound, protection: no address is known.
        _ => (libc::SIGSEGV, code::SI_KERNEL, false),
    }
}

/// `fpu__exception_code`: the first unmasked exception of the x87 or SSE status.
fn fpu_code(cx: &mut CurrentTask<'_>, vector: u8) -> i32 {
    cx.save_fpu();
    let area = cx.own.arch.fpu.to_xsave(576);
    let raised = if vector == 16 {
        let control = u16::from_le_bytes([area[0], area[1]]);
        let status = u16::from_le_bytes([area[2], area[3]]);
        status & !control
    } else {
        let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
        u16::try_from((mxcsr & 0x3f) & !((mxcsr >> 7) & 0x3f)).unwrap_or(0)
    };
    match raised {
        e if e & 1 != 0 => 7,    // FPE_FLTINV
        e if e & 4 != 0 => 3,    // FPE_FLTDIV
        e if e & 8 != 0 => 4,    // FPE_FLTOVF
        e if e & 0x12 != 0 => 5, // FPE_FLTUND (denormal too)
        e if e & 0x20 != 0 => 6, // FPE_FLTRES
        _ => 0,
    }
}

/// The guest raised a CPU exception: SIGILL, SIGFPE, SIGTRAP, SIGBUS or SIGSEGV, forced.
pub fn force_exception(cx: &mut CurrentTask<'_>, exception: Exception) {
    let rip = cx.own.arch.regs.rip;
    log::debug!("tid {}: exception {exception:?} rip {rip:#x}", cx.task.tid.0);
    let (signo, derived, addressed) = classify(exception.vector);
    let mut si_code = exception.si_code.unwrap_or(derived);
    if matches!(exception.vector, 16 | 19) && exception.si_code.is_none() {
        si_code = fpu_code(cx, exception.vector);
    }
    if exception.vector == 1 && exception.si_code.is_none() && cx.own.arch.regs.rflags & RFLAGS_TF == 0 {
        si_code = TRAP_BRKPT; // icebp
    }
    let trapno = u64::from(exception.vector);
    cx.own.fault = FaultContext { trapno, error_code: u64::from(exception.error_code), ..cx.own.fault };
    force(cx, SigInfo::fault(signo, si_code, if addressed { rip } else { 0 }));
}
