//! The seccomp filter of every stub.
//!
//! Under SYSEMU no system call of guest code is ever executed; the filter is the second wall, for the case that a
//! stub runs guest code unwatched. It allows the calls that are injected, only from the stub's code page, and only on
//! guest addresses. All else is SIGSYS: fatal to an untraced stub, and told to the tracer of a traced one (which is
//! also how a call through the vsyscall page, that the host kernel would serve itself, is noticed).

use crate::layout::{self, Layout};

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct sock_fprog`, with the pointer as a number.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SockFprog {
    /// Instructions.
    pub len: u16,
    /// Address of the first.
    pub filter: u64,
}

const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

const NR: u32 = 0;
const ARCH: u32 = 4;
const IP: u32 = 8;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

fn op(code: u16, k: u32) -> SockFilter {
    SockFilter { code, jt: 0, jf: 0, k }
}

/// A block that matches one form of a call: any failed condition leaves the block.
struct Block {
    tests: Vec<SockFilter>,
}

impl Block {
    fn call(nr: i64) -> Self {
        Block { tests: vec![op(LD_W_ABS, NR), op(JEQ, nr as u32)] }
    }

    /// The 32-bit word at `offset` equals `value`.
    fn word(mut self, offset: u32, value: u32) -> Self {
        self.tests.extend([op(LD_W_ABS, offset), op(JEQ, value)]);
        self
    }

    /// The 64-bit argument equals `value`.
    fn equals(self, n: u32, value: u64) -> Self {
        self.word(arg(n), value as u32).word(arg(n) + 4, (value >> 32) as u32)
    }

    /// The 64-bit argument lies below `USER_END` (a multiple of 4 GiB), or for a length is at most that.
    fn guest(mut self, n: u32) -> Self {
        const { assert!(platform::USER_END.is_multiple_of(1 << 32)) };
        // JGE is inverted when the jumps are filled in.
        self.tests.extend([op(LD_W_ABS, arg(n) + 4), op(JGE, (platform::USER_END >> 32) as u32)]);
        self
    }

    /// The instructions, ending in ALLOW; a failed test jumps behind the block.
    fn finish(self) -> Vec<SockFilter> {
        let len = self.tests.len() + 1;
        let mut out = Vec::with_capacity(len);
        for (i, mut test) in self.tests.into_iter().enumerate() {
            let leave = (len - i - 1) as u8;
            match test.code {
                JEQ => test.jf = leave,
                JGE => test.jt = leave,
                _ => {}
            }
            out.push(test);
        }
        out.push(op(RET, libc::SECCOMP_RET_ALLOW));
        out
    }
}

/// The whole program.
pub fn program(layout: Layout) -> Vec<SockFilter> {
    let trap = op(RET, libc::SECCOMP_RET_TRAP);
    let mut out = Vec::new();
    // The last load or mask of `loads` must give `value`.
    let mut require = |loads: &[SockFilter], value: u32| {
        out.extend_from_slice(loads);
        out.extend([SockFilter { code: JEQ, jt: 1, jf: 0, k: value }, trap]);
    };
    require(&[op(LD_W_ABS, ARCH)], AUDIT_ARCH_X86_64);
    require(&[op(LD_W_ABS, IP + 4)], (layout.base >> 32) as u32);
    require(&[op(LD_W_ABS, IP), op(AND, !0xfff)], layout.base as u32);
    let blocks = [
        Block::call(libc::SYS_mmap).guest(0).guest(1),
        Block::call(libc::SYS_mmap)
            .equals(0, layout.commands())
            .equals(1, layout::COMMANDS_LEN)
            .equals(2, libc::PROT_READ as u64)
            .word(arg(4), layout::FD_COMMANDS as u32),
        Block::call(libc::SYS_munmap).guest(0).guest(1),
        Block::call(libc::SYS_munmap).equals(0, 0).equals(1, platform::USER_END),
        Block::call(libc::SYS_pkey_mprotect).guest(0).guest(1),
        Block::call(libc::SYS_clone).equals(0, layout::CLONE_FLAGS),
        Block::call(libc::SYS_recvmsg).word(arg(0), layout::FD_SOCKET as u32).equals(1, layout.scratch()),
        Block::call(libc::SYS_close),
        Block::call(libc::SYS_read).word(arg(0), layout::FD_LIFELINE as u32).equals(1, 0),
        Block::call(libc::SYS_exit_group),
    ];
    blocks.into_iter().for_each(|b| out.extend(b.finish()));
    out.push(trap);
    out
}
