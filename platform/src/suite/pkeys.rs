//! Protection keys, where the CPU has them.

use super::asm::{Asm, Reg};
use super::lab::{DATA, Lab, RW, range};
use crate::{Exit, MapOp};

/// A load that PKRU forbids is told as such; the same load with the key open works.
pub fn forbidden_by_key(lab: &Lab) {
    // OSPKE: the CPU has keys and its kernel uses them.
    if std::arch::x86_64::__cpuid_count(7, 0).ecx & 0x10 == 0 || lab.platform.xcr0() & 0x200 == 0 {
        eprintln!("no protection keys here");
        return;
    }
    // mov eax, PKRU; xor ecx, ecx; xor edx, edx; wrpkru
    let pkru = |value: u32| {
        let code = Asm::new().raw(&[0xb8]).raw(&value.to_le_bytes());
        code.raw(&[0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xef])
    };
    for (value, allowed) in [(0, true), (1 << 6, false)] {
        let code = pkru(value).set(Reg::Rsi, DATA).load(Reg::Rax, Reg::Rsi).syscall();
        let mut guest = lab.guest(&code);
        let op = MapOp::Map { range: range(DATA, 1), frame: lab.page_of(&[5]), prot: RW, pkey: 3 };
        guest.space.apply(&[op]).expect("map");
        match guest.run() {
            Exit::Syscall => assert!(allowed),
            Exit::Fault { addr: DATA, pkey: true, .. } => assert!(!allowed),
            exit => panic!("{exit:?}"),
        }
    }
}
