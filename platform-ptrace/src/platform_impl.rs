//! The platform: a master stub, a table of files, and CPUs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memory::{Backing, MemoryFile};
use parking_lot::Mutex;
use platform::{AddressSpace, Cpu, Platform, SyscallRule};

use crate::cpu::PtraceCpu;
use crate::files::Files;
use crate::fpu::FpuFormat;
use crate::master::{MAX_CPUS, Master};
use crate::space::PtraceSpace;
use crate::{rules, sys};

/// What all CPUs of a platform share.
pub struct Shared {
    /// The master stub.
    pub master: Master,
    /// Files known to the stubs.
    pub files: Files,
    /// FPU state on this host.
    pub format: FpuFormat,
    /// Cores that CPUs are spread over.
    cores: Vec<usize>,
    first_core: usize,
    made: AtomicUsize,
    free: Mutex<Vec<usize>>,
}

impl Shared {
    /// A CPU index that nobody uses.
    fn take_index(&self) -> io::Result<usize> {
        if let Some(index) = self.free.lock().pop() {
            return Ok(index);
        }
        let index = self.made.fetch_add(1, Ordering::Relaxed);
        if index >= MAX_CPUS {
            self.made.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::other(format!("no more than {MAX_CPUS} CPUs")));
        }
        Ok(index)
    }

    /// Gives a CPU index back.
    pub fn give_back(&self, index: usize) {
        self.free.lock().push(index);
    }

    /// The core for CPU `index`: round robin from a start that differs between sandboxes.
    pub fn core(&self, index: usize) -> Option<usize> {
        let n = self.cores.len();
        (n > 0).then(|| self.cores[(self.first_core + index) % n])
    }
}

/// Runs guests in ptraced stub processes.
pub struct PtracePlatform {
    shared: Arc<Shared>,
}

impl PtracePlatform {
    /// Clones the master stub off the calling process, which must have its final identity (user, namespaces) but not
    /// its final seccomp filter yet.
    ///
    /// # Errors
    /// With a clear text where ptrace is not permitted or the host lacks something.
    pub fn new() -> io::Result<Self> {
        let master = Master::new()?;
        let format = master.with(|stub| {
            let probe = stub.clone_stub()?;
            FpuFormat::probe(probe.pid())
        })?;
        let cores = sys::allowed_cores();
        let first_core = std::process::id() as usize;
        let shared = Shared {
            master,
            files: Files::default(),
            format,
            cores,
            first_core,
            made: AtomicUsize::new(0),
            free: Mutex::default(),
        };
        Ok(PtracePlatform { shared: Arc::new(shared) })
    }
}

impl Platform for PtracePlatform {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn memory_backing(&self) -> Backing {
        Backing::Memfd
    }

    fn attach_memory(&self, memory: &Arc<MemoryFile>) -> io::Result<()> {
        self.shared.files.descriptor(&self.shared.master, memory.file()).map(drop)
    }

    fn new_address_space(&self) -> io::Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(PtraceSpace::new()))
    }

    fn new_cpu(&self) -> io::Result<Box<dyn Cpu>> {
        let index = self.shared.take_index()?;
        match PtraceCpu::new(self.shared.clone(), index) {
            Ok(cpu) => Ok(Box::new(cpu)),
            Err(e) => {
                self.shared.give_back(index);
                Err(e)
            }
        }
    }

    fn max_cpus(&self) -> usize {
        MAX_CPUS
    }

    fn seccomp_rules(&self) -> Vec<SyscallRule> {
        rules::rules(self.shared.master.socket())
    }

    fn xsave_size(&self) -> usize {
        self.shared.format.len
    }

    fn xcr0(&self) -> u64 {
        self.shared.format.xcr0
    }
}
