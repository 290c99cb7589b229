//! From rules to a filter in the kernel.
//!
//! A filter has one action for what it matches, so there are two or more: one per errno that some calls fail with,
//! and the allow-list. The kernel runs all and takes the strictest answer; a call that every filter allows whatever
//! its arguments costs nothing (its seccomp bitmap).

use std::collections::BTreeMap;

use platform::{ArgRule, SyscallRule};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::rules::{ALLOWED, FAILING};
use crate::failure::{Failure, Result};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles the filters and puts them up.
pub fn install(platform: &[SyscallRule], explain: bool) -> Result<()> {
    if explain {
        hostsys::sigsys::report_refused_calls().map_err(|e| Failure::host("preparing the filter", e))?;
    }
    let refused = if explain { SeccompAction::Trap } else { SeccompAction::KillProcess };
    for program in programs(platform, refused).map_err(failed)? {
        seccompiler::apply_filter_all_threads(&program).map_err(failed)?;
    }
    Ok(())
}

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::runtime(format!("putting the system call filter up: {e}; the host kernel needs CONFIG_SECCOMP_FILTER"))
}

fn programs(
    platform: &[SyscallRule],
    refused: SeccompAction,
) -> std::result::Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut errnos: BTreeMap<i32, Rules> = BTreeMap::new();
    for &(nr, errno) in FAILING {
        errnos.entry(errno).or_default().insert(nr, Vec::new());
    }
    let mut programs = Vec::with_capacity(errnos.len() + 1);
    for (errno, rules) in errnos {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        programs.push(SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64)?.try_into()?);
    }
    let allowed = allow_list(platform)?;
    programs.push(SeccompFilter::new(allowed, refused, SeccompAction::Allow, TargetArch::x86_64)?.try_into()?);
    Ok(programs)
}

/// The base list and the platform's, merged: a call that one of them allows whole is allowed whole.
fn allow_list(platform: &[SyscallRule]) -> std::result::Result<Rules, seccompiler::BackendError> {
    let base = ALLOWED.iter().map(|rule| (rule.nr, rule.args));
    let all = base.chain(platform.iter().map(|rule| (rule.nr, rule.args.as_slice())));
    let mut forms: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for (nr, args) in all {
        let known = forms.entry(nr).or_insert_with(|| Some(Vec::new()));
        match (args.is_empty(), known.as_mut()) {
            (true, _) => *known = None,
            (false, Some(rules)) => {
                rules.push(SeccompRule::new(args.iter().map(condition).collect::<std::result::Result<_, _>>()?)?)
            }
            (false, None) => {}
        }
    }
    Ok(forms.into_iter().map(|(nr, rules)| (nr, rules.unwrap_or_default())).collect())
}

fn condition(rule: &ArgRule) -> std::result::Result<SeccompCondition, seccompiler::BackendError> {
    // The kernel looks at 32 bits of such arguments (an ioctl number), so the filter must not look at more.
    if rule.mask == 0xffff_ffff {
        return SeccompCondition::new(rule.arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, rule.value);
    }
    SeccompCondition::new(rule.arg, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(rule.mask), rule.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_fit() {
        let platform = [
            SyscallRule::with(libc::SYS_ioctl, &[ArgRule::eq32(1, 0xae80)]),
            SyscallRule::any(libc::SYS_wait4),
            SyscallRule::any(libc::SYS_fcntl),
        ];
        let programs = programs(&platform, SeccompAction::KillProcess).unwrap();
        assert_eq!(programs.len(), 3);
        assert!(programs.iter().all(|p| p.len() < 4096), "BPF_MAXINSNS");
        assert!(allow_list(&platform).unwrap()[&libc::SYS_fcntl].is_empty(), "allowed whole");
    }

    #[test]
    fn nothing_dangerous_is_in_the_base() {
        let forbidden = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_kexec_load,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_pidfd_getfd,
            libc::SYS_process_vm_writev,
            libc::SYS_memfd_create,
            libc::SYS_perf_event_open,
            libc::SYS_pkey_mprotect,
        ];
        let allowed = allow_list(&[]).unwrap();
        for nr in forbidden {
            assert!(!allowed.contains_key(&nr), "system call {nr}");
        }
        for (nr, _) in FAILING {
            assert!(allowed.contains_key(nr), "the allow-list would kill before {nr} can fail");
        }
        for nr in
            [libc::SYS_clone, libc::SYS_ioctl, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_prctl, libc::SYS_tgkill]
        {
            assert!(!allowed[&nr].is_empty(), "system call {nr} must look at its arguments");
        }
    }
}
