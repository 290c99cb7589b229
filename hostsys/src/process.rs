//! Processes in fresh namespaces, and what a process may say about itself.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::error::{Error, Result, check};

bitflags::bitflags! {
    /// Namespaces that a new process gets of its own (`clone(2)`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Namespaces: u64 {
        /// Process ids: the new process is init of it, and its end is the end of all in it.
        const PID = libc::CLONE_NEWPID as u64;
        /// Network devices, addresses, ports; abstract Unix sockets.
        const NET = libc::CLONE_NEWNET as u64;
        /// Mounts.
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// System V IPC and POSIX message queues.
        const IPC = libc::CLONE_NEWIPC as u64;
        /// Host name.
        const UTS = libc::CLONE_NEWUTS as u64;
        /// Users and capabilities.
        const USER = libc::CLONE_NEWUSER as u64;
        /// The view of the cgroup tree.
        const CGROUP = libc::CLONE_NEWCGROUP as u64;
    }
}

/// A child process, known by a descriptor that cannot be reused for another.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

/// Which side of a [`fork_into`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The caller, with its child.
    Parent(Child),
    /// The new process.
    Child,
}

/// Forks into new namespaces: `clone3` with `CLONE_PIDFD`. For programs with one thread (the command line), as any
/// fork: another thread's locks would stay held in the child.
///
/// Cloning into the namespaces costs 0.7 ms here where unsharing them takes 8 ms: nothing waits for RCU.
///
/// # Errors
/// What `clone3` says: `EPERM` and `ENOSPC` where the host refuses the namespaces, `EAGAIN` and `ENOMEM` out of processes.
pub fn fork_into(namespaces: Namespaces) -> Result<Fork> {
    let mut pidfd: i32 = -1;
    // SAFETY: an all-zero clone_args is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.bits() | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM: the child runs on its own copy of the stack, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match check("clone3 (new namespaces)", pid)? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel stored a fresh descriptor.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent(Child { pid: pid as libc::pid_t, pidfd }))
        }
    }
}

impl Child {
    /// The process id in our namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A process that another one has started: its end can be seen, but not its status.
    #[must_use]
    pub fn of_another(pid: i32, start_time: u64) -> Option<Child> {
        Handle::open(pid, start_time).map(|handle| Child { pid, pidfd: handle.0 })
    }

    /// Waits for the end; the process is reaped.
    ///
    /// # Errors
    /// What `waitid` says.
    pub fn wait(&self) -> Result<WaitStatus> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                other => return other.map_err(|e| Error::new("waitid", e)),
            }
        }
    }

    /// Sends SIGKILL. A process that is gone already is no error.
    pub fn kill(&self) {
        let (fd, signal) = (self.pidfd.as_raw_fd(), libc::SIGKILL);
        // SAFETY: plain system call on our own descriptor.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) };
    }
}

impl AsFd for Child {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Replaces the program of this process by the one behind `file` (`execveat` with `AT_EMPTY_PATH`). Returns on failure only.
#[must_use]
pub fn exec_fd(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    let empty: &CStr = c"";
    // SAFETY: both arrays are null-terminated lists of strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            empty.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last("execveat")
}

/// Leaves the process at once, without running destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Makes the kernel kill this process when the thread that made it ends. A change of user or an exec of a privileged
/// program clears it, so call it after those.
///
/// # Errors
/// None in practice.
pub fn die_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|e| Error::new("prctl(PR_SET_PDEATHSIG)", e))
}

/// Gives up, for good and for all that follows, what a set-user-id program could give.
///
/// # Errors
/// None in practice.
pub fn no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(|e| Error::new("prctl(PR_SET_NO_NEW_PRIVS)", e))
}

/// Raises the limit of open descriptors to the most allowed, and forbids core dumps (guest memory would be in them).
///
/// # Errors
/// What `setrlimit` says.
pub fn set_limits() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| Error::new("getrlimit(RLIMIT_NOFILE)", e))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| Error::new("setrlimit(RLIMIT_NOFILE)", e))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|e| Error::new("setrlimit(RLIMIT_CORE)", e))
}

/// The CPUs that this process may run on.
#[must_use]
pub fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes of the host's memory.
///
/// # Errors
/// None in practice.
pub fn total_memory() -> Result<u64> {
    // SAFETY: an all-zero sysinfo is valid, and the kernel fills it.
    let info = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        check("sysinfo", i64::from(libc::sysinfo(&raw mut info)))?;
        info
    };
    Ok(info.totalram.saturating_mul(u64::from(info.mem_unit.max(1))))
}

/// Stops this process until SIGCONT, as the terminal's suspend character does.
pub fn stop_self() {
    // SAFETY: no memory is involved.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// An error from the thread's errno, for callers outside.
#[must_use]
pub fn last_error() -> io::Error {
    io::Error::last_os_error()
}

/// When process `pid` started, in clock ticks since boot (`/proc/PID/stat`, field 22). `None` where it has ended
/// (a zombie has): with the pid, it names a process for good.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl AsFd for Handle {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A process that need not be our child, known by a descriptor that cannot be reused for another.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// The process `pid` that started at `start_time`; `None` where it has ended.
    #[must_use]
    pub fn open(pid: i32, start_time: u64) -> Option<Handle> {
        // SAFETY: no pointers; a non-negative answer is a fresh descriptor.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            if fd < 0 {
                return None;
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        // Looked at after the descriptor is there: if it is the process now, it is the one behind the descriptor.
        (self::start_time(pid) == Some(start_time)).then_some(Handle(fd))
    }

    /// Sends a signal. A process that is gone already is no error.
    pub fn signal(&self, signo: i32) {
        // SAFETY: plain system call on our own descriptor.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signo, std::ptr::null::<u8>(), 0) };
    }

    /// Waits for its end; false where that takes longer.
    #[must_use]
    pub fn wait(&self, patience: std::time::Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0)
    }
}
