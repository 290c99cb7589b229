//! [`Cpu`] on KVM: the run loop, and what each exit means.
//!
//! Guests can jump anywhere and make any exit happen, so an exit is judged by where the vCPU stands: its ring and its
//! instruction pointer. Ring 0 is only reached through our gates, and its stack cannot be written from ring 3.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use platform::{AddressSpace, ArchState, Cpu, Exception, Exit, FpuState, Kicker, UserRegs};

use crate::fpu::XsaveBuffer;
use crate::frame;
use crate::insn::{self, Quirk};
use crate::kick::CpuShared;
use crate::layout::*;
use crate::probe::Traits;
use crate::space::{KvmSpace, Shared};
use crate::stats::Stats;
use crate::vcpu::{Reason, Vcpu, is_canonical, user_flags};

const GENERAL_PROTECTION: u8 = 13;
const INVALID_OPCODE: u8 = 6;
const DEBUG: u8 = 1;

/// A virtual CPU, bound to the thread that made it.
pub struct KvmCpu {
    vcpu: Vcpu,
    shared: Arc<Shared>,
    kick: Arc<CpuShared>,
    traits: Traits,
    /// The space whose tables are loaded, kept alive while they are, and its change count then.
    loaded: Option<(Arc<KvmSpace>, u64)>,
    xsave: XsaveBuffer,
    /// Token and space of the FPU state in the vCPU.
    fpu: Option<(u64, u64)>,
    /// FPU states of tasks that ran here before and were not asked for yet: token to space and state.
    parked: HashMap<u64, (u64, FpuState)>,
    /// System calls since KVM last served a fault by itself, as far as known.
    streak: u32,
    /// Pages taken out because the host could not produce them: the next fault there is a bus error.
    failing: Vec<u64>,
    stats: Stats,
}

/// After so many system calls without a fault that KVM served, exits are asked for at `syscall` itself.
const STREAK: u32 = 4;

/// What an exit amounts to.
enum Step {
    Done(Exit),
    Again,
}

fn exception(vector: u8, error_code: u32) -> Exit {
    Exit::Exception(Exception { vector, error_code, si_code: None })
}

impl KvmCpu {
    /// Wraps a prepared vCPU.
    pub fn new(mut vcpu: Vcpu, shared: Arc<Shared>, traits: Traits) -> Self {
        let kick = Arc::new(CpuShared::new(vcpu.immediate_exit()));
        shared.cpus.write().push(kick.clone());
        vcpu.return_by_stub = traits.return_by_stub;
        if traits.software {
            vcpu.allow_exit_port();
        }
        let xsave = XsaveBuffer::new(shared.vm.capability(kvm_ioctls::Cap::Xsave2));
        KvmCpu {
            vcpu,
            shared,
            kick,
            traits,
            loaded: None,
            xsave,
            fpu: None,
            parked: HashMap::new(),
            streak: 0,
            failing: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Puts the task's FPU state into the vCPU, unless it is there.
    fn load_fpu(&mut self, space: &KvmSpace, state: &mut ArchState) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if let (Some((token, _)), Some(wanted)) = (self.fpu, state.fpu_token)
            && token == wanted
        {
            return Ok(());
        }
        self.stats.fpu_swaps += 1;
        self.park_fpu()?;
        if let Some((_, parked)) = state.fpu_token.and_then(|token| self.parked.remove(&token)) {
            state.fpu = parked;
        }
        self.xsave.fill(&state.fpu, self.traits.xcr0);
        self.set_xsave()?;
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        self.fpu = Some((token, space.id()));
        state.fpu_token = Some(token);
        Ok(())
    }

    /// Takes the FPU state out of the vCPU.
    fn park_fpu(&mut self) -> io::Result<()> {
        if let Some((token, space)) = self.fpu.take() {
            self.xsave.get(self.vcpu.fd())?;
            self.parked.insert(token, (space, self.xsave.to_state(self.traits.xsave_size)));
        }
        Ok(())
    }

    fn set_xsave(&mut self) -> io::Result<()> {
        if self.xsave.components() & self.traits.guest_xrstor == 0 {
            return self.xsave.set(self.vcpu.fd());
        }
        self.xrstor_in_guest()
    }

    /// Loads components that KVM does not, by guest code.
    fn xrstor_in_guest(&mut self) -> io::Result<()> {
        self.vcpu.write_xsave(self.xsave.bytes());
        let done = self.vcpu.run_xsave(XRSTOR_CODE, self.traits.xcr0, self.shared.idle.cr3());
        self.loaded = None;
        done
    }

    fn enter(&mut self, space: &Arc<KvmSpace>, regs: &UserRegs) -> Reason {
        self.kick.enter(space.id());
        // Read after `enter`: a change is either counted here, or its author finds us inside and expels us.
        let changes = space.changes();
        let same = matches!(&self.loaded, Some((s, _)) if s.id() == space.id());
        let flush = same && matches!(&self.loaded, Some((_, seen)) if *seen != changes);
        let reason = self.vcpu.run_user(regs, space.cr3(), flush);
        self.kick.leave();
        if self.vcpu.is_before_switch() {
            return reason;
        }
        if !same {
            self.stats.switches += 1;
            // Dropping the old space may free its tables: only now that the new ones are loaded.
            self.loaded = Some((space.clone(), changes));
        } else if flush && let Some((_, seen)) = &mut self.loaded {
            *seen = changes;
        }
        reason
    }

    /// Goes on in `space` where the vCPU stands, which is in ring 3.
    fn resume(&mut self, space: &Arc<KvmSpace>) -> Reason {
        self.kick.enter(space.id());
        let reason = self.vcpu.resume();
        self.kick.leave();
        reason
    }

    /// One entry into the guest and what came of it.
    fn step(&mut self, space: &Arc<KvmSpace>, regs: &mut UserRegs) -> Step {
        if self.traits.software {
            self.vcpu.exit_at_syscall(self.streak >= STREAK);
        }
        let mut reason = self.enter(space, regs);
        while reason == Reason::Window && !self.vcpu.is_at_entry() && !self.kick.is_kicked() {
            self.streak = 0;
            self.stats.stray_windows += 1;
            self.vcpu.exit_at_syscall(false);
            reason = self.resume(space);
        }
        while reason == Reason::Interrupted {
            self.vcpu.clear_immediate_exit();
            if !self.vcpu.has_undelivered_exception() {
                break;
            }
            // The guest raised an exception that KVM was stopped from delivering. It must not hit the next task: let
            // it reach its stub, which exits at once.
            reason = self.vcpu.resume();
        }
        match reason {
            Reason::Io | Reason::Interrupted | Reason::Window => {}
            Reason::MemoryFault => return self.memory_fault(space, regs),
            Reason::Other(number) => return self.unexpected(number),
            Reason::Failed(errno) => return Step::Done(Exit::Broken { reason: "KVM_RUN failed", errno }),
        }
        self.stats.by_window += u64::from(reason == Reason::Window);
        let rip = self.vcpu.general().rip;
        let in_page = |page: u64| rip.wrapping_sub(private_va(page)) < PAGE;
        match self.vcpu.ring() {
            0 if in_page(STUB_PAGE) => self.in_stub(space, regs, rip - private_va(STUB_PAGE)),
            0 if in_page(ENTRY_PAGE) => Step::Done(self.syscall(regs)),
            3 if rip.wrapping_sub(private_va(ENTRY_PAGE)) < 4 => Step::Done(self.syscall(regs)),
            3 if reason == Reason::Io => self.port_access(space, regs),
            3 => {
                self.vcpu.store_user(regs);
                self.after_interrupt()
            }
            _ => Step::Done(Exit::Broken { reason: "the vCPU stands in an impossible place", errno: 0 }),
        }
    }

    fn after_interrupt(&mut self) -> Step {
        self.stats.interrupts += 1;
        if self.kick.take_kick() { Step::Done(Exit::Interrupted) } else { Step::Again }
    }

    fn syscall(&mut self, regs: &mut UserRegs) -> Exit {
        self.streak = self.streak.saturating_add(1);
        self.stats.syscalls += 1;
        self.vcpu.store_user(regs);
        regs.rip = regs.rcx;
        regs.rflags = user_flags(regs.r11);
        regs.orig_rax = regs.rax;
        Exit::Syscall
    }

    /// The vCPU is in ring 0, in an exception stub or on its way back to ring 3.
    fn in_stub(&mut self, space: &Arc<KvmSpace>, regs: &mut UserRegs, offset: u64) -> Step {
        if offset >= RETURN_SWITCH {
            // Interrupted before `iretq`: the task's registers are still what they were.
            return self.after_interrupt();
        }
        let vector = (offset / STUB_STRIDE) as u8;
        let Some(frame) = self.vcpu.exception_frame(vector) else {
            return Step::Done(Exit::Broken { reason: "the exception stack is out of place", errno: 0 });
        };
        if frame.cs & 3 == 0 {
            return self.ring0_exception(regs, vector, &frame);
        }
        let cr2 = self.vcpu.special().cr2;
        self.vcpu.store_user(regs);
        regs.rip = frame.rip;
        regs.rsp = frame.rsp;
        regs.rflags = user_flags(frame.rflags);
        regs.orig_rax = u64::MAX;
        if vector == INVALID_OPCODE {
            match insn::quirk(space, regs) {
                Quirk::Gate(code) => return Step::Done(exception(GENERAL_PROTECTION, code)),
                Quirk::Emulated => return Step::Again,
                Quirk::None => {}
            }
        }
        let exit = frame::exit_of(vector, frame.error_code, cr2);
        match exit {
            Exit::Fault { .. } => self.stats.faults += 1,
            _ => self.stats.exceptions += 1,
        }
        if let Exit::Fault { addr, .. } = exit
            && let Some(i) = self.failing.iter().position(|&page| page == addr & !(PAGE - 1))
        {
            self.failing.swap_remove(i);
            return Step::Done(Exit::BusError { addr });
        }
        Step::Done(exit)
    }

    /// An exception in ring 0. Guests can cause two: a debug trap that `mov ss` delayed until after `syscall`, and
    /// `iretq` to an address that ring 3 may not have.
    fn ring0_exception(&mut self, regs: &mut UserRegs, vector: u8, frame: &frame::ExceptionFrame) -> Step {
        let entry = frame.rip.wrapping_sub(private_va(ENTRY_PAGE)) < PAGE;
        if vector == DEBUG && entry {
            let exit = self.syscall(regs);
            regs.rsp = frame.rsp;
            return Step::Done(exit);
        }
        let returning = frame.rip == private_va(STUB_PAGE) + RETURN;
        if returning {
            return Step::Done(exception(GENERAL_PROTECTION, 0));
        }
        Step::Done(Exit::Broken { reason: "an exception in ring 0", errno: 0 })
    }

    /// The exit port was used in ring 3 by other code than ours (the software KVM, where ring 3 has to be able to).
    fn port_access(&mut self, space: &KvmSpace, regs: &mut UserRegs) -> Step {
        let before = *self.vcpu.general();
        let bases = (self.vcpu.special().fs.base, self.vcpu.special().gs.base);
        // KVM finishes the access at the next entry, which must not disturb what the task has by then.
        self.vcpu.finish();
        self.vcpu.store_user(regs);
        regs.rip = insn::port_access_before(space, regs.rip);
        (regs.rax, regs.rcx, regs.rdi, regs.rsi) = (before.rax, before.rcx, before.rdi, before.rsi);
        (regs.fs_base, regs.gs_base) = bases;
        Step::Done(exception(GENERAL_PROTECTION, 0))
    }

    /// KVM could not reach a page. Those that the host cannot produce any more are taken out, and the guest tries again:
    /// the fault that it takes then tells the address.
    fn memory_fault(&mut self, space: &Arc<KvmSpace>, regs: &mut UserRegs) -> Step {
        let failing = space.remove_failing_pages();
        if failing.is_empty() {
            return Step::Done(Exit::Broken { reason: "KVM cannot reach guest memory", errno: libc::EFAULT });
        }
        self.failing = failing;
        if self.vcpu.ring() == 3 {
            self.vcpu.store_user(regs);
        }
        Step::Again
    }

    fn unexpected(&mut self, number: u32) -> Step {
        let general = *self.vcpu.general();
        log::error!("kvm: unexpected exit {number} at {:#x}, ring {}", general.rip, self.vcpu.ring());
        let reason = match number {
            kvm_bindings::KVM_EXIT_SHUTDOWN => "the guest shut its CPU down (triple fault)",
            kvm_bindings::KVM_EXIT_FAIL_ENTRY => "the processor refused the guest's state",
            kvm_bindings::KVM_EXIT_INTERNAL_ERROR => "KVM could not emulate an instruction",
            kvm_bindings::KVM_EXIT_MMIO => "the guest reached memory that is not there",
            _ => "an exit that KVM should not make",
        };
        Step::Done(Exit::Broken { reason, errno: 0 })
    }
}

fn kvm_space(space: &Arc<dyn AddressSpace>) -> Option<Arc<KvmSpace>> {
    (**space).as_any().downcast_ref::<KvmSpace>().and_then(KvmSpace::arc)
}

impl Cpu for KvmCpu {
    fn run(&mut self, space: &Arc<dyn AddressSpace>, state: &mut ArchState) -> Exit {
        let Some(space) = kvm_space(space) else {
            return Exit::Broken { reason: "an address space of another platform", errno: 0 };
        };
        if self.kick.take_kick() {
            return Exit::Interrupted;
        }
        if !is_canonical(state.regs.rip) {
            return exception(GENERAL_PROTECTION, 0);
        }
        if let Err(e) = self.load_fpu(&space, state) {
            return Exit::Broken { reason: "cannot load the FPU state", errno: e.raw_os_error().unwrap_or(0) };
        }
        if self.kick.take_kick() {
            // It came while the FPU state was loaded by guest code, which clears `immediate_exit` to get through.
            return Exit::Interrupted;
        }
        self.failing.clear();
        loop {
            if let Step::Done(exit) = self.step(&space, &mut state.regs) {
                return exit;
            }
        }
    }

    fn save_fpu(&mut self, _space: &Arc<dyn AddressSpace>, state: &mut ArchState) {
        let Some(token) = state.fpu_token else { return };
        if matches!(self.fpu, Some((held, _)) if held == token)
            && let Err(e) = self.park_fpu()
        {
            log::error!("kvm: cannot read the FPU state: {e}");
        }
        if let Some((_, fpu)) = self.parked.remove(&token) {
            state.set_fpu(fpu);
        }
    }

    fn kicker(&self) -> Arc<dyn Kicker> {
        self.kick.clone()
    }

    fn forget(&mut self, space: &Arc<dyn AddressSpace>) {
        let Some(id) = (**space).as_any().downcast_ref::<KvmSpace>().map(KvmSpace::id) else { return };
        self.parked.retain(|_, (of, _)| *of != id);
        if matches!(self.fpu, Some((_, of)) if of == id) {
            self.fpu = None;
        }
    }
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        self.kick.retire();
        self.shared.cpus.write().retain(|cpu| !Arc::ptr_eq(cpu, &self.kick));
    }
}
