//! The system calls that a gofer may make, and the capabilities it keeps.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::failure::{Failure, Result};

/// File access for any user's files, and no more: CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP.
pub const CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 31;

/// Calls whatever their arguments. All that name files do so below a held descriptor: the root is empty.
const ALLOWED: &[i64] = &[
    // The socket, the log.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // Finding and looking.
    libc::SYS_openat2,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_getxattr,
    libc::SYS_listxattr,
    // Making and changing.
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchownat,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_setxattr,
    libc::SYS_removexattr,
    // Threads, which are started with `clone`, below.
    libc::SYS_clone3, // answered ENOSYS, see below
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    // Memory, signals, the end.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// One allowed form: call, argument, mask, value.
const FORMS: &[(i64, u8, u64, u64)] = &[
    (libc::SYS_mmap, 2, libc::PROT_EXEC as u64, 0),
    (libc::SYS_mprotect, 2, libc::PROT_EXEC as u64, 0),
    (libc::SYS_clone, 0, u64::MAX, crate::walls::THREAD),
    (libc::SYS_fcntl, 1, 0xffff_ffff, libc::F_DUPFD_CLOEXEC as u64),
    (libc::SYS_fcntl, 1, 0xffff_ffff, libc::F_GETFD as u64), // debug builds check descriptors before closing them
];

/// Where the host's Unix sockets are served.
const SOCKETS: &[i64] = &[libc::SYS_connect, libc::SYS_bind];

/// Puts the filter up; everything else ends the process.
///
/// # Errors
/// The host has no filters.
pub fn install(sockets: bool) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Failure::runtime(format!("putting the gofer's filter up: {e}"));
    for program in [no_clone3(), program(sockets)] {
        seccompiler::apply_filter(&program.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// `clone3` hides its flags from a filter; libc then uses `clone`.
fn no_clone3() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let failing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, failing, TargetArch::x86_64)?.try_into()
}

fn program(sockets: bool) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|nr| (*nr, Vec::new())).collect();
    let mut forms = FORMS.to_vec();
    if sockets {
        rules.extend(SOCKETS.iter().map(|nr| (*nr, Vec::new())));
        forms.push((libc::SYS_socket, 0, 0xffff_ffff, libc::AF_UNIX as u64));
    }
    for (nr, arg, mask, value) in forms {
        let condition = if mask == 0xffff_ffff {
            SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?
        } else {
            SeccompCondition::new(arg, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)?
        };
        rules.entry(nr).or_default().push(SeccompRule::new(vec![condition])?);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_with_and_without_sockets() {
        assert!(!no_clone3().unwrap().is_empty());
        assert!(program(true).unwrap().len() > program(false).unwrap().len());
    }
}
