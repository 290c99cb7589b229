//! `linux.seccomp` -> classic BPF for the sandbox's kernel, which runs it before each call of the guest.
//!
//! Calls are found by a binary search over their numbers, so a profile of hundreds of names costs ten comparisons.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Op, LinuxSyscall,
};

use super::refused;
use super::syscall_numbers::number;
use crate::failure::Result;
use crate::sandbox::describe::SeccompConfig;

/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT`: numbers of the x32 ABI, which the sandbox does not have.
const X32_BIT: u32 = 0x4000_0000;
/// `BPF_MAXINSNS`.
const MAX_INSNS: usize = 4096;

/// `BPF_LD|W|ABS`, `BPF_JMP|JA`, `|JEQ|K`, `|JGT|K`, `|JGE|K`, `BPF_ALU|AND|K`, `BPF_RET|K`.
const LD: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

type Insn = (u16, u8, u8, u32);

/// Rules of one call: the first whose conditions all hold decides.
type Rules = Vec<(Vec<LinuxSeccompArg>, u32)>;

/// Compiles a profile.
///
/// # Errors
/// An action, operator or errno that is not supported; a profile that is too long for a filter.
pub fn compile(profile: &LinuxSeccomp) -> Result<SeccompConfig> {
    let default = verdict("linux.seccomp.defaultAction", profile.default_action(), profile.default_errno_ret())?;
    let rules = if covers_us(profile) { collect(profile)? } else { BTreeMap::new() };
    let default_everything = if covers_us(profile) { default } else { action_value(Action::ScmpActAllow, 0) };
    let mut program = vec![load(4), (JEQ, 1, 0, X86_64), ret(action_value(Action::ScmpActKillProcess, 0)), load(0)];
    program.push((JGE, 0, 1, X32_BIT));
    program.push(ret(action_value(Action::ScmpActErrno, libc::ENOSYS.unsigned_abs())));
    let leaves: Vec<(u32, Vec<Insn>)> = rules.iter().map(|(nr, rules)| (*nr, leaf(rules, default))).collect();
    program.extend(search(&leaves, default_everything));
    if program.len() > MAX_INSNS {
        let why = format!("compiles to {} instructions, more than the {MAX_INSNS} of a filter", program.len());
        return Err(refused("linux.seccomp.syscalls", why));
    }
    let log = profile.flags().as_ref().is_some_and(|flags| flags.contains(&Flag::SeccompFilterFlagLog));
    Ok(SeccompConfig { program, log })
}

/// A profile for other architectures alone says nothing about ours.
fn covers_us(profile: &LinuxSeccomp) -> bool {
    profile.architectures().as_ref().is_none_or(|all| {
        all.is_empty() || all.iter().any(|arch| matches!(arch, Arch::ScmpArchX86_64 | Arch::ScmpArchNative))
    })
}

fn action_value(action: Action, data: u32) -> u32 {
    action.as_u32(Some(data))
}

fn verdict(field: &str, action: Action, errno: Option<u32>) -> Result<u32> {
    let data = errno.unwrap_or(libc::EPERM.unsigned_abs());
    match action {
        Action::ScmpActNotify => {
            Err(refused(field, "SCMP_ACT_NOTIFY is not supported (nobody outside serves guest calls)"))
        }
        Action::ScmpActErrno | Action::ScmpActTrace if data > 4095 => {
            Err(refused(field, format!("errno {data} is not in 0..4095")))
        }
        Action::ScmpActErrno | Action::ScmpActTrace => Ok(action_value(action, data)),
        other => Ok(action_value(other, 0)),
    }
}

fn collect(profile: &LinuxSeccomp) -> Result<BTreeMap<u32, Rules>> {
    let default = (profile.default_action(), profile.default_errno_ret());
    let mut all: BTreeMap<u32, Rules> = BTreeMap::new();
    for (n, call) in profile.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{n}]");
        if (call.action(), call.errno_ret()) == default && call.args().as_ref().is_none_or(Vec::is_empty) {
            continue; // As runc: saying the default again says nothing.
        }
        let action = verdict(&field, call.action(), call.errno_ret())?;
        for conditions in alternatives(call, &field)? {
            // Names that this kernel does not know are skipped, as runc does: profiles are written for many kernels.
            for nr in call.names().iter().filter_map(|name| number(name)) {
                all.entry(nr).or_default().push((conditions.clone(), action));
            }
        }
    }
    // Without conditions is the weakest: libseccomp, too, looks at rules with conditions first.
    for rules in all.values_mut() {
        rules.sort_by_key(|(conditions, _)| conditions.is_empty());
    }
    Ok(all)
}

/// The conditions of an entry: all must hold, but where two speak about one argument, each alone is enough (runc's
/// reading of lists made for old versions of Docker).
fn alternatives(call: &LinuxSyscall, field: &str) -> Result<Vec<Vec<LinuxSeccompArg>>> {
    let args = call.args().clone().unwrap_or_default();
    if let Some(bad) = args.iter().find(|arg| arg.index() > 5) {
        return Err(refused(&format!("{field}.args"), format!("index {} is not in 0..5", bad.index())));
    }
    let twice = args.iter().enumerate().any(|(n, a)| args.iter().skip(n + 1).any(|b| a.index() == b.index()));
    Ok(if twice { args.into_iter().map(|arg| vec![arg]).collect() } else { vec![args] })
}

fn load(offset: u32) -> Insn {
    (LD, 0, 0, offset)
}

fn ret(value: u32) -> Insn {
    (RET, 0, 0, value)
}

/// The code for one call: rules in their order, then the default.
fn leaf(rules: &Rules, default: u32) -> Vec<Insn> {
    let mut code = Vec::new();
    for (conditions, action) in rules {
        let mut block = Vec::new();
        for condition in conditions {
            block.extend(test(condition));
        }
        block.push(ret(*action));
        patch_misses(&mut block);
        code.extend(block);
        if conditions.is_empty() {
            return code;
        }
    }
    code.push(ret(default));
    code
}

/// Marks "this rule does not match": the jump behind the block, set when its length is known.
const MISS: u8 = u8::MAX;

/// Replaces jumps that mean [`MISS`] by the way behind the block.
fn patch_misses(block: &mut [Insn]) {
    let end = block.len();
    for (at, insn) in block.iter_mut().enumerate() {
        // Six conditions of at most seven instructions: always within a byte.
        let way = u8::try_from(end - at - 1).unwrap_or(u8::MAX);
        if insn.1 == MISS {
            insn.1 = way;
        }
        if insn.2 == MISS {
            insn.2 = way;
        }
    }
}

/// One condition on a 64-bit argument, by its halves: falls through where it holds, jumps to [`MISS`] where not.
fn test(arg: &LinuxSeccompArg) -> Vec<Insn> {
    let index = u32::try_from(arg.index()).unwrap_or(0);
    let (low, high) = (16 + 8 * index, 20 + 8 * index);
    let halves = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
    let (vh, vl) = halves(arg.value());
    match arg.op() {
        Op::ScmpCmpEq => vec![load(high), (JEQ, 0, MISS, vh), load(low), (JEQ, 0, MISS, vl)],
        // Another high half is enough: over the rest of the test.
        Op::ScmpCmpNe => vec![load(high), (JEQ, 0, 2, vh), load(low), (JEQ, MISS, 0, vl)],
        Op::ScmpCmpGt => vec![load(high), (JGT, 3, 0, vh), (JEQ, 0, MISS, vh), load(low), (JGT, 0, MISS, vl)],
        Op::ScmpCmpGe => vec![load(high), (JGT, 3, 0, vh), (JEQ, 0, MISS, vh), load(low), (JGE, 0, MISS, vl)],
        Op::ScmpCmpLt => vec![load(high), (JGT, MISS, 0, vh), (JEQ, 0, 2, vh), load(low), (JGE, MISS, 0, vl)],
        Op::ScmpCmpLe => vec![load(high), (JGT, MISS, 0, vh), (JEQ, 0, 2, vh), load(low), (JGT, MISS, 0, vl)],
        Op::ScmpCmpMaskedEq => {
            let (mh, ml) = (vh, vl);
            let (wh, wl) = halves(arg.value_two().unwrap_or(0));
            vec![
                load(high),
                (AND, 0, 0, mh),
                (JEQ, 0, MISS, wh & mh),
                load(low),
                (AND, 0, 0, ml),
                (JEQ, 0, MISS, wl & ml),
            ]
        }
    }
}

/// Binary search over the numbers (in the accumulator), with the leaves' code in it.
fn search(leaves: &[(u32, Vec<Insn>)], default: u32) -> Vec<Insn> {
    match leaves {
        [] => vec![ret(default)],
        // Neighbours with one verdict are a range.
        [(first, code), rest @ ..] if is_range(*first, code, rest) => {
            let last = first.saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX));
            let mut out = vec![(JGE, 0, 2, *first), (JGT, 1, 0, last)];
            out.extend(code.iter().copied().take(1));
            out.push(ret(default));
            out
        }
        [(nr, code)] => {
            let mut out = jump_unless(JEQ, *nr, code.len());
            out.extend(code);
            out.push(ret(default));
            out
        }
        _ => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            let pivot = right.first().map_or(0, |(nr, _)| *nr);
            let (below, above) = (search(left, default), search(right, default));
            // At or above the pivot: over the code for what is below.
            let mut out = match u8::try_from(below.len()) {
                Ok(way) => vec![(JGE, way, 0, pivot)],
                Err(_) => vec![(JGE, 0, 1, pivot), (JA, 0, 0, u32::try_from(below.len()).unwrap_or(u32::MAX))],
            };
            out.extend(below);
            out.extend(above);
            out
        }
    }
}

fn is_range(first: u32, code: &[Insn], rest: &[(u32, Vec<Insn>)]) -> bool {
    let same = |(n, (nr, other)): (u32, &(u32, Vec<Insn>))| *nr == first + n && other == code;
    code.len() == 1 && !rest.is_empty() && (1..).zip(rest).all(same)
}

/// A test that jumps over the next `len` instructions where it fails.
fn jump_unless(code: u16, k: u32, len: usize) -> Vec<Insn> {
    match u8::try_from(len) {
        Ok(way) => vec![(code, 0, way, k)],
        Err(_) => vec![(code, 1, 0, k), (JA, 0, 0, u32::try_from(len).unwrap_or(u32::MAX))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn run(filter: &SeccompConfig, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&nr.to_le_bytes());
        data.extend_from_slice(&X86_64.to_le_bytes());
        data.extend_from_slice(&0u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend_from_slice(&arg.to_le_bytes()));
        let (mut pc, mut a) = (0, 0);
        loop {
            let (code, jt, jf, k) = filter.program[pc];
            pc += 1;
            let jump = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                LD => a = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                AND => a &= k,
                JEQ => pc += jump(a == k),
                JGT => pc += jump(a > k),
                JGE => pc += jump(a >= k),
                JA => pc += k as usize,
                RET => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn filter(json: serde_json::Value) -> SeccompConfig {
        compile(&serde_json::from_value(json).unwrap()).unwrap()
    }

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;

    #[test]
    fn names_are_found_and_others_get_the_default() {
        let names = ["read", "write", "open", "close", "getpid", "mmap", "no_such_call", "openat", "exit_group"];
        let filter = filter(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        }));
        for nr in 0..460 {
            let listed = names.iter().any(|name| number(name) == Some(nr));
            let expected = if listed { ALLOW } else { 0x0005_0000 | 38 };
            assert_eq!(run(&filter, nr, [0; 6]), expected, "call {nr}");
        }
        assert_eq!(run(&filter, X32_BIT | 1, [0; 6]), 0x0005_0000 | 38);
    }

    #[test]
    fn every_operator_compares_all_bits() {
        let holds = |op: &str, value: u64, two: u64, arg: u64| {
            let condition = serde_json::json!({ "index": 1, "value": value, "valueTwo": two, "op": op });
            let filter = filter(serde_json::json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{ "names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [condition] }],
            }));
            match run(&filter, 1, [7, arg, 7, 7, 7, 7]) {
                ALLOW => true,
                EPERM => false,
                other => panic!("{other:#x}"),
            }
        };
        let values = [0, 1, 5, 1 << 32, (1 << 32) + 1, (1 << 32) - 1, 5 << 32, u64::MAX, u64::MAX - 1];
        for value in values {
            for arg in values {
                assert_eq!(holds("SCMP_CMP_EQ", value, 0, arg), arg == value);
                assert_eq!(holds("SCMP_CMP_NE", value, 0, arg), arg != value);
                assert_eq!(holds("SCMP_CMP_LT", value, 0, arg), arg < value, "{arg:#x} < {value:#x}");
                assert_eq!(holds("SCMP_CMP_LE", value, 0, arg), arg <= value);
                assert_eq!(holds("SCMP_CMP_GT", value, 0, arg), arg > value);
                assert_eq!(holds("SCMP_CMP_GE", value, 0, arg), arg >= value);
                let masked = arg & value == (value & 5);
                assert_eq!(holds("SCMP_CMP_MASKED_EQ", value, 5, arg), masked, "{arg:#x} & {value:#x}");
            }
        }
    }

    #[test]
    fn two_conditions_on_one_argument_are_alternatives() {
        let filter = filter(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" },
                ] },
                { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [
                    { "index": 0, "value": 16, "op": "SCMP_CMP_EQ" }, { "index": 2, "value": 9, "op": "SCMP_CMP_EQ" },
                ] },
                { "names": ["socket"], "action": "SCMP_ACT_ALLOW" },
            ],
        }));
        let personality = number("personality").unwrap();
        assert_eq!(run(&filter, personality, [8, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&filter, personality, [9, 0, 0, 0, 0, 0]), EPERM);
        let socket = number("socket").unwrap();
        assert_eq!(run(&filter, socket, [16, 0, 9, 0, 0, 0]), 0x0005_0000 | 22);
        assert_eq!(run(&filter, socket, [16, 0, 8, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        let refuse = |json| compile(&serde_json::from_value(json).unwrap()).unwrap_err().message;
        let notify = refuse(serde_json::json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
        assert!(notify.contains("linux.seccomp.defaultAction"), "{notify}");
        let index = refuse(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ERRNO",
                           "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] }],
        }));
        assert!(index.contains("linux.seccomp.syscalls[0].args"), "{index}");
    }

    #[test]
    fn a_large_profile_fits() {
        let all: Vec<&str> = sentry::syscalls::SyscallTable::new().iter().map(|call| call.name).collect();
        let odd: Vec<&str> = all.iter().copied().step_by(2).collect();
        let filter = filter(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": odd, "action": "SCMP_ACT_ALLOW" }],
        }));
        for (n, name) in all.iter().enumerate() {
            let expected = if n % 2 == 0 { ALLOW } else { EPERM };
            assert_eq!(run(&filter, number(name).unwrap(), [0; 6]), expected, "{name}");
        }
    }
}
