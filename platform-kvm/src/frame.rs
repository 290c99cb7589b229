//! What the processor pushes at an exception, and how its parts become exits.

use platform::{Access, Exception, Exit};

/// An exception frame as it lies on the CPU's ring-0 stack.
#[derive(Clone, Copy, Debug)]
pub struct ExceptionFrame {
    /// Error code, 0 where the vector has none.
    pub error_code: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment: tells the ring that the exception came from.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
}

/// Whether the processor pushes an error code for `vector`.
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// The exit that exception `vector` means for the guest.
pub fn exit_of(vector: u8, error_code: u64, cr2: u64) -> Exit {
    if vector != 14 {
        let error_code = error_code as u32;
        return Exit::Exception(Exception { vector, error_code, si_code: None });
    }
    let bit = |n: u32| error_code >> n & 1 != 0;
    let access = if bit(4) {
        Access::EXEC
    } else if bit(1) {
        Access::WRITE
    } else {
        Access::READ
    };
    Exit::Fault { addr: cr2, access, pkey: bit(5) }
}
