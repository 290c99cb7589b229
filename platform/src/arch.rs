//! The register state of a guest thread, x86-64.

use std::fmt;

/// General registers, in the layout of `struct user_regs_struct` (`arch/x86/include/asm/user_64.h`), so that ptrace
/// can read and write it in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the registers")]
pub struct UserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// Flags that guest code may set: CF PF AF ZF SF TF DF OF NT AC ID. IF is always on, IOPL always 0.
pub const USER_RFLAGS: u64 = 0x0024_4dd5;
/// The flags of a fresh program: IF and the always-one bit.
pub const INITIAL_RFLAGS: u64 = 0x202;
/// The single-step flag.
pub const RFLAGS_TF: u64 = 0x100;
/// Linux's 64-bit user code segment.
pub const USER_CS: u64 = 0x33;
/// Linux's user stack segment.
pub const USER_SS: u64 = 0x2b;

impl UserRegs {
    /// The registers of a fresh program: all zero but segments and flags.
    #[must_use]
    pub fn new() -> Self {
        UserRegs { cs: USER_CS, ss: USER_SS, rflags: INITIAL_RFLAGS, orig_rax: u64::MAX, ..Self::default() }
    }

    /// The six system call arguments, in order.
    #[must_use]
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// Makes registers that came from guest memory (a signal frame, a checkpoint) safe to load: flags limited to what
    /// user code may set, Linux's segments. Addresses stay as they are: a bad one faults in the guest.
    pub fn sanitize(&mut self) {
        self.rflags = (self.rflags & USER_RFLAGS) | INITIAL_RFLAGS;
        self.cs = USER_CS;
        self.ss = USER_SS;
        (self.ds, self.es, self.fs, self.gs) = (0, 0, 0, 0);
    }
}

/// FPU, SSE, AVX, ... state in the standard (not compacted) XSAVE format.
///
/// `Initial` costs nothing: a thread that never used the FPU, or was just exec'd.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum FpuState {
    /// The state after `fninit` with MXCSR = 0x1f80.
    #[default]
    Initial,
    /// An XSAVE image: legacy area, header, components. At least 576 bytes.
    Saved(Box<[u8]>),
}

impl FpuState {
    /// The state as an XSAVE image of `size` bytes (at least 576): initial values where there is no more.
    #[must_use]
    pub fn to_xsave(&self, size: usize) -> Vec<u8> {
        let mut area = match self {
            FpuState::Saved(bytes) => bytes.to_vec(),
            FpuState::Initial => {
                let mut area = vec![0u8; 576];
                area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
                area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
                area
            }
        };
        area.resize(size.max(576), 0);
        area
    }
}

impl fmt::Debug for FpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FpuState::Initial => f.write_str("Initial"),
            FpuState::Saved(b) => write!(f, "Saved({} bytes)", b.len()),
        }
    }
}

/// Everything a platform needs to run a guest thread.
#[derive(Debug, Default)]
pub struct ArchState {
    /// General registers, segments' bases included.
    pub regs: UserRegs,
    /// FPU state; stale while `fpu_cpu` names a CPU.
    pub fpu: FpuState,
    /// Identifies the CPU-private copy of the FPU state that is newer than `fpu`, if any. Only platforms set it; they
    /// compare it with their own token, so that a task that runs again on the same CPU need not reload.
    pub fpu_token: Option<u64>,
}

impl ArchState {
    /// The state of a fresh program.
    #[must_use]
    pub fn new() -> Self {
        ArchState { regs: UserRegs::new(), fpu: FpuState::Initial, fpu_token: None }
    }

    /// Replaces the FPU state (a signal frame's, a fresh program's); a CPU-private copy is void from now on.
    pub fn set_fpu(&mut self, fpu: FpuState) {
        self.fpu = fpu;
        self.fpu_token = None;
    }
}
