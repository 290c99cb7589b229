//! One virtual CPU: entering it with registers, and reading what it left.

use std::io;
use std::sync::Arc;

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::{SyncReg, VcpuFd};
use platform::UserRegs;
use platform::arch::{USER_CS, USER_RFLAGS, USER_SS};

use crate::frame::{ExceptionFrame, has_error_code};
use crate::layout::*;
use crate::setup;
use crate::stub;
use crate::vm::Vm;

/// Why `KVM_RUN` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Port input or output.
    Io,
    /// A signal, or `immediate_exit`.
    Interrupted,
    /// The guest could take an interrupt.
    Window,
    /// KVM could not reach a page of a memory slot.
    MemoryFault,
    /// Another exit of KVM's, by number.
    Other(u32),
    /// KVM refused to run; the errno.
    Failed(i32),
}

/// A vCPU, with what is loaded in it.
pub struct Vcpu {
    fd: VcpuFd,
    vm: Arc<Vm>,
    index: usize,
    /// Special registers as set up; the guest can only change the bases of fs and gs.
    base: kvm_sregs,
    /// Ring that the vCPU stands in.
    ring: u8,
    /// Root of the tables that are loaded.
    cr3: u64,
    /// Bases that are loaded.
    bases: (u64, u64),
    /// Return from ring 0 by `iretq` in the stub rather than by setting segments.
    pub return_by_stub: bool,
}

impl Vcpu {
    /// Creates vCPU `index` on the tables at `cr3`.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(vm: Arc<Vm>, index: usize, cr3: u64) -> io::Result<Self> {
        let mut fd = vm.fd.create_vcpu(index as u64).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        let base = setup::prepare(&vm, &fd, index, cr3)?;
        fd.set_sync_valid_reg(SyncReg::Register);
        fd.set_sync_valid_reg(SyncReg::SystemRegister);
        fd.sync_regs_mut().sregs = base;
        Ok(Vcpu { fd, vm, index, base, ring: 3, cr3, bases: (0, 0), return_by_stub: false })
    }

    /// Asks KVM to exit whenever the guest could take an interrupt. On the software KVM, where `syscall` is emulated, that
    /// is right behind each `syscall`: the exit comes without the `out`, a third cheaper. But every fault that KVM
    /// serves by itself exits as well.
    pub fn exit_at_syscall(&mut self, on: bool) {
        self.fd.get_kvm_run().request_interrupt_window = u8::from(on);
    }

    /// The KVM handle.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The `immediate_exit` flag.
    pub fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Runs ring-3 code from `regs` on the tables at `cr3`. `flush` drops the processor's cached translations first.
    pub fn run_user(&mut self, regs: &UserRegs, cr3: u64, flush: bool) -> Reason {
        let bases = (canonical_or_zero(regs.fs_base), canonical_or_zero(regs.gs_base));
        let switch = cr3 != self.cr3;
        let mut out = general(regs);
        if self.ring == 3 && !switch && !flush {
            if bases != self.bases {
                self.set_special(3, self.cr3, bases);
            }
        } else if self.return_by_stub {
            if self.ring != 0 || bases != self.bases {
                self.set_special(0, self.cr3, bases);
            }
            self.prepare_return(&mut out, cr3, switch || flush);
        } else {
            self.set_special(3, cr3, bases);
        }
        self.run(out)
    }

    /// Whether the vCPU stands where `syscall` lands.
    pub fn is_at_entry(&mut self) -> bool {
        self.general().rip.wrapping_sub(private_va(ENTRY_PAGE)) < 4
    }

    /// Whether the vCPU was stopped before it loaded the tables that it was told to run on.
    pub fn is_before_switch(&mut self) -> bool {
        self.ring == 0 && self.general().rip == private_va(STUB_PAGE) + RETURN_SWITCH
    }

    /// Lets ring 3 use the exit port.
    pub fn allow_exit_port(&self) {
        stub::allow_exit_port(&self.vm.private, self.index);
    }

    /// Goes on where the vCPU stands.
    pub fn resume(&mut self) -> Reason {
        self.enter()
    }

    fn run(&mut self, regs: kvm_regs) -> Reason {
        self.fd.sync_regs_mut().regs = regs;
        self.fd.set_sync_dirty_reg(SyncReg::Register);
        self.enter()
    }

    fn set_special(&mut self, ring: u8, cr3: u64, bases: (u64, u64)) {
        let mut sregs = self.base;
        setup::set_ring(&mut sregs, ring);
        sregs.cr3 = cr3;
        (sregs.fs.base, sregs.gs.base) = bases;
        self.fd.sync_regs_mut().sregs = sregs;
        self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        self.bases = bases;
    }

    /// Writes the frame that `iretq` takes, and points the registers at it.
    fn prepare_return(&mut self, regs: &mut kvm_regs, cr3: u64, switch: bool) {
        let top = (cpu_page(self.index) + 2) * PAGE;
        for (i, word) in [regs.rip, USER_CS, regs.rflags, regs.rsp, USER_SS].into_iter().enumerate() {
            self.vm.private.store(top - 40 + i as u64 * 8, word);
        }
        regs.rflags = 2;
        regs.rsp = stub::stack_top(self.index) - 40;
        regs.rip = private_va(STUB_PAGE) + RETURN;
        if switch {
            self.vm.private.store(top - 48, regs.rax);
            regs.rax = cr3;
            regs.rsp -= 8;
            regs.rip = private_va(STUB_PAGE) + RETURN_SWITCH;
        }
    }

    fn enter(&mut self) -> Reason {
        use kvm_ioctls::VcpuExit;
        let reason = match self.fd.run() {
            Ok(VcpuExit::IoOut(..) | VcpuExit::IoIn(..)) => Reason::Io,
            Ok(VcpuExit::IrqWindowOpen) => Reason::Window,
            Ok(VcpuExit::Intr) => Reason::Interrupted,
            Ok(VcpuExit::MemoryFault { .. }) => Reason::MemoryFault,
            Ok(_) => Reason::Other(self.fd.get_kvm_run().exit_reason),
            Err(e) => match e.errno() {
                libc::EINTR | libc::EAGAIN => Reason::Interrupted,
                libc::EFAULT => Reason::MemoryFault,
                errno => Reason::Failed(errno),
            },
        };
        let run = self.fd.get_kvm_run();
        run.kvm_dirty_regs = 0;
        let sregs = *self.special();
        // What is loaded is what the vCPU says, not what it was told: it may have been stopped before the stub's `mov cr3`.
        (self.ring, self.cr3, self.bases) = (sregs.cs.dpl, crate::pte::addr(sregs.cr3), (sregs.fs.base, sregs.gs.base));
        reason
    }

    /// The ring that the vCPU stands in.
    pub fn ring(&self) -> u8 {
        self.ring
    }

    /// General registers, as of the last exit.
    pub fn general(&mut self) -> &kvm_regs {
        &self.fd.sync_regs_mut().regs
    }

    /// Special registers, as of the last exit.
    pub fn special(&mut self) -> &kvm_sregs {
        &self.fd.sync_regs_mut().sregs
    }

    /// Stores the general registers into a task's, as ring 3 sees them now.
    pub fn store_user(&mut self, to: &mut UserRegs) {
        let bases = self.bases;
        let from = self.general();
        to.r15 = from.r15;
        to.r14 = from.r14;
        to.r13 = from.r13;
        to.r12 = from.r12;
        to.rbp = from.rbp;
        to.rbx = from.rbx;
        to.r11 = from.r11;
        to.r10 = from.r10;
        to.r9 = from.r9;
        to.r8 = from.r8;
        to.rax = from.rax;
        to.rcx = from.rcx;
        to.rdx = from.rdx;
        to.rsi = from.rsi;
        to.rdi = from.rdi;
        to.rsp = from.rsp;
        to.rip = from.rip;
        to.rflags = user_flags(from.rflags);
        (to.fs_base, to.gs_base) = bases;
        (to.cs, to.ss) = (USER_CS, USER_SS);
    }

    /// The frame that the processor pushed for `vector`; `None` where the stack pointer is not where it must be then.
    pub fn exception_frame(&mut self, vector: u8) -> Option<ExceptionFrame> {
        let words = if has_error_code(vector) { 6 } else { 5 };
        if self.general().rsp != stub::stack_top(self.index) - words * 8 {
            return None;
        }
        let top = (cpu_page(self.index) + 2) * PAGE;
        let word = |n: u64| self.vm.private.load(top - n * 8);
        let error_code = if words == 6 { word(6) } else { 0 };
        Some(ExceptionFrame { error_code, rip: word(5), cs: word(4), rflags: word(3), rsp: word(2) })
    }

    /// Copies `image` into the CPU's XSAVE pages.
    pub fn write_xsave(&self, image: &[u8]) {
        self.vm.private.write((cpu_page(self.index) + 2) * PAGE, &image[..image.len().min(XSAVE_BYTES)]);
    }

    /// Copies the CPU's XSAVE pages into `image`.
    pub fn read_xsave(&self, image: &mut [u8]) {
        let len = image.len().min(XSAVE_BYTES);
        self.vm.private.read((cpu_page(self.index) + 2) * PAGE, &mut image[..len]);
    }

    /// Runs the entry page's code at `offset` (an XSAVE or XRSTOR of the CPU's pages) on the idle tables.
    ///
    /// # Errors
    /// Where that does not end in a system call.
    pub fn run_xsave(&mut self, offset: u64, components: u64, idle_cr3: u64) -> io::Result<()> {
        let regs = UserRegs {
            rip: private_va(ENTRY_PAGE) + offset,
            rdi: XSAVE_VA + self.index as u64 * XSAVE_BYTES as u64,
            rax: components & 0xffff_ffff,
            rdx: components >> 32,
            ..UserRegs::new()
        };
        let mut reason = self.run_user(&regs, idle_cr3, false);
        while reason == Reason::Interrupted {
            // A kick came in between; whoever sent it also left a mark.
            self.clear_immediate_exit();
            reason = self.resume();
        }
        let rip = self.general().rip;
        if reason == Reason::Io && rip.wrapping_sub(private_va(ENTRY_PAGE)) < 4 {
            return Ok(());
        }
        Err(io::Error::other(format!("XSAVE in the guest ended with {reason:?} at {rip:#x}")))
    }

    /// Lets the next entry run.
    pub fn clear_immediate_exit(&mut self) {
        // SAFETY: the flag lies in this CPU's own page; kickers store to it atomically.
        unsafe { std::ptr::write_volatile(self.immediate_exit(), 0) };
    }

    /// Whether KVM holds an exception for the guest that it has not delivered yet (a nested page fault came in between).
    pub fn has_undelivered_exception(&self) -> bool {
        self.fd.get_vcpu_events().is_ok_and(|e| e.exception.injected != 0 || e.exception.pending != 0)
    }

    /// Enters only as far as finishing what the last exit began (`immediate_exit`).
    pub fn finish(&mut self) {
        // SAFETY: as above.
        unsafe { std::ptr::write_volatile(self.immediate_exit(), 1) };
        let _ = self.enter();
        self.clear_immediate_exit();
    }
}

/// The flags that a task is shown: RF is the processor's affair.
pub fn user_flags(rflags: u64) -> u64 {
    rflags & USER_RFLAGS | platform::arch::INITIAL_RFLAGS
}

/// A base that the processor accepts. Kernel code above checks before it stores one.
fn canonical_or_zero(addr: u64) -> u64 {
    if is_canonical(addr) { addr } else { 0 }
}

/// Whether an address is canonical with four-level paging.
pub const fn is_canonical(addr: u64) -> bool {
    ((addr as i64) << 16 >> 16) as u64 == addr
}

fn general(regs: &UserRegs) -> kvm_regs {
    kvm_regs {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        rflags: user_flags(regs.rflags),
    }
}
