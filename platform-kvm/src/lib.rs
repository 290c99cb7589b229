//! Runs guest code on KVM virtual CPUs: one VM a sandbox, one vCPU a worker thread.
//!
//! See README.md for the rules of hardware and software KVM, and for the memory layout.
#![allow(unsafe_code)]

mod cpu;
mod describe;
mod fpu;
mod frame;
mod host_area;
mod insn;
mod kick;
mod layout;
mod probe;
mod pte;
mod seccomp;
mod setup;
mod space;
mod stats;
mod stub;
mod table_pool;
mod tables;
mod vcpu;
mod vm;
mod zap;

pub use describe::{HostReport, check_host};

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvm_ioctls::Kvm;
use memory::{Backing, MemoryFile};
use parking_lot::{Mutex, RwLock};
use platform::{AddressSpace, Cpu, Platform, SyscallRule};

use crate::cpu::KvmCpu;
use crate::layout::MAX_CPUS;
use crate::probe::Traits;
use crate::space::{KvmSpace, Shared};
use crate::table_pool::TablePool;
use crate::tables::Tables;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::zap::Zapper;

/// Bytes of page tables that any sandbox may have: enough for 32 GiB of small pages, or 1,500 small processes.
const TABLE_LIMIT: u64 = 64 << 20;
/// One with much memory may have many processes: a sixteenth of it may be page tables,
const TABLE_SHARE: u64 = 16;
/// but no more than this.
const TABLE_MOST: u64 = 1 << 30;

/// KVM as a [`Platform`]. Works only in the process that made it.
pub struct KvmPlatform {
    shared: Arc<Shared>,
    traits: Traits,
    next_cpu: AtomicUsize,
    /// The vCPU of the start-up probe, for the first worker if that is the same thread: a vCPU that changes threads
    /// costs an RCU grace period on older kernels.
    probed: Mutex<Option<(Vcpu, libc::pid_t)>>,
}

impl KvmPlatform {
    /// Opens `/dev/kvm` and makes a VM.
    ///
    /// # Errors
    /// What the host says.
    pub fn open() -> io::Result<Self> {
        let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm")?;
        Self::new(kvm.into())
    }

    /// Makes a VM from an open `/dev/kvm`, and finds out how it behaves.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(kvm: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is ours to give away.
        let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
        if kvm.get_api_version() != kvm_bindings::KVM_API_VERSION as i32 {
            return Err(io::Error::other("the descriptor is not /dev/kvm, or its API is not version 12"));
        }
        let vm = Arc::new(Vm::new(kvm)?);
        let pool = Arc::new(TablePool::new(vm.clone(), TABLE_LIMIT, TABLE_MOST)?);
        let exhausted = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let mut idle = Tables::idle(vm.clone(), pool.clone()).map_err(exhausted)?;
        let mut vcpu = Vcpu::new(vm.clone(), 0, idle.cr3())?;
        let traits = probe::run(&vm, &pool, &mut vcpu, &mut idle)?;
        pool.set_shadowed(traits.shadowed);
        log::debug!("kvm: {traits:?}");
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() };
        Ok(KvmPlatform {
            shared: Arc::new(Shared { vm, pool, zapper: Zapper::new(), cpus: RwLock::default(), idle }),
            traits,
            next_cpu: AtomicUsize::new(1),
            probed: Mutex::new(Some((vcpu, tid))),
        })
    }

    /// How this host's KVM behaves, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        describe::traits(&self.traits)
    }

    /// Bytes of guest page tables in use.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.shared.pool.used()
    }

    fn vcpu(&self) -> io::Result<Vcpu> {
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() };
        if let Some((vcpu, _)) = self.probed.lock().take_if(|(_, made_by)| *made_by == tid) {
            return Ok(vcpu);
        }
        let index = self.next_cpu.fetch_add(1, Ordering::Relaxed);
        if index >= MAX_CPUS {
            return Err(io::Error::other(format!("no more than {MAX_CPUS} KVM CPUs in a sandbox")));
        }
        Vcpu::new(self.shared.vm.clone(), index, self.shared.idle.cr3())
    }
}

impl Platform for KvmPlatform {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn memory_backing(&self) -> Backing {
        Backing::Anonymous
    }

    fn attach_memory(&self, memory: &Arc<MemoryFile>) -> io::Result<()> {
        self.shared.pool.set_limit((memory.limit() / TABLE_SHARE).clamp(TABLE_LIMIT, TABLE_MOST));
        if self.traits.shadowed
            && memory.file().fd().is_none()
            && let Err(e) = self.shared.zapper.attach(memory.file())
        {
            log::warn!("kvm: no userfaultfd ({e}): every change of a mapping will flush all of them");
        }
        Ok(())
    }

    fn new_address_space(&self) -> io::Result<Arc<dyn AddressSpace>> {
        let space: Arc<KvmSpace> = KvmSpace::new(&self.shared).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(space)
    }

    fn new_cpu(&self) -> io::Result<Box<dyn Cpu>> {
        Ok(Box::new(KvmCpu::new(self.vcpu()?, self.shared.clone(), self.traits)))
    }

    fn max_cpus(&self) -> usize {
        MAX_CPUS - 1
    }

    fn seccomp_rules(&self) -> Vec<SyscallRule> {
        seccomp::rules()
    }

    fn xsave_size(&self) -> usize {
        self.traits.xsave_size
    }

    fn xcr0(&self) -> u64 {
        self.traits.xcr0
    }
}
