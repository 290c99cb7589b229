//! Starting the gofer: namespaces, an empty root, file capabilities alone, then itself again.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use hostsys::{Child, Fork, Namespaces, SeqPacket, caps, fds, mount, process};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::{ARGV0_C, FIRST_ROOT, LOG_FD, Life, MAGIC_FD, SOCKET_FD, Volume, rules};
use crate::failure::{Failure, Result, Status};

/// A gofer process, started.
pub struct Gofer {
    child: Child,
}

impl Gofer {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Leaves it to its sandbox, with which it ends.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Gofer {
    fn drop(&mut self) {
        // It ends when the sandbox has closed its socket; whatever it still does then is for nobody.
        self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a gofer for `volumes`; answers it and the sandbox's end of its socket. `None` without volumes.
///
/// # Errors
/// A volume is missing; the host is out of resources.
pub fn launch(volumes: &[Volume], log: &OwnedFd, life: Life, uds: bool) -> Result<Option<(Gofer, OwnedFd)>> {
    if volumes.is_empty() {
        return Ok(None);
    }
    let doing = |e| Failure::host("starting the gofer", e);
    let roots: Vec<OwnedFd> = volumes.iter().map(Volume::open).collect::<Result<_>>()?;
    let program = File::open("/proc/self/exe")
        .map_err(|e| Failure::runtime(format!("opening /proc/self/exe: {e}; /proc must be mounted")))?;
    let (ours, theirs) = SeqPacket::pair().map_err(doing)?;
    let root = nix::unistd::geteuid().is_root();
    // Without root it keeps to the caller's own rights: its filter is its wall then.
    let namespaces = if root {
        Namespaces::MOUNT | Namespaces::IPC | Namespaces::UTS | Namespaces::NET | Namespaces::PID
    } else {
        Namespaces::empty()
    };
    let child = match process::fork_into(namespaces).map_err(doing)? {
        Fork::Child => become_gofer(&theirs, &program, log, &roots, (volumes, uds, root, life)),
        Fork::Parent(child) => child,
    };
    Ok(Some((Gofer { child }, ours.into_fd())))
}

fn become_gofer(
    socket: &SeqPacket,
    program: &File,
    log: &OwnedFd,
    roots: &[OwnedFd],
    (volumes, uds, root, life): (&[Volume], bool, bool, Life),
) -> ! {
    let args = std::iter::once(ARGV0_C.to_owned())
        .chain(uds.then(|| c"uds".to_owned()))
        .chain(volumes.iter().map(|v| CString::from(if v.readonly { c"ro" } else { c"rw" })))
        .collect::<Vec<_>>();
    let e = match enter((socket, log), program, roots, (root, life)) {
        Ok(program) => process::exec_fd(program.as_fd(), &args, &[]),
        Err(e) => e,
    };
    // The log is standard error by now, or still is.
    eprintln!("nanovisor: starting the gofer: {e}");
    process::exit_now(i32::from(Status::Runtime as u8))
}

fn enter(
    (socket, log): (&SeqPacket, &OwnedFd),
    program: &File,
    roots: &[OwnedFd],
    (root, life): (bool, Life),
) -> hostsys::Result<OwnedFd> {
    let _ = nix::unistd::setsid();
    process::set_limits()?;
    let null = fds::dev_null()?;
    let magic = magic(root)?;
    if root {
        mount::enter_empty_root()?;
        caps::keep_only(rules::CAPABILITIES)?;
    }
    process::no_new_privileges()?;
    if life == Life::Attached {
        process::die_with_parent()?;
    }
    // The program's number is behind the last root's, and closed by the exec.
    let program_fd = FIRST_ROOT.saturating_add(i32::try_from(roots.len()).unwrap_or(i32::MAX));
    let fixed = [(null.as_fd(), 0), (null.as_fd(), 1), (log.as_fd(), LOG_FD), (socket.as_fd(), SOCKET_FD)];
    let own = [(magic.as_fd(), MAGIC_FD), (program.as_fd(), program_fd)];
    let served = roots.iter().map(AsFd::as_fd).zip(FIRST_ROOT..);
    // Copies above all the numbers placed, so that none overwrites another.
    let above = program_fd.saturating_add(1);
    let copy = |(fd, to)| fds::dup_above(fd, above).map(|copy| (copy, to));
    let copies = fixed.into_iter().chain(own).chain(served).map(copy).collect::<hostsys::Result<Vec<_>>>()?;
    for (fd, to) in &copies {
        fds::place(fd.as_fd(), *to)?;
    }
    std::mem::forget((copies, null, magic)); // closed with all the others, next
    fds::close_from(above)?;
    fds::inherited(program_fd)
}

/// The way from a held file to an opened one: the gofer's own `/proc/self/fd`, of a procfs that shows nobody else.
fn magic(root: bool) -> hostsys::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let failed = |e| hostsys::Error::new("open (self/fd)", e);
    if !root {
        return nix::fcntl::open(c"/proc/self/fd", flags, Mode::empty()).map_err(failed);
    }
    let proc = mount::private_proc()?;
    nix::fcntl::openat(&proc, c"self/fd", flags, Mode::empty()).map_err(failed)
}
