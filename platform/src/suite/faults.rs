//! Page faults: the address exact, the access right, and a retry that works.

use super::asm::{Asm, Reg};
use super::lab::{CODE, DATA, Guest, Lab, RW, RX, map, set_word, word};
use crate::{Access, Exit, Prot};

fn fault(guest: &mut Guest) -> (u64, Access) {
    match guest.run() {
        Exit::Fault { addr, access, pkey: false } => (addr, access),
        exit => panic!("{exit:?} instead of a fault at {:x?}", guest.state.regs),
    }
}

/// A load from nowhere, then from a page.
pub fn read(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rsi, DATA + 8).load(Reg::Rax, Reg::Rsi).syscall());
    assert_eq!(fault(&mut guest), (DATA + 8, Access::READ));
    assert_eq!(guest.state.regs.rip, CODE + 10);
    let page = lab.pages(1);
    set_word(&page.advance(8), 77);
    map(&*guest.space, DATA, &page, 1, Prot::READ);
    assert_eq!(guest.syscall(), 77);
}

/// A store to nowhere may be told as a read first; once the page can be read it is a write.
pub fn write(lab: &Lab) {
    let code = Asm::new().set(Reg::Rdi, DATA + 16).set(Reg::Rax, 5).store(Reg::Rdi, Reg::Rax).syscall();
    let mut guest = lab.guest(&code);
    let page = lab.pages(1);
    let (addr, access) = fault(&mut guest);
    assert_eq!(addr, DATA + 16);
    assert!(!access.exec);
    if !access.write {
        map(&*guest.space, DATA, &page, 1, Prot::READ);
        assert_eq!(fault(&mut guest), (DATA + 16, Access::WRITE));
    }
    map(&*guest.space, DATA, &page, 1, RW);
    guest.syscall();
    assert_eq!(word(&page.advance(16)), 5);
}

/// A store to a read-only page.
pub fn write_to_read_only(lab: &Lab) {
    let code = Asm::new().set(Reg::Rdi, DATA).load(Reg::Rbx, Reg::Rdi).store(Reg::Rdi, Reg::Rax).syscall();
    let mut guest = lab.guest(&code);
    map(&*guest.space, DATA, &lab.pages(1), 1, Prot::READ);
    assert_eq!(fault(&mut guest), (DATA, Access::WRITE));
}

/// A jump to nowhere.
pub fn exec(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rax, DATA + 0x123).jump(Reg::Rax));
    assert_eq!(fault(&mut guest), (DATA + 0x123, Access::EXEC));
    assert_eq!(guest.state.regs.rip, DATA + 0x123);
}

/// A jump into a page that may only be read and written.
pub fn exec_of_data(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rax, DATA).jump(Reg::Rax));
    let page = lab.page_of(Asm::new().syscall().bytes());
    map(&*guest.space, DATA, &page, 1, RW);
    assert_eq!(fault(&mut guest), (DATA, Access::EXEC));
    map(&*guest.space, DATA, &page, 1, RX);
    guest.syscall();
    assert_eq!(guest.state.regs.rip, DATA + 2);
}

/// Many pages faulted in one by one; each store lands in its own frame.
pub fn resume_after_map(lab: &Lab) {
    let mut code = Asm::new().set(Reg::Rdi, DATA).set(Reg::Rax, 1);
    let top = code.here();
    // add rdi, 4096; inc rax
    code = code.store(Reg::Rdi, Reg::Rax).raw(&[0x48, 0x81, 0xc7, 0, 0x10, 0, 0]).inc(Reg::Rax).back_to(top);
    let mut guest = lab.guest(&code);
    let pages = lab.pages(100);
    let mut next = 0;
    while next < 100 {
        let (addr, _) = fault(&mut guest);
        assert_eq!(addr, DATA + next * 4096);
        map(&*guest.space, addr, &pages.advance(next * 4096), 1, RW);
        next += 1;
    }
    fault(&mut guest);
    (0..100).for_each(|n| assert_eq!(word(&pages.advance(n * 4096)), n + 1));
}

/// Addresses near zero.
pub fn null_page(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rsi, 8).load(Reg::Rax, Reg::Rsi));
    assert_eq!(fault(&mut guest), (8, Access::READ));
}
