//! System calls that a sandbox process may make, as data: the runtime assembles the filter from all parts' needs.

/// A condition on one argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgRule {
    /// Argument index, 0..6.
    pub arg: u8,
    /// Bits compared.
    pub mask: u64,
    /// Value that the masked argument must have.
    pub value: u64,
}

impl ArgRule {
    /// The argument equals `value`, as a 32-bit quantity.
    #[must_use]
    pub const fn eq32(arg: u8, value: u64) -> Self {
        ArgRule { arg, mask: 0xffff_ffff, value }
    }

    /// The argument, masked, equals `value`.
    #[must_use]
    pub const fn masked(arg: u8, mask: u64, value: u64) -> Self {
        ArgRule { arg, mask, value }
    }
}

/// One allowed form of a system call: all conditions hold. Several rules for one number are alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallRule {
    /// x86-64 number (`libc::SYS_*`).
    pub nr: i64,
    /// Conditions, all of which must hold; none allows every form.
    pub args: Vec<ArgRule>,
}

impl SyscallRule {
    /// The call with any arguments.
    #[must_use]
    pub fn any(nr: i64) -> Self {
        SyscallRule { nr, args: Vec::new() }
    }

    /// The call with these conditions.
    #[must_use]
    pub fn with(nr: i64, args: &[ArgRule]) -> Self {
        SyscallRule { nr, args: args.to_vec() }
    }
}
