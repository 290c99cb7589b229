//! The master stub, from which all others are cloned.
//!
//! It is made while the sandbox process may still clone freely, and waits *untraced*, blocked in a read of the
//! lifeline, since ptrace binds a tracee to one thread: whoever needs it (a new CPU, a new frame file) seizes it under
//! a lock, uses it, and lets go again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::pid_t;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use parking_lot::Mutex;
use platform::UserRegs;

use crate::child::{self, Plan};
use crate::layout::{COMMANDS_LEN, Layout, Region};
use crate::stub::{StubProcess, inject, regs_at, wait_event, wait_stop};
use crate::sys;

/// Most CPUs, each of which has a command buffer.
pub const MAX_CPUS: usize = 256;

/// The master stub and what is shared with it.
pub struct Master {
    region: Region,
    process: StubProcess,
    socket: OwnedFd,
    commands: u64,
    _lifeline: OwnedFd,
    lock: Mutex<()>,
}

/// The master stub, seized by the calling thread.
pub struct Seized<'a> {
    master: &'a Master,
}

impl Master {
    /// Clones it off the calling process.
    ///
    /// # Errors
    /// With a text that names the step and, for a refused ptrace, the usual causes.
    pub fn new() -> io::Result<Self> {
        let region = Region::new()?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let (life_read, lifeline) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let file = command_file()?;
        let commands = sys::map_file(file.as_fd(), COMMANDS_LEN * MAX_CPUS as u64)?;
        // From here on nobody, stubs included, can map the buffers writable again.
        let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        let plan = Plan {
            region: &region,
            socket: theirs.as_raw_fd(),
            lifeline: life_read.as_raw_fd(),
            commands: file.as_raw_fd(),
        };
        let process = StubProcess::new(child::spawn(&plan)?);
        let master = Master { process, socket, commands, _lifeline: lifeline, lock: Mutex::new(()), region };
        master.take_over()?;
        Ok(master)
    }

    /// Follows the new stub to the end of its setup and parks it.
    fn take_over(&self) -> io::Result<()> {
        let pid = self.process.pid();
        sys::seize(pid).map_err(|e| not_permitted(&e))?;
        self.tell_rseq(pid)?;
        File::from(self._lifeline.try_clone()?).write_all(b"g")?;
        let mut regs = UserRegs::new();
        loop {
            let status = sys::wait(pid)?;
            match status.stop_signal() {
                Some(libc::SIGTRAP) if status.event() == 0 => break,
                Some(signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGSYS)) => {
                    sys::get_regs(pid, &mut regs)?;
                    let (rip, base) = (regs.rip, self.layout().base);
                    let text = format!("the master stub failed to start: signal {signal} at {rip:#x}, base {base:#x}");
                    return Err(io::Error::other(text));
                }
                Some(_) => sys::resume(libc::PTRACE_CONT, pid)?,
                None => return Err(setup_failed(status.0)),
            }
        }
        sys::get_regs(pid, &mut regs)?;
        if regs.rax != 0 || !self.layout().is_code(regs.rip) {
            let e = io::Error::from_raw_os_error((regs.rax as i64).wrapping_neg() as i32);
            return Err(io::Error::new(e.kind(), format!("the stub could not empty and confine itself: {e}")));
        }
        self.park()
    }

    /// Tells the new stub, through the scratch page, where our C library registered restartable sequences: the copied
    /// registration must go, or the host would write to an unmapped page at its next resumption.
    fn tell_rseq(&self, pid: pid_t) -> io::Result<()> {
        sys::interrupt(pid)?;
        wait_event(pid, libc::PTRACE_EVENT_STOP)?;
        let config = sys::rseq_config(pid);
        // SAFETY: the scratch page is shared memory of ours, and the stub reads it after it is told to go on.
        unsafe { (self.layout().scratch() as *mut sys::RseqConfig).write_volatile(config) };
        sys::resume(libc::PTRACE_CONT, pid)
    }

    fn park(&self) -> io::Result<()> {
        sys::set_regs(self.process.pid(), &regs_at(self.layout().park()))?;
        sys::resume(libc::PTRACE_DETACH, self.process.pid())
    }

    /// Where things lie in every stub.
    pub fn layout(&self) -> Layout {
        self.region.layout
    }

    /// Our end of the socket on which stubs receive descriptors.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Our writable view of the command buffer of CPU `index`.
    pub fn commands(&self, index: usize) -> u64 {
        self.commands + COMMANDS_LEN * index as u64
    }

    /// Runs `work` while the calling thread traces the master stub.
    ///
    /// # Errors
    /// `work`'s, or those of ptrace.
    pub fn with<T>(&self, work: impl FnOnce(&Seized<'_>) -> io::Result<T>) -> io::Result<T> {
        let _guard = self.lock.lock();
        let pid = self.process.pid();
        sys::seize(pid).map_err(|e| not_permitted(&e))?;
        sys::interrupt(pid)?;
        while wait_stop(pid)?.event() != libc::PTRACE_EVENT_STOP {
            sys::resume(libc::PTRACE_CONT, pid)?;
        }
        let done = work(&Seized { master: self });
        self.park()?;
        done
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        sys::unmap(self.commands, COMMANDS_LEN * MAX_CPUS as u64);
    }
}

impl Seized<'_> {
    /// One system call in the master stub.
    pub fn call(&self, nr: i64, args: [u64; 6]) -> io::Result<u64> {
        crate::stub::inject_call(self.master.process.pid(), self.master.layout(), nr, args)
    }

    /// A copy of it, traced by the calling thread and stopped.
    pub fn clone_stub(&self) -> io::Result<StubProcess> {
        let pid = self.master.process.pid();
        sys::set_regs(pid, &regs_at(self.master.layout().clone_loop()))?;
        clone_from(pid)
    }
}

/// Resumes a stub that stands in the clone loop, for one round.
pub fn clone_from(pid: pid_t) -> io::Result<StubProcess> {
    sys::resume(libc::PTRACE_CONT, pid)?;
    if let Err(e) = wait_event(pid, libc::PTRACE_EVENT_CLONE) {
        let mut regs = UserRegs::new();
        sys::get_regs(pid, &mut regs)?;
        return Err(crate::stub::result(regs.rax).err().unwrap_or(e));
    }
    let child = sys::event_message(pid)?;
    let child = pid_t::try_from(child).map_err(|_| io::Error::other("an odd process id"))?;
    let stub = StubProcess::new(child);
    wait_event(child, libc::PTRACE_EVENT_STOP)?;
    Ok(stub)
}

/// Maps CPU `index`'s command buffer into `pid`.
pub fn map_commands(pid: pid_t, layout: Layout, index: usize) -> io::Result<()> {
    let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
    let fd = crate::layout::FD_COMMANDS as u64;
    let args = [layout.commands(), COMMANDS_LEN, libc::PROT_READ as u64, flags, fd, COMMANDS_LEN * index as u64];
    let regs = UserRegs {
        rax: libc::SYS_mmap as u64,
        rdi: args[0],
        rsi: args[1],
        rdx: args[2],
        r10: args[3],
        r8: args[4],
        r9: args[5],
        ..regs_at(layout.one())
    };
    crate::stub::result(inject(pid, layout, &regs)?.rax).map(drop)
}

fn command_file() -> io::Result<OwnedFd> {
    let fd = memfd_create(c"nanovisor-stub-commands", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&fd, (COMMANDS_LEN * MAX_CPUS as u64) as i64)?;
    Ok(fd)
}

fn not_permitted(e: &io::Error) -> io::Error {
    let why = "tracing a stub process is not permitted: a seccomp filter around us, kernel.yama.ptrace_scope of 2 or 3, \
               or a change of user id after the platform was made";
    io::Error::new(e.kind(), format!("{why} ({e})"))
}

fn setup_failed(status: i32) -> io::Error {
    let step = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    if step == Some(child::MOVING) {
        // The numbers are fixed and small: only a limit can forbid them.
        return io::Error::from_raw_os_error(libc::EMFILE);
    }
    let what = child::STEPS.iter().find(|(n, _)| Some(*n) == step).map_or("it was killed", |(_, what)| what);
    io::Error::other(format!("the master stub failed to start: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(master: &Master, nr: i64, args: [u64; 6]) -> bool {
        master
            .with(|_| {
                let stub = master_clone(master)?;
                Ok(crate::stub::inject_call(stub.pid(), master.layout(), nr, args).is_err())
            })
            .unwrap()
    }

    fn master_clone(master: &Master) -> io::Result<StubProcess> {
        Seized { master }.clone_stub()
    }

    /// The second wall: real system calls of a stub, each of which would succeed without the filter.
    #[test]
    fn a_stub_can_do_nothing_but_map() {
        let master = Master::new().unwrap();
        let base = master.layout().base;
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
        let fixed = |addr: u64| [addr, 4096, 3, anonymous, u64::MAX, 0];
        assert!(!refused(&master, libc::SYS_mmap, fixed(0x10_0000)));
        assert!(refused(&master, libc::SYS_mmap, fixed(base)));
        assert!(refused(&master, libc::SYS_mmap, fixed(base + 0x1_0000)));
        assert!(refused(&master, libc::SYS_munmap, [base, 4096, 0, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_mprotect, [base, 4096, 3, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_pkey_mprotect, [base, 4096, 3, u64::MAX, 0, 0]));
        assert!(refused(&master, libc::SYS_getpid, [0; 6]));
        assert!(refused(&master, libc::SYS_socket, [1, 1, 0, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_kill, [0, 0, 0, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_clone, [libc::CLONE_VM as u64, 0, 0, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_read, [3, 0, 0, 0, 0, 0]));
        assert!(refused(&master, libc::SYS_ptrace, [0; 6]));
    }

    /// The command buffer cannot be made writable, by its file or by its mapping.
    #[test]
    fn command_buffers_are_sealed() {
        let file = command_file().unwrap();
        let len = COMMANDS_LEN * MAX_CPUS as u64;
        let first = sys::map_file(file.as_fd(), len).unwrap();
        let seals = SealFlag::F_SEAL_FUTURE_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        assert!(sys::map_file(file.as_fd(), len).is_err());
        sys::unmap(first, len);
    }
}
