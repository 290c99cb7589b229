//! The system call table and dispatch.
//!
//! One line a call, in the family's own file, names number, typed arguments and support level; from it come dispatch,
//! the strace log and `docs/syscalls.md`. Handlers parse at the edge, are short, and call into a subsystem.

pub mod args;
pub mod creds;
pub mod deadline;
pub mod epoll;
pub mod event;
pub mod exec;
pub mod fd;
pub mod fs_at;
pub mod fs_attr;
pub mod fs_dir;
pub mod fs_lock;
pub mod fs_open;
pub mod fs_stat;
pub mod fs_xattr;
pub mod futex;
pub mod inotify;
pub mod membarrier;
pub mod memfd;
pub mod mempolicy;
pub mod misc;
pub mod mm;
pub mod mount;
pub mod mq;
pub mod poll;
pub mod prctl;
pub mod process;
pub mod ptrace;
pub mod read_write;
pub mod refused;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod session;
pub mod signal;
pub mod socket;
pub mod splice;
pub mod sysv;
pub mod time;
pub mod trace;
pub mod wait;

use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;

use crate::kernel::op::SyscallResult;
use crate::kernel::task::CurrentTask;
use crate::kernel::trip;

pub use args::FromArg;

/// How much of a call is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Everything a program can observe.
    Full,
    /// Some, as the note says.
    Partial(&'static str),
}

/// One system call.
pub struct Syscall {
    /// x86-64 number.
    pub nr: u16,
    /// Name.
    pub name: &'static str,
    /// How each argument is shown: see [`args::Show`].
    pub show: &'static [args::Show],
    /// Names of the arguments.
    pub arg_names: &'static [&'static str],
    /// Support level.
    pub support: Support,
    /// Decodes and serves.
    pub handler: fn(&mut CurrentTask<'_>, &[u64; 6]) -> SyscallResult,
}

/// Declares a family's part of the table: `NR name(arg: Type, ...) [Partial("note")];` for each handler function in scope.
#[macro_export]
macro_rules! syscall_table {
    ($($nr:literal $name:ident($($arg:ident: $ty:ty),* $(,)?) $(Partial($note:literal))?;)*) => {
        /// This family's system calls.
        pub const TABLE: &[$crate::syscalls::Syscall] = &[$(
            $crate::syscalls::Syscall {
                nr: $nr,
                name: stringify!($name),
                show: &[$(<$ty as $crate::syscalls::FromArg>::SHOW),*],
                arg_names: &[$(stringify!($arg)),*],
                support: $crate::syscall_table!(@support $($note)?),
                handler: |cx, raw| {
                    let mut _raw = raw.iter().copied();
                    $name(cx, $(<$ty as $crate::syscalls::FromArg>::from_arg(
                        { let $arg = _raw.next().unwrap_or(0); $arg })),*)
                },
            },
        )*];
    };
    (@support) => { $crate::syscalls::Support::Full };
    (@support $note:literal) => { $crate::syscalls::Support::Partial($note) };
}

/// All families.
const FAMILIES: &[&[Syscall]] = &[
    creds::TABLE,
    epoll::TABLE,
    event::TABLE,
    exec::TABLE,
    fd::TABLE,
    fs_attr::TABLE,
    fs_dir::TABLE,
    fs_lock::TABLE,
    fs_open::TABLE,
    fs_stat::TABLE,
    fs_xattr::TABLE,
    futex::TABLE,
    inotify::TABLE,
    membarrier::TABLE,
    memfd::TABLE,
    mempolicy::TABLE,
    misc::TABLE,
    mm::TABLE,
    mq::TABLE,
    mount::TABLE,
    poll::TABLE,
    prctl::TABLE,
    process::TABLE,
    ptrace::TABLE,
    read_write::TABLE,
    refused::TABLE,
    rlimit::TABLE,
    seccomp::TABLE,
    sched::TABLE,
    session::TABLE,
    signal::TABLE,
    socket::TABLE,
    time::TABLE,
    splice::TABLE,
    sysv::TABLE,
    wait::TABLE,
    // Keep one entry a line.
];

/// Numbers at or above this are not looked up.
pub const MAX_NR: usize = 512;

/// The table by number, with counters of what was called.
pub struct SyscallTable {
    calls: Vec<Option<&'static Syscall>>,
    unknown: Vec<AtomicU64>,
}

impl Default for SyscallTable {
    fn default() -> Self {
        Self::new()
    }
}

impl SyscallTable {
    /// The table of all families.
    #[must_use]
    pub fn new() -> Self {
        let mut calls = vec![None; MAX_NR];
        for call in FAMILIES.iter().copied().flatten() {
            calls[usize::from(call.nr)] = Some(call);
        }
        SyscallTable { calls, unknown: (0..=MAX_NR).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The call with this number.
    #[must_use]
    pub fn get(&self, nr: u64) -> Option<&'static Syscall> {
        usize::try_from(nr).ok().and_then(|nr| self.calls.get(nr).copied().flatten())
    }

    /// All calls, by number.
    pub fn iter(&self) -> impl Iterator<Item = &'static Syscall> + '_ {
        self.calls.iter().filter_map(|c| *c)
    }

    fn note_unknown(&self, nr: u64) {
        let slot = usize::try_from(nr).map_or(MAX_NR, |n| n.min(MAX_NR));
        if self.unknown[slot].fetch_add(1, Ordering::Relaxed) == 0 {
            log::info!("system call {nr} is not implemented: ENOSYS (logged once)");
        }
    }

    /// How often each unknown number was called; the last entry counts all numbers from [`MAX_NR`] on.
    #[must_use]
    pub fn unknown_counts(&self) -> Vec<(usize, u64)> {
        let counts = self.unknown.iter().map(|c| c.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, n)| *n > 0).collect()
    }
}

/// Serves system call `nr`.
///
/// # Errors
/// What the handler answers; `ENOSYS` for numbers without one.
pub fn dispatch(cx: &mut CurrentTask<'_>, nr: u64, args: [u64; 6]) -> SyscallResult {
    let Some(call) = cx.kernel().syscalls.get(nr) else {
        cx.kernel().syscalls.note_unknown(nr);
        trace::enter_unknown(cx, nr, &args);
        return Err(Errno::ENOSYS);
    };
    trace::enter(cx, call, &args);
    // Only where files lie outside of the sandbox can a call need answers from there.
    if cx.kernel().vfs.has_remote() { trip::serve(cx, call, args) } else { (call.handler)(cx, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::FAMILIES;

    #[test]
    fn no_call_is_served_twice() {
        let mut seen = HashSet::new();
        for call in FAMILIES.iter().copied().flatten() {
            assert!(seen.insert(call.nr), "{} {} stands in two families", call.nr, call.name);
        }
    }
}
