//! A container in another one's sandbox. What stands for it on the host is a process that `create` leaves behind: signals to it
//! reach the container's first process, its status is that one's, and with its end (SIGKILL too) the container is destroyed,
//! since that belongs to its connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hostsys::signals::SignalReader;
use hostsys::{Child, Fork, Namespaces, SeqPacket, caps, process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::WaitStatus;

use super::create::PATIENCE;
use super::hold::{self, Held};
use crate::control::GO;
use crate::control::client::Connection;
use crate::control::protocol::{Answer, Request, Target};
use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::Role;
use crate::sandbox::describe::ContainerConfig;
use crate::sandbox::streams::Streams;

/// A container about to be made in a sandbox that is there.
pub struct Joining {
    /// The directory of the sandbox's socket.
    pub directory: OwnedFd,
    /// What it is.
    pub container: ContainerConfig,
    /// Its streams.
    pub streams: Streams,
    /// Descriptors besides.
    pub fds: Vec<(Role, OwnedFd)>,
    /// It goes with the command.
    pub attached: bool,
}

/// Makes the container; answers the process that stands for it. `started` is called with its id before it does anything.
///
/// # Errors
/// `started` fails; the sandbox refuses.
pub fn launch(joining: Joining, log: &OwnedFd, started: &mut dyn FnMut(i32) -> Result<()>) -> Result<Child> {
    let doing = |e| Failure::host("starting the container's process", e);
    let (ours, theirs) = SeqPacket::pair().map_err(doing)?;
    // This process has one thread, and the new one goes on from here: no path, no argument is handed over.
    let child = match process::fork_into(Namespaces::empty()).map_err(doing)? {
        Fork::Child => process::exit_now(stand(joining, &theirs, log).into()),
        Fork::Parent(child) => child,
    };
    drop((theirs, joining));
    let outcome = started(child.pid()).and_then(|()| {
        ours.send(GO, &[]).map_err(doing)?;
        word(&ours)
    });
    outcome.inspect_err(|_| {
        child.kill();
        let _ = child.wait();
    })?;
    Ok(child)
}

/// What the new process says: nothing, or a failure.
fn word(ours: &SeqPacket) -> Result<()> {
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(ours.fd().as_fd(), PollFlags::POLLIN)], patience);
    let message = ours.try_receive().map_err(|e| Failure::host("hearing the container's process", e))?;
    let Some(message) = message else { return Err(Failure::runtime("the pod's sandbox does not answer")) };
    match message.bytes.split_first() {
        Some((0, [])) => Ok(()),
        Some((status, text)) => {
            let text = crate::control::wire::printable(text);
            Err(Failure::new(crate::control::wire::status(*status), text))
        }
        None => Err(Failure::runtime("the container's process ended")),
    }
}

/// The new process. Its status is that of the container's first one.
fn stand(joining: Joining, word: &SeqPacket, log: &OwnedFd) -> u8 {
    let begun = begin(joining, word);
    let (held, signals, terminal) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            let status = failure.status as u8;
            let _ = word.send(&[&[status], failure.message.as_bytes()].concat(), &[]);
            return status;
        }
    };
    hold::leave_streams(log.as_fd());
    let _ = word.send(&[0], &[]);
    // A lock that the command kept would be held for ever.
    let kept = [held.as_fd(), signals.as_fd(), log.as_fd(), terminal.as_ref().map_or(log.as_fd(), AsFd::as_fd)];
    let _ = hostsys::fds::close_all_but(&kept);
    held.stay(signals, terminal.as_ref().map(OwnedFd::as_fd)).unwrap_or(Status::Runtime as u8)
}

type Begun = (Held, SignalReader, Option<OwnedFd>);

fn begin(joining: Joining, word: &SeqPacket) -> Result<Begun> {
    let doing = |e| Failure::host("preparing the container's process", e);
    if joining.attached {
        process::die_with_parent().map_err(doing)?;
    }
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    let _ = nix::sys::prctl::set_name(c"nanovisor-hold");
    let terminal = joining.streams.terminal().map(|fd| hostsys::fds::dup_above(fd.as_fd(), 3));
    let terminal = terminal.transpose().map_err(doing)?;
    if let (false, Some(tty)) = (joining.attached, &terminal) {
        hostsys::tty::take_over(tty.as_fd()).map_err(doing)?;
    }
    let signals = hold::signals()?;
    if word.receive().map_err(doing)?.bytes != GO {
        return Err(Failure::runtime("the command line is gone"));
    }
    let Joining { directory, container, streams, mut fds, .. } = joining;
    let mut connection = Connection::open(directory.as_fd(), &container.id)?;
    // All that needs rights is done.
    caps::clear().and_then(|()| process::no_new_privileges()).map_err(doing)?;
    fds.extend(streams.fds);
    let roles = fds.iter().map(|(role, _)| *role).collect();
    let borrowed: Vec<_> = fds.iter().map(|(_, fd)| fd.as_fd()).collect();
    let request = Request::Create { container: Box::new(container), fds: roles };
    match connection.call(request, &borrowed, PATIENCE)? {
        Answer::Done => {}
        _ => return Err(Failure::runtime("the sandbox does not make sense: another answer than asked for")),
    }
    Ok((Held::new(connection, Target::Init), signals, terminal))
}

/// Stays beside the process that stands for a container until its end; answers its status.
///
/// # Errors
/// The host does not let us wait.
pub fn watch(child: &Child, mut signals: SignalReader) -> Result<u8> {
    let failed = |what: &'static str| move |e| Failure::host("waiting for the container", hostsys::Error::new(what, e));
    loop {
        let mut set = [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed("poll")(e)),
        }
        let ended = set.first().and_then(PollFd::any).unwrap_or(false);
        while let Some(signal) = signals.next().map_err(|e| Failure::host("reading signals", e))? {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.pid()), signal);
        }
        if ended {
            return match child.wait().map_err(|e| Failure::host("waiting for the container", e))? {
                WaitStatus::Exited(_, status) => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
                WaitStatus::Signaled(_, signal, _) => Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)),
                other => Err(Failure::runtime(format!("waiting for the container: {other:?}"))),
            };
        }
    }
}

/// Ends the container inside and waits for that; false where its sandbox is gone or does not answer.
pub fn destroy(directory: BorrowedFd<'_>, inside: &str) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    let destroyed = Connection::open(directory, inside).and_then(|mut c| c.call(Request::Destroy, &[], PATIENCE));
    destroyed.is_ok()
}
