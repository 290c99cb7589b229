//! Typed system call arguments: how a register becomes a value, and how it is shown in the strace log.

use abi::UserAddr;

use crate::vfs::FdNum;

/// How an argument is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Signed decimal.
    Int,
    /// Unsigned decimal.
    Uint,
    /// Hexadecimal (flags, addresses).
    Hex,
    /// A descriptor.
    Fd,
    /// A NUL-terminated string in guest memory.
    Str,
}

/// A type that an argument register decodes into. Decoding never fails: the kernel truncates as C does.
pub trait FromArg: Sized {
    /// How it is shown.
    const SHOW: Show;
    /// Decodes.
    fn from_arg(raw: u64) -> Self;
}

macro_rules! from_arg {
    ($($ty:ty, $show:ident;)*) => { $(impl FromArg for $ty {
        const SHOW: Show = Show::$show;
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "registers are truncated as C does")]
        fn from_arg(raw: u64) -> Self { raw as $ty }
    })* };
}

from_arg! {
    i32, Int;
    i64, Int;
    u32, Hex;
    u64, Hex;
    usize, Uint;
}

impl FromArg for FdNum {
    const SHOW: Show = Show::Fd;
    #[allow(clippy::cast_possible_truncation, reason = "descriptors are int")]
    fn from_arg(raw: u64) -> Self {
        FdNum(raw as i32)
    }
}

impl FromArg for UserAddr {
    const SHOW: Show = Show::Hex;
    fn from_arg(raw: u64) -> Self {
        UserAddr(raw)
    }
}

/// The address of a NUL-terminated string, usually a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserStr(pub UserAddr);

impl FromArg for UserStr {
    const SHOW: Show = Show::Str;
    fn from_arg(raw: u64) -> Self {
        UserStr(UserAddr(raw))
    }
}
