//! A few x86-64 instructions, assembled by hand: what the suite's guest programs are made of.

/// A general register, by its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the registers")]
pub enum Reg {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Reg {
    fn low(self) -> u8 {
        self as u8 & 7
    }
    fn high(self) -> u8 {
        self as u8 >> 3
    }
}

/// Code under construction.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    bytes: Vec<u8>,
}

impl Asm {
    /// No code.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offset of the next instruction.
    #[must_use]
    pub fn here(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Any bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// `mov reg, imm64`.
    #[must_use]
    pub fn set(self, reg: Reg, value: u64) -> Self {
        self.raw(&[0x48 | reg.high(), 0xb8 | reg.low()]).raw(&value.to_le_bytes())
    }

    /// `mov dst, [base]`; `base` is not rsp, rbp, r12 or r13 (they need other encodings).
    #[must_use]
    pub fn load(self, dst: Reg, base: Reg) -> Self {
        self.raw(&[0x48 | (dst.high() << 2) | base.high(), 0x8b, (dst.low() << 3) | base.low()])
    }

    /// `mov [base], src`; `base` as for [`Asm::load`].
    #[must_use]
    pub fn store(self, base: Reg, src: Reg) -> Self {
        self.raw(&[0x48 | (src.high() << 2) | base.high(), 0x89, (src.low() << 3) | base.low()])
    }

    /// `inc reg`.
    #[must_use]
    pub fn inc(self, reg: Reg) -> Self {
        self.raw(&[0x48 | reg.high(), 0xff, 0xc0 | reg.low()])
    }

    /// `jmp reg`.
    #[must_use]
    pub fn jump(self, reg: Reg) -> Self {
        self.raw(&[0x40 | reg.high(), 0xff, 0xe0 | reg.low()])
    }

    /// `jmp` back to offset `target`, at most 120 bytes away.
    #[must_use]
    pub fn back_to(self, target: u64) -> Self {
        let distance = self.here() + 2 - target;
        self.raw(&[0xeb, (distance as u8).wrapping_neg()])
    }

    /// `syscall`.
    #[must_use]
    pub fn syscall(self) -> Self {
        self.raw(&[0x0f, 0x05])
    }

    /// An endless loop that counts in rbx.
    #[must_use]
    pub fn spin(self) -> Self {
        let top = self.here();
        self.inc(Reg::Rbx).back_to(top)
    }
}
