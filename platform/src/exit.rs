//! Why guest code stopped.

/// What an access wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A load (or anything, where the hardware does not say).
    pub read: bool,
    /// A store.
    pub write: bool,
    /// An instruction fetch.
    pub exec: bool,
}

impl Access {
    /// A load.
    pub const READ: Access = Access { read: true, write: false, exec: false };
    /// A store.
    pub const WRITE: Access = Access { read: false, write: true, exec: false };
    /// An instruction fetch.
    pub const EXEC: Access = Access { read: false, write: false, exec: true };
}

/// A CPU exception that guest code raised, other than a page fault. `regs.rip` is what Linux would report: the
/// faulting instruction, or the next one for traps (int3, single step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// x86 vector: 0 divide, 1 debug, 3 breakpoint, 4 overflow, 5 bound, 6 invalid opcode, 13 protection, 16 x87, 17 alignment, 19 SIMD.
    pub vector: u8,
    /// Hardware error code, 0 where there is none.
    pub error_code: u32,
    /// The signal code (`si_code`) where the host already told (ptrace); else `None`, and the kernel derives it.
    pub si_code: Option<i32>,
}

/// Why [`crate::Cpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A 64-bit `syscall` instruction. `regs.rip` lies behind it, `rcx`/`r11` are as the hardware leaves them,
    /// `rax` is the number as the guest gave it (x32 bit included) and `orig_rax` equals it.
    /// Every other gate (int 0x80, sysenter, a compat code segment) is an [`Exit::Exception`] with vector 13.
    Syscall,
    /// The page at `addr` is missing or does not allow `access`.
    Fault {
        /// The guest address (cr2).
        addr: u64,
        /// What was tried.
        access: Access,
        /// Whether a protection key forbade it: SEGV_PKUERR, which mapping again cannot cure.
        pkey: bool,
    },
    /// The host could not produce the page behind `addr` (a file that shrank): SIGBUS for the guest.
    BusError {
        /// The guest address.
        addr: u64,
    },
    /// A CPU exception.
    Exception(Exception),
    /// A kick, or a host event that needs nothing from the kernel: run again after looking around.
    Interrupted,
    /// The platform cannot run this guest any more (a stub was killed, KVM_RUN failed). The address space is lost;
    /// the kernel ends the sandbox with this as its clear cause.
    Broken {
        /// What happened, for the log.
        reason: &'static str,
        /// The host's errno, 0 where there is none.
        errno: i32,
    },
}
