//! The platform runs under a filter made of its own rules and what any Rust program needs: spaces, CPUs and files made
//! after the filter was loaded included.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use platform::suite::asm::{Asm, Reg};
use platform::suite::lab::{DATA, Lab, RW, map, run, start_state};
use platform::{Exit, Platform, SyscallRule};
use platform_ptrace::PtracePlatform;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

const CHILD: &str = "PLATFORM_PTRACE_RULES_CHILD";

/// What the standard library, the allocator and this test need.
const BASE: [i64; 30] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_getrandom,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
];

fn factory() -> std::io::Result<Arc<dyn Platform>> {
    Ok(Arc::new(PtracePlatform::new()?))
}

fn condition(rule: &platform::ArgRule) -> SeccompCondition {
    let wide = rule.mask > u64::from(u32::MAX);
    let len = if wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    SeccompCondition::new(rule.arg, len, SeccompCmpOp::MaskedEq(rule.mask), rule.value).unwrap()
}

fn filter(rules: &[SyscallRule]) -> BpfProgram {
    let mut all: BTreeMap<i64, Vec<SeccompRule>> = BASE.iter().map(|&nr| (nr, Vec::new())).collect();
    for rule in rules {
        let entry = all.entry(rule.nr).or_default();
        if !rule.args.is_empty() {
            entry.push(SeccompRule::new(rule.args.iter().map(condition).collect()).unwrap());
        }
    }
    let (refuse, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    SeccompFilter::new(all, refuse, allow, TargetArch::x86_64).unwrap().try_into().unwrap()
}

fn confined() {
    let lab = Lab::new(factory);
    seccompiler::apply_filter_all_threads(&filter(&lab.platform.seccomp_rules())).unwrap();
    let code = Asm::new().set(Reg::Rdi, DATA).store(Reg::Rdi, Reg::Rax).syscall();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut cpu = lab.cpu();
                for n in 0..20 {
                    let space = lab.program(&code);
                    // A memory of its own is a file that the stubs have not seen yet.
                    let other = memory::MemoryFile::new(lab.platform.memory_backing(), 1 << 20).unwrap();
                    let mut state = start_state();
                    assert!(matches!(run(&mut *cpu, &space, &mut state), Exit::Fault { .. }));
                    map(&*space, DATA, &other.frame(other.allocate(4096, 4096).unwrap()), 1, RW);
                    assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
                    cpu.save_fpu(&space, &mut state);
                    cpu.kicker().kick();
                    assert_eq!(cpu.run(&space, &mut state), Exit::Interrupted);
                    if n % 2 == 0 {
                        cpu.forget(&space);
                    }
                }
            });
        }
    });
    println!("confined: all well");
}

#[test]
fn its_rules_are_enough() {
    if std::env::var_os(CHILD).is_some() {
        return confined();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "its_rules_are_enough"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("all well"), "{:?}\n{text}", child);
}
