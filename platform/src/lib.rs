//! How guest code is run: the traits that KVM and ptrace implement, and the register state they exchange.
//!
//! The kernel above owns all policy; a platform owns one thing, entering the guest and coming back with the reason.
//! An [`AddressSpace`] is a *cache* of the kernel's memory map: it may be emptied at any time, since every missing
//! page is a fault that the kernel can answer.

pub mod arch;
pub mod exit;
pub mod seccomp;
pub mod space;
#[cfg(feature = "suite")]
pub mod suite;

pub use arch::{ArchState, FpuState, UserRegs};
pub use exit::{Access, Exception, Exit};
pub use seccomp::{ArgRule, SyscallRule};
pub use space::{AddressSpace, MapOp, Prot};

use std::any::Any;
use std::io;
use std::sync::Arc;

use memory::{Backing, MemoryFile};

/// First address that a guest may not use, the same on every platform so that checkpoints move between them.
/// KVM keeps its stub, tables and ring-0 stacks from here up.
pub const USER_END: u64 = 0x7f80_0000_0000;

/// Lowest address that a guest may map (`vm.mmap_min_addr`).
pub const USER_START: u64 = 0x1_0000;

/// A way to run guest code on this host. One per sandbox; cheap to ask, expensive to make.
pub trait Platform: Send + Sync {
    /// `kvm` or `ptrace`.
    fn name(&self) -> &'static str;

    /// What backs guest memory: a memfd where stub processes map it, anonymous memory under a VM.
    fn memory_backing(&self) -> Backing;

    /// Tells the platform which memory file it will run on, once, before the first address space.
    ///
    /// # Errors
    /// What the host says (a memory slot refused, ...).
    fn attach_memory(&self, memory: &Arc<MemoryFile>) -> io::Result<()>;

    /// An empty address space. May be called from any thread.
    ///
    /// # Errors
    /// What the host says: processes, memory or descriptors exhausted.
    fn new_address_space(&self) -> io::Result<Arc<dyn AddressSpace>>;

    /// A CPU for the calling thread, which is from now on its only runner. Called at most [`Platform::max_cpus`] times.
    ///
    /// # Errors
    /// What the host says.
    fn new_cpu(&self) -> io::Result<Box<dyn Cpu>>;

    /// Most CPUs this platform can have.
    fn max_cpus(&self) -> usize;

    /// The system calls that the sandbox process needs for this platform after boot, as data for its filter.
    fn seccomp_rules(&self) -> Vec<SyscallRule>;

    /// Whether a guest's `rdtsc` reads what the host's does, so that a vDSO may count ticks.
    fn tsc_is_hosts(&self) -> bool {
        true
    }

    /// Bytes of FPU state that a guest's `xgetbv`/`cpuid` promise (the standard XSAVE format), for signal frames.
    fn xsave_size(&self) -> usize;

    /// The XCR0 value that guests see: the XSAVE components that a signal frame carries.
    fn xcr0(&self) -> u64;
}

/// A virtual CPU (or the right to drive stubs); belongs to one worker thread.
///
/// Made and used on one thread, so it need not be `Send`.
pub trait Cpu {
    /// Runs guest code in `space` from `state` until something needs the kernel. On return `state.regs` is current.
    /// The FPU state may stay inside the platform (see [`Cpu::save_fpu`]).
    ///
    /// Never blocks but in guest mode; returns [`Exit::Interrupted`] soon after (or at once, if it came before) a kick.
    fn run(&mut self, space: &Arc<dyn AddressSpace>, state: &mut ArchState) -> Exit;

    /// Brings the FPU state that this CPU may still hold for `state` into `state.fpu`, so that the task can move to
    /// another CPU, be inspected, or be saved. Cheap where nothing is held.
    fn save_fpu(&mut self, space: &Arc<dyn AddressSpace>, state: &mut ArchState);

    /// A handle by which any thread interrupts this CPU.
    fn kicker(&self) -> Arc<dyn Kicker>;

    /// Lets go of everything held for `space` on this CPU (a stub thread, a cached root), when its last task here ended.
    fn forget(&mut self, space: &Arc<dyn AddressSpace>);
}

/// Interrupts a [`Cpu`] from any thread.
pub trait Kicker: Send + Sync {
    /// Makes the CPU's current run, or its next one if it is not in guest code, return [`Exit::Interrupted`].
    /// Free of races against entry; a kick is never lost, and several before a run count as one.
    fn kick(&self);
}

/// Lets implementations recover their own type from `dyn AddressSpace`.
pub trait AsAny {
    /// `self` as `Any`.
    fn as_any(&self) -> &dyn Any;
}

impl<T: Any> AsAny for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}
