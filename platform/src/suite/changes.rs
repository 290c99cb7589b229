//! Changes of an address space are seen at once.

use super::asm::{Asm, Reg};
use super::lab::{CODE, DATA, Lab, RW, map, range, start_state, unmap, word};
use crate::{Access, Exit, Prot};

/// Reads the word at [`DATA`] again and again, one system call each.
fn reader() -> Asm {
    let code = Asm::new().set(Reg::Rsi, DATA);
    let top = code.here();
    code.load(Reg::Rax, Reg::Rsi).syscall().back_to(top)
}

/// Map, read, change, read again: for unmap, protect, remap to another frame, and invalidate.
pub fn map_read_change_read(lab: &Lab) {
    let mut guest = lab.guest(&reader());
    let (a, b) = (lab.page_of(&[10]), lab.page_of(&[20]));
    let missing = Exit::Fault { addr: DATA, access: Access::READ, pkey: false };
    for _ in 0..20 {
        map(&*guest.space, DATA, &a, 1, RW);
        assert_eq!(guest.syscall(), 10);
        map(&*guest.space, DATA, &b, 1, RW);
        assert_eq!(guest.syscall(), 20);
        map(&*guest.space, DATA, &b, 1, Prot::READ);
        assert_eq!(guest.syscall(), 20);
        map(&*guest.space, DATA, &b, 1, Prot::empty());
        assert_eq!(guest.run(), missing);
        map(&*guest.space, DATA, &a, 1, Prot::READ);
        assert_eq!(guest.syscall(), 10);
        unmap(&*guest.space, DATA, 1);
        assert_eq!(guest.run(), missing);
        map(&*guest.space, DATA, &a, 1, RW);
        assert_eq!(guest.syscall(), 10);
        guest.space.invalidate(range(DATA, 1));
        assert_eq!(guest.run(), missing);
    }
}

/// Two spaces, one CPU: the same address shows different frames.
pub fn two_spaces(lab: &Lab) {
    let code = Asm::new().set(Reg::Rdi, DATA).store(Reg::Rdi, Reg::Rbx).load(Reg::Rax, Reg::Rdi).syscall();
    let mut cpu = lab.cpu();
    let pages = [lab.pages(1), lab.pages(1)];
    let spaces = [lab.program(&code), lab.program(&code)];
    for (space, page) in spaces.iter().zip(&pages) {
        map(&**space, DATA, page, 1, RW);
    }
    for n in 0..100 {
        for (i, space) in spaces.iter().enumerate() {
            let mut state = start_state();
            state.regs.rbx = n * 2 + i as u64;
            assert_eq!(super::lab::run(&mut *cpu, space, &mut state), Exit::Syscall);
            assert_eq!((state.regs.rip, state.regs.rax), (CODE + 18, n * 2 + i as u64));
        }
    }
    assert_eq!([word(&pages[0]), word(&pages[1])], [198, 199]);
}
