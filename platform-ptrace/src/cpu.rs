//! A CPU: the right of one thread to drive stubs, one for each space it ran in.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::pid_t;
use platform::{Access, AddressSpace, ArchState, Cpu, Exit, Kicker, Prot, UserRegs};

use crate::decode::{Stop, decode};
use crate::fpu::FpuSlot;
use crate::kick::KickState;
use crate::layout::MAX_COMMANDS;
use crate::master::{clone_from, map_commands};
use crate::platform_impl::Shared;
use crate::space::{Command, Known, POOL, PtraceSpace};
use crate::store::is_store;
use crate::stub::{StubProcess, inject, regs_at, result};
use crate::sys;

struct Stub {
    process: Arc<StubProcess>,
    fpu: FpuSlot,
    space: std::sync::Weak<dyn AddressSpace>,
    /// The registers it stands with, where nothing has changed them since they were read.
    regs: Option<UserRegs>,
}

/// A CPU.
pub struct PtraceCpu {
    shared: Arc<Shared>,
    index: usize,
    kick: Arc<KickState>,
    /// A stub that never runs guest code: the one this CPU's others are cloned from.
    seed: StubProcess,
    stubs: HashMap<u64, Stub>,
    pool: Vec<Stub>,
    /// FPU states of stubs that had to make room, by space.
    evicted: HashMap<u64, (std::sync::Weak<dyn AddressSpace>, FpuSlot)>,
    /// Stubs whose space was dropped on this thread, not buried yet.
    idle: Arc<AtomicUsize>,
    /// Room for one FPU state.
    area: Vec<u8>,
    /// What it did so far, for the log.
    trips: Trips,
}

/// How often the stubs of a CPU were stopped, and why.
#[derive(Debug, Default)]
struct Trips {
    /// Entries into guest code that ended in a system call.
    syscalls: u64,
    /// In a page fault that the kernel had to answer.
    faults: u64,
    /// In a page fault that was answered here.
    behind: u64,
    /// In anything else.
    others: u64,
    /// Injected batches, ...
    batches: u64,
    /// ... and the calls in them.
    calls: u64,
    /// Stubs cloned.
    clones: u64,
    /// Stubs used again.
    recycled: u64,
}

fn broken(reason: &'static str, e: &io::Error) -> Exit {
    Exit::Broken { reason, errno: e.raw_os_error().unwrap_or(0) }
}

impl PtraceCpu {
    /// Makes the calling thread CPU `index`, and pins it.
    ///
    /// # Errors
    /// What ptrace and clone say.
    pub fn new(shared: Arc<Shared>, index: usize) -> io::Result<Self> {
        let layout = shared.master.layout();
        let seed = shared.master.with(|stub| stub.clone_stub())?;
        map_commands(seed.pid(), layout, index)?;
        sys::set_regs(seed.pid(), &regs_at(layout.clone_loop()))?;
        if let Some(core) = shared.core(index) {
            // A worker and its stubs take turns: on one core a switch is a context switch, on two a wake-up of an
            // idle core. A host that refuses costs time, nothing else.
            let pinned = sys::pin(0, core).and_then(|()| sys::pin(seed.pid(), core));
            pinned.unwrap_or_else(|e| log::warn!("cannot pin CPU {index} to core {core}: {e}"));
        }
        let kick = Arc::new(KickState::default());
        Ok(PtraceCpu {
            shared,
            index,
            kick,
            seed,
            stubs: HashMap::new(),
            pool: Vec::new(),
            evicted: HashMap::new(),
            idle: Arc::default(),
            area: Vec::new(),
            trips: Trips::default(),
        })
    }

    /// The stub of `space`, made or recycled where there is none.
    fn stub_for(&mut self, space: &PtraceSpace, handle: &Arc<dyn AddressSpace>) -> io::Result<pid_t> {
        if let Some(stub) = self.stubs.get(&space.id) {
            return Ok(stub.process.pid());
        }
        self.bury();
        let weak = Arc::downgrade(handle);
        let process = match self.pool.pop() {
            Some(stub) => {
                self.trips.recycled += 1;
                stub.process
            }
            None => {
                self.trips.clones += 1;
                Arc::new(self.clone_seed()?)
            }
        };
        let fpu = self.evicted.remove(&space.id).map(|(_, fpu)| fpu).unwrap_or_default();
        let stub = Stub { process, fpu, space: weak, regs: None };
        space.add_view(self.index, stub.process.clone(), self.idle.clone());
        let pid = stub.process.pid();
        self.stubs.insert(space.id, stub);
        Ok(pid)
    }

    /// A new stub. Where the host has no room for one more process, others of this CPU make room: they are caches.
    fn clone_seed(&mut self) -> io::Result<StubProcess> {
        loop {
            match clone_from(self.seed.pid()) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) && self.evict() => {}
                done => return done,
            }
        }
    }

    /// Ends some stubs, keeping the FPU states in them; `false` where there is none.
    fn evict(&mut self) -> bool {
        let victims: Vec<u64> = self.stubs.keys().copied().take(16).collect();
        for &id in &victims {
            let Some(mut stub) = self.stubs.remove(&id) else { continue };
            let Some(handle) = stub.space.upgrade() else { continue };
            if let Some(space) = (*handle).as_any().downcast_ref::<PtraceSpace>() {
                space.remove_view(self.index);
            }
            if stub.fpu.displace(&self.shared.format, stub.process.pid(), &mut self.area).is_ok()
                && !stub.fpu.is_empty()
            {
                self.evicted.insert(id, (stub.space, stub.fpu));
            }
        }
        !victims.is_empty()
    }

    /// Lets go of stubs whose space is gone: its drop has ended them, or left a few here for another use.
    fn bury(&mut self) {
        let dead: Vec<u64> =
            self.stubs.iter().filter(|(_, stub)| stub.space.strong_count() == 0).map(|(&id, _)| id).collect();
        for id in dead {
            if let Some(stub) = self.stubs.remove(&id).filter(|stub| !stub.process.is_ended()) {
                self.recycle(stub);
            }
        }
        self.evicted.retain(|_, (space, _)| space.strong_count() > 0);
        self.idle.store(0, Ordering::Relaxed);
    }

    /// Keeps an unused stub, emptied, or ends it.
    fn recycle(&mut self, stub: Stub) {
        if self.pool.len() < POOL && self.empty(stub.process.pid()).is_ok() {
            self.pool.push(stub);
        }
    }

    /// Makes the injected calls; `false` where the host had no room and the stub was emptied.
    fn inject(&mut self, pid: pid_t, commands: &[Command]) -> io::Result<bool> {
        let layout = self.shared.master.layout();
        let buffer = self.shared.master.commands(self.index) as *mut Command;
        for chunk in commands.chunks(MAX_COMMANDS) {
            self.trips.batches += 1;
            self.trips.calls += chunk.len() as u64;
            // SAFETY: the buffer of this CPU is ours alone, has room for MAX_COMMANDS, and no stub of this CPU runs.
            unsafe { std::ptr::copy_nonoverlapping(chunk.as_ptr(), buffer, chunk.len()) };
            let start = layout.commands();
            let regs = UserRegs { rbx: start, rbp: start + size_of_val(chunk) as u64, ..regs_at(layout.batch()) };
            let done = inject(pid, layout, &regs);
            // The stub can read the buffer, and so can the next guest: leave it nothing of other spaces.
            // SAFETY: as above.
            unsafe { std::ptr::write_bytes(buffer, 0, chunk.len()) };
            match result(done?.rax) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => {
                    self.empty(pid)?;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Removes all guest memory from a stub.
    fn empty(&self, pid: pid_t) -> io::Result<()> {
        let args = [0, platform::USER_END, 0, 0, 0, 0];
        crate::stub::inject_call(pid, self.shared.master.layout(), libc::SYS_munmap, args).map(drop)
    }

    fn catch_up(&mut self, space: &PtraceSpace, pid: pid_t, commands: &[Command]) -> Result<(), Exit> {
        match self.inject(pid, commands) {
            Ok(true) => Ok(()),
            Ok(false) => {
                space.emptied(self.index);
                Ok(())
            }
            Err(e) => Err(broken("a stub could not map guest memory", &e)),
        }
    }

    fn run_in(&mut self, space: &PtraceSpace, pid: pid_t, state: &mut ArchState) -> Exit {
        let Some(stub) = self.stubs.get_mut(&space.id) else {
            return Exit::Broken { reason: "a CPU without a stub", errno: 0 };
        };
        if let Err(e) = stub.fpu.load(&self.shared.format, pid, state, &mut self.area) {
            return broken("a stub refused FPU state", &e);
        }
        let mut live = stub.regs.take();
        let exit = self.run_until_exit(space, pid, state, &mut live);
        if let Some(stub) = self.stubs.get_mut(&space.id) {
            stub.regs = live;
        }
        match exit {
            Exit::Syscall => self.trips.syscalls += 1,
            Exit::Fault { .. } => self.trips.faults += 1,
            _ => self.trips.others += 1,
        }
        exit
    }

    fn run_until_exit(
        &mut self,
        space: &PtraceSpace,
        pid: pid_t,
        state: &mut ArchState,
        live: &mut Option<UserRegs>,
    ) -> Exit {
        loop {
            if let Err(exit) = self.bring_up_to_date(space, pid, state, live) {
                return exit;
            }
            if self.kick.take() {
                space.leave(self.index);
                return Exit::Interrupted;
            }
            let stop = self.guest_code(pid, &mut state.regs, live);
            space.leave(self.index);
            let exit = match stop {
                Ok(Stop::Exit(exit)) => Some(exit),
                Ok(Stop::Kick) => self.kick.take().then_some(Exit::Interrupted),
                Ok(Stop::Page { addr, pkey }) => match self.fault(space, pid, &state.regs, addr, pkey) {
                    Ok(None) => {
                        *live = None;
                        self.trips.behind += 1;
                        None
                    }
                    Ok(exit) => exit,
                    Err(exit) => Some(exit),
                },
                Err(e) => Some(broken("a stub process was killed", &e)),
            };
            if let Some(exit) = exit {
                return exit;
            }
        }
    }

    /// Injects what is due, loads the registers, and enters.
    fn bring_up_to_date(
        &mut self,
        space: &PtraceSpace,
        pid: pid_t,
        state: &ArchState,
        live: &mut Option<UserRegs>,
    ) -> Result<(), Exit> {
        loop {
            load_regs(pid, live, &state.regs).map_err(|e| broken("a stub refused registers", &e))?;
            let due = space.enter(self.index, &self.shared.master, &self.shared.files);
            match due.map_err(|e| broken("a file could not be handed to the stubs", &e))? {
                None => return Ok(()),
                Some(commands) => {
                    *live = None;
                    self.catch_up(space, pid, &commands)?;
                }
            }
        }
    }

    /// Runs guest code to its next stop.
    fn guest_code(&self, pid: pid_t, regs: &mut UserRegs, live: &mut Option<UserRegs>) -> io::Result<Stop> {
        *live = None;
        sys::resume(sys::SYSEMU, pid)?;
        let status = crate::stub::wait_stop(pid)?;
        sys::get_regs(pid, regs)?;
        *live = Some(*regs);
        Ok(decode(pid, &self.shared.format, status, regs))
    }

    /// A page fault: brings the stub up to date if it was behind, else tells the kernel.
    fn fault(
        &mut self,
        space: &PtraceSpace,
        pid: pid_t,
        regs: &UserRegs,
        addr: u64,
        pkey: bool,
    ) -> Result<Option<Exit>, Exit> {
        let known = space.explain(self.index, addr, &self.shared.master, &self.shared.files);
        let prot = match known.map_err(|e| broken("a file could not be handed to the stubs", &e))? {
            Known::Behind(commands) => {
                self.catch_up(space, pid, &commands)?;
                return Ok(None);
            }
            Known::Mapped(prot) => Some(prot),
            Known::Missing => None,
        };
        let mut access = access(regs, addr, prot);
        if prot.is_none() && access == Access::READ {
            let mut code = [0; 15];
            let len = space.fetch(regs.rip, &mut code);
            if is_store(&code[..len], regs, addr) {
                access = Access::WRITE;
            }
        }
        Ok(Some(Exit::Fault { addr, access, pkey }))
    }
}

/// What the access was. The host tells the address but not the error code, so: at rip it is a fetch, unless the page
/// may be executed; on a page that can be read it is a store; on a page that is not there it is a load, until
/// the instruction was looked at.
fn access(regs: &UserRegs, addr: u64, prot: Option<Prot>) -> Access {
    let executable = prot.is_some_and(|p| p.contains(Prot::EXEC));
    // An instruction that begins at the end of a page and goes on in the next.
    let crossing = addr & abi::PAGE_MASK == 0 && addr.wrapping_sub(regs.rip) < 15;
    if !executable && (addr == regs.rip || (crossing && prot.is_some())) {
        return Access::EXEC;
    }
    match prot {
        Some(prot) if prot.contains(Prot::READ) => Access::WRITE,
        _ => Access::READ,
    }
}

/// Registers as the host accepts them: guest code can put any canonical address into a segment base, the kernel's half
/// included, but ptrace takes only user addresses.
fn loadable(regs: &UserRegs) -> UserRegs {
    let base = |b: u64| if b < crate::layout::TASK_END { b } else { 0 };
    UserRegs { orig_rax: u64::MAX, fs_base: base(regs.fs_base), gs_base: base(regs.gs_base), ..*regs }
}

/// Makes the stub stand with `regs`. Where it does but for the answer of the system call it stopped at, one word is
/// written instead of 27: a microsecond of five.
fn load_regs(pid: pid_t, live: &mut Option<UserRegs>, regs: &UserRegs) -> io::Result<()> {
    let want = loadable(regs);
    if let Some(live) = live {
        // A stop at a system call leaves its number in orig_rax. For the host it matters only beside an answer that
        // says "restart" (`handle_signal` and `arch_do_signal_or_restart` in arch/x86/kernel/signal.c).
        let restarts = (-516..=-512).contains(&(want.rax as i64));
        let same = *live == UserRegs { rax: live.rax, orig_rax: live.orig_rax, ..want };
        if same && (live.orig_rax == u64::MAX || !restarts) {
            if want.rax != live.rax {
                sys::set_rax(pid, want.rax)?;
                live.rax = want.rax;
            }
            return Ok(());
        }
    }
    sys::set_regs(pid, &want)?;
    *live = Some(want);
    Ok(())
}

impl Cpu for PtraceCpu {
    fn run(&mut self, handle: &Arc<dyn AddressSpace>, state: &mut ArchState) -> Exit {
        let Some(space) = (**handle).as_any().downcast_ref::<PtraceSpace>() else {
            return Exit::Broken { reason: "an address space of another platform", errno: 0 };
        };
        if self.kick.take() {
            return Exit::Interrupted;
        }
        let pid = match self.stub_for(space, handle) {
            Ok(pid) => pid,
            Err(e) => return broken("no stub process for an address space", &e),
        };
        self.kick.begin(pid);
        let exit = self.run_in(space, pid, state);
        self.kick.end();
        exit
    }

    fn save_fpu(&mut self, handle: &Arc<dyn AddressSpace>, state: &mut ArchState) {
        let Some(space) = (**handle).as_any().downcast_ref::<PtraceSpace>() else { return };
        if let Some((_, fpu)) = self.evicted.get_mut(&space.id) {
            fpu.take_displaced(state);
        }
        if let Some(stub) = self.stubs.get_mut(&space.id) {
            let pid = stub.process.pid();
            if let Err(e) = stub.fpu.save(&self.shared.format, pid, state, &mut self.area) {
                log::error!("cannot read FPU state from a stub: {e}");
            }
        }
    }

    fn kicker(&self) -> Arc<dyn Kicker> {
        self.kick.clone()
    }

    fn forget(&mut self, handle: &Arc<dyn AddressSpace>) {
        let Some(space) = (**handle).as_any().downcast_ref::<PtraceSpace>() else { return };
        self.evicted.remove(&space.id);
        let Some(stub) = self.stubs.remove(&space.id) else { return };
        space.remove_view(self.index);
        self.recycle(stub);
    }
}

impl Drop for PtraceCpu {
    fn drop(&mut self) {
        log::debug!("CPU {}: {:?}", self.index, self.trips);
        for stub in self.stubs.values() {
            stub.process.end();
        }
        self.shared.give_back(self.index);
    }
}
