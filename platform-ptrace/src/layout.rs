//! What a stub's address space holds besides guest memory, and the code that runs there.
//!
//! ```text
//! base            code page, read and execute: the routines below and the system call filter
//! base + 0x10000  command buffer of the CPU that drives the stub, read-only, 64 KiB
//! base + 0x20000  scratch page, only in the master stub
//! ```
//! `base` lies at or above `USER_END`, where no guest mapping can ever be asked for.

use std::arch::global_asm;
use std::io;

use crate::filter::{self, SockFilter, SockFprog};
use crate::sys;

/// Offset of the command buffer.
pub const COMMANDS: u64 = 0x1_0000;
/// Bytes of a command buffer.
pub const COMMANDS_LEN: u64 = 0x1_0000;
/// Offset of the scratch page.
pub const SCRATCH: u64 = 0x2_0000;
/// Bytes from base to the end of the scratch page.
pub const LEN: u64 = 0x2_1000;
/// End of what x86-64 Linux lets a process map (`TASK_SIZE_MAX`), four-level tables.
pub const TASK_END: u64 = 0x7fff_ffff_f000;
/// Words of one command: number and six arguments.
pub const COMMAND_WORDS: usize = 7;
/// Most commands in the buffer.
pub const MAX_COMMANDS: usize = COMMANDS_LEN as usize / (COMMAND_WORDS * 8);

/// Descriptors in the table that all stubs share: where descriptors arrive, ...
pub const FD_SOCKET: i32 = 0;
/// ... a pipe that ends when the sandbox process does, ...
pub const FD_LIFELINE: i32 = 1;
/// ... and the file of the command buffers, sealed against new writable mappings.
pub const FD_COMMANDS: i32 = 2;
/// The first descriptor of a frame file.
pub const FD_FIRST_FILE: i32 = 3;

/// `clone` flags for new stubs: one descriptor table, children of the sandbox process itself, no exit signal.
pub const CLONE_FLAGS: u64 = (libc::CLONE_PARENT | libc::CLONE_FILES | libc::CLONE_FS) as u64;

// Position-independent, without a stack. `int3` hands over to the tracer, with the last result in rax.
global_asm!(
    ".pushsection .text.nv_stub,\"ax\",@progbits",
    ".globl nv_stub_begin, nv_stub_end, nv_stub_setup, nv_stub_one, nv_stub_batch, nv_stub_clone, nv_stub_park",
    "nv_stub_begin:",
    // r12 = end of the low part, r13 = start and r14 = length of the high part, r15 = the filter program.
    "nv_stub_setup:",
    "xor edi, edi",
    "mov rsi, r12",
    "mov eax, {munmap}",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "mov rdi, r13",
    "mov rsi, r14",
    "mov eax, {munmap}",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "mov edi, {filter}",
    "xor esi, esi",
    "mov rdx, r15",
    "mov eax, {seccomp}",
    "syscall",
    "2: int3",
    // One system call from the registers.
    "nv_stub_one:",
    "syscall",
    "int3",
    // All commands from rbx up to rbp; stops at the first error.
    "nv_stub_batch:",
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "syscall",
    "cmp rax, -4095",
    "jae 3f",
    "add rbx, 56",
    "cmp rbx, rbp",
    "jb nv_stub_batch",
    "xor eax, eax",
    "3: int3",
    // One more stub at each resumption. The tracer stops the loop inside clone (PTRACE_EVENT_CLONE); the new stub
    // never runs this code, its registers are set first.
    "nv_stub_clone:",
    "mov eax, {clone}",
    "mov edi, {clone_flags}",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test rax, rax",
    "jns nv_stub_clone",
    "int3",
    "jmp nv_stub_clone",
    // Waits, untraced, for the end of the sandbox process: the pipe reads 0 bytes then.
    "nv_stub_park:",
    "xor eax, eax",
    "mov edi, {lifeline}",
    "xor esi, esi",
    "mov edx, 1",
    "syscall",
    "cmp rax, -4",
    "je nv_stub_park",
    "xor edi, edi",
    "mov eax, {exit_group}",
    "syscall",
    "int3",
    "nv_stub_end:",
    ".popsection",
    munmap = const libc::SYS_munmap,
    filter = const libc::SECCOMP_SET_MODE_FILTER,
    seccomp = const libc::SYS_seccomp,
    clone = const libc::SYS_clone,
    clone_flags = const CLONE_FLAGS,
    lifeline = const FD_LIFELINE,
    exit_group = const libc::SYS_exit_group,
);

unsafe extern "C" {
    fn nv_stub_begin();
    fn nv_stub_setup();
    fn nv_stub_one();
    fn nv_stub_batch();
    fn nv_stub_clone();
    fn nv_stub_park();
    fn nv_stub_end();
}

fn offset_of(routine: unsafe extern "C" fn()) -> u64 {
    (routine as *const () as usize - nv_stub_begin as *const () as usize) as u64
}

/// Where things lie in every stub of a platform.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// First address of the stub region.
    pub base: u64,
}

#[allow(missing_docs, reason = "entry points named as in the assembly")]
impl Layout {
    pub fn setup(self) -> u64 {
        self.base + offset_of(nv_stub_setup)
    }
    pub fn one(self) -> u64 {
        self.base + offset_of(nv_stub_one)
    }
    pub fn batch(self) -> u64 {
        self.base + offset_of(nv_stub_batch)
    }
    pub fn clone_loop(self) -> u64 {
        self.base + offset_of(nv_stub_clone)
    }
    pub fn park(self) -> u64 {
        self.base + offset_of(nv_stub_park)
    }
    pub fn commands(self) -> u64 {
        self.base + COMMANDS
    }
    pub fn scratch(self) -> u64 {
        self.base + SCRATCH
    }
    pub fn end(self) -> u64 {
        self.base + LEN
    }
    /// Whether `rip` lies in the code page.
    pub fn is_code(self, rip: u64) -> bool {
        (self.base..self.base + abi::PAGE_SIZE).contains(&rip)
    }
}

/// The stub region as the sandbox process prepares it, to be inherited by the master stub: code page and scratch page.
/// The scratch page is shared memory and stays mapped here, at the same address.
pub struct Region {
    /// Its place.
    pub layout: Layout,
    /// Address of the filter program inside the code page.
    pub filter: u64,
}

impl Region {
    /// Finds room at or above `USER_END` and fills the code page.
    ///
    /// # Errors
    /// What `mmap` says; `AddrNotAvailable` where nothing is free.
    pub fn new() -> io::Result<Self> {
        // The stack and mmap areas of this process lie up there as well, at random: try places until one is free.
        let step = 0x100_0000;
        let base = (0..2048)
            .map(|n| platform::USER_END + 0x1000_0000 + n * step)
            .find(|&base| sys::reserve_at(base, LEN))
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "no room for the stub's own pages"))?;
        let layout = Layout { base };
        let filter = Self::fill(layout)?;
        Ok(Region { layout, filter })
    }

    fn fill(layout: Layout) -> io::Result<u64> {
        let code_len = offset_of(nv_stub_end) as usize;
        let filter = layout.base + (code_len as u64).next_multiple_of(16);
        let program = filter::program(layout);
        let body = filter + size_of::<SockFprog>() as u64;
        let end = body + (program.len() * size_of::<SockFilter>()) as u64;
        if end > layout.base + abi::PAGE_SIZE {
            return Err(io::Error::other("the stub's code does not fit its page"));
        }
        sys::map_fixed(layout.base, abi::PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        sys::map_fixed(layout.scratch(), abi::PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
        let header = SockFprog { len: program.len() as u16, filter: body };
        // SAFETY: the page was just mapped for us, writable, and everything fits by the check above.
        unsafe {
            std::ptr::copy_nonoverlapping(nv_stub_begin as *const u8, layout.base as *mut u8, code_len);
            (filter as *mut SockFprog).write(header);
            std::ptr::copy_nonoverlapping(program.as_ptr(), body as *mut SockFilter, program.len());
        }
        sys::protect(layout.base, abi::PAGE_SIZE, libc::PROT_READ | libc::PROT_EXEC)?;
        Ok(filter)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        sys::unmap(self.layout.base, LEN);
    }
}
