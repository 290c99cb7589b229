//! Ways into a kernel that are not `syscall`, and places that are not the guest's.

use super::asm::{Asm, Reg};
use super::lab::{CODE, DATA, Guest, Lab, RX, map, start_state};
use crate::{Exception, Exit, USER_END};

/// `int 0x80`, even with registers that look like a `syscall`.
pub fn int_0x80(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rax, 20).raw(&[0xcd, 0x80]));
    match guest.run() {
        Exit::Exception(Exception { vector: 13, .. }) => assert_eq!(guest.state.regs.rip, CODE + 10),
        exit => panic!("{exit:?}"),
    }
    assert_eq!(guest.state.regs.rax, 20);
}

/// `sysenter` loses rip on the way; what counts is that it is no system call.
pub fn sysenter(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().set(Reg::Rax, 20).raw(&[0x0f, 0x34]));
    let exit = guest.run();
    assert!(matches!(exit, Exit::Exception(Exception { vector: 6 | 13, .. })), "{exit:?}");
}

/// A far return into Linux's 32-bit code segment, where `int 0x80` and `syscall` wait.
pub fn compat_segment(lab: &Lab) {
    for gate in [[0xcd, 0x80], [0x0f, 0x05], [0x0f, 0x34], [0xeb, 0xfe], [0x0f, 0x0b]] {
        // push 0x23; push DATA32; retfq
        let code = Asm::new().raw(&[0x6a, 0x23, 0x68, 0, 0, 0x50, 0, 0x48, 0xcb]);
        let mut guest = lab.guest(&code);
        map(&*guest.space, 0x50_0000, &lab.page_of(&gate), 1, RX);
        guest.cpu.kicker().kick();
        let kicker = guest.cpu.kicker();
        let mut exit = Exit::Interrupted;
        // The endless loop is ended by a kick, as anything else that does not come back.
        std::thread::scope(|s| {
            let (done, finished) = std::sync::mpsc::channel::<()>();
            s.spawn(move || {
                while finished.recv_timeout(std::time::Duration::from_millis(20)).is_err() {
                    kicker.kick();
                }
            });
            for _ in 0..10 {
                exit = guest.cpu.run(&guest.space, &mut guest.state);
                if exit != Exit::Interrupted {
                    break;
                }
            }
            done.send(()).expect("the kicker listens");
        });
        assert!(!matches!(exit, Exit::Syscall | Exit::Broken { .. }), "{exit:?} by {gate:x?}");
    }
}

fn must_be_refused(guest: &mut Guest, what: &str) {
    let exit = guest.run();
    assert!(matches!(exit, Exit::Fault { .. } | Exit::Exception(_)), "{what}: {exit:?}");
}

/// Jumps to and stores at addresses of the platform's and the host's are refused, and the next guest runs.
pub fn beyond_user_end(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().syscall());
    // Wherever a platform keeps its own: a sweep in big steps, with offsets into a page.
    let steps = (0..40u64).map(|n| USER_END + n * 0x400_0000);
    let more = [0x7fff_ffff_e000, 0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_0400, 0xffff_8000_0000_0000, USER_END - 4096];
    for base in steps.chain(more) {
        for offset in [0, 0x21, 0x1000, 0x1_0000, 0x2_0000] {
            let at = base.wrapping_add(offset);
            let jump = Asm::new().set(Reg::Rax, at).jump(Reg::Rax);
            let store = Asm::new().set(Reg::Rdi, at & !7).store(Reg::Rdi, Reg::Rax);
            for (what, code) in [("jump", jump), ("store", store)] {
                map(&*guest.space, DATA, &lab.page_of(code.bytes()), 1, RX);
                guest.state = start_state();
                guest.state.regs.rip = DATA;
                must_be_refused(&mut guest, &format!("{what} at {at:#x}"));
            }
        }
    }
    guest.state = start_state();
    guest.syscall();
}

/// A segment base in the kernel's half, set by the guest itself where it can, harms only the guest.
pub fn kernel_segment_base(lab: &Lab) {
    // mov rax, imm; wrfsbase rax; syscall
    let code = Asm::new().set(Reg::Rax, 0xffff_8880_0000_0000).raw(&[0xf3, 0x48, 0x0f, 0xae, 0xd0]).syscall().syscall();
    let mut guest = lab.guest(&code);
    match guest.run() {
        Exit::Syscall => assert!(!matches!(guest.run(), Exit::Broken { .. })),
        exit => assert!(matches!(exit, Exit::Exception(_)), "{exit:?}"),
    }
}

/// Registers no guest could have: the run must end in a fault or an exception of this guest, nothing worse.
pub fn hostile_registers(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().syscall());
    for rip in [0, u64::MAX, 0x8000_0000_0000, 0x7fff_ffff_ffff, USER_END, 1 << 63] {
        guest.state = start_state();
        guest.state.regs.rip = rip;
        guest.state.regs.rsp = rip;
        must_be_refused(&mut guest, &format!("rip {rip:#x}"));
    }
    guest.state = start_state();
    guest.state.regs.rsp = 0xffff_ffff_8100_0000;
    guest.state.regs.fs_base = 0xffff_ffff_8100_0000;
    guest.state.regs.gs_base = 0x8000_0000_0000;
    assert!(!matches!(guest.run(), Exit::Broken { .. }));
    guest.state = start_state();
    guest.syscall();
}
