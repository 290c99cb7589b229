//! Starting the sandbox process: namespaces, identity, empty root, no capabilities, then itself again as `boot`.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use hostsys::signals::SignalReader;
use hostsys::userns::{self, Identity};
use hostsys::{Child, Fork, Namespaces, SeqPacket, caps, fds, mount, process};

use super::config::{Life, Role};
use super::prepare::Prepared;
use crate::boot;
use crate::control::wire::Message;
use crate::control::{self, GO};
use crate::failure::{Failure, Result, Status};
use crate::walls::{Trial, Wall};

/// User and group id inside of the sandbox's user namespace, and on the host where root starts it: `nobody`.
const NOBODY: u32 = 65534;

/// A sandbox process, started.
pub struct Sandbox {
    /// The process: init of its pid namespace, so that its end is the end of all of it.
    pub child: Child,
    /// Our end of the control socket.
    pub control: SeqPacket,
}

/// A sandbox process that waits to be told what it is.
pub struct Blank {
    /// Its process id.
    pub pid: i32,
    /// Our end of its control socket.
    pub control: SeqPacket,
}

/// What a launch needs besides what is prepared.
pub struct Around<'a> {
    /// The sandbox's log.
    pub log: &'a OwnedFd,
    /// Signals that are blocked here, and are not to be in the sandbox process.
    pub signals: Option<&'a SignalReader>,
    /// The network namespace to start it in; one of its own where `None`.
    pub network: Option<&'a File>,
    /// Called with the new process's id, before it goes on: the place to write down that it is there, and to put it where
    /// it belongs.
    pub started: &'a mut dyn FnMut(i32) -> Result<()>,
}

/// Starts the sandbox process and hands everything over.
///
/// # Errors
/// The host refuses namespaces or is out of resources; the process ended before it was configured.
pub fn launch(prepared: Prepared, around: Around<'_>) -> Result<Sandbox> {
    let program = own_program()?;
    let (ours, theirs) = SeqPacket::pair().map_err(|e| Failure::host("making the control socket", e))?;
    let trial = prepared.config.trial.clone();
    let (fork, identity) = fork_there(identity_for(&program, &trial), &trial, around.network)?;
    let child = match fork {
        Fork::Child => {
            drop(ours); // or the command's end would not be seen
            let (log, signals) = (around.log, around.signals);
            let child = ChildSide { program: &program, log, signals, identity, trial: &trial, prepared: &prepared };
            child.become_sandbox(theirs)
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let sandbox = Sandbox { child, control: ours };
    let pid = sandbox.child.pid();
    if let Err(failure) = (around.started)(pid).and_then(|()| configure(&sandbox, prepared, identity)) {
        return Err(sandbox.own_words(failure));
    }
    Ok(sandbox)
}

/// Makes a blank, which another process has started, the sandbox that is prepared.
///
/// # Errors
/// It has ended.
pub fn claim(blank: Blank, prepared: Prepared, started: &mut dyn FnMut(i32) -> Result<()>) -> Result<Sandbox> {
    let Blank { pid, control } = blank;
    let start = process::start_time(pid).ok_or_else(|| Failure::runtime("the blank sandbox has ended"))?;
    let child = Child::of_another(pid, start).ok_or_else(|| Failure::runtime("the blank sandbox has ended"))?;
    let sandbox = Sandbox { child, control };
    match started(pid).and_then(|()| hand_over(&sandbox, prepared, None)) {
        Ok(()) => Ok(sandbox),
        Err(failure) => Err(sandbox.own_words(failure)),
    }
}

/// Forks in the network namespace `network`, and comes back. The child has no right to join one itself: its user
/// namespace is a new one.
fn fork_there(identity: Identity, trial: &Trial, network: Option<&File>) -> Result<(Fork, Option<Identity>)> {
    let Some(network) = network else { return fork(identity, trial, trial.stands(Wall::Net)) };
    let failed = |e: nix::errno::Errno| {
        Failure::host("joining the network namespace of linux.namespaces", hostsys::Error::new("setns", e))
    };
    let home = File::open("/proc/self/ns/net").map_err(|e| Failure::io(Status::Runtime, "/proc/self/ns/net", &e))?;
    nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).map_err(failed)?;
    let forked = fork(identity, trial, false);
    if !matches!(forked, Ok((Fork::Child, _))) {
        nix::sched::setns(&home, nix::sched::CloneFlags::CLONE_NEWNET).map_err(failed)?;
    }
    forked
}

/// This program's file. Executing it from a descriptor needs no path inside the empty root, and shares its pages.
fn own_program() -> Result<File> {
    File::open("/proc/self/exe")
        .map_err(|e| Failure::io(Status::Runtime, "opening /proc/self/exe (/proc must be mounted)", &e))
}

/// Who the sandbox is to be on the host: nobody where root starts it, else the caller.
fn identity_for(program: &File, trial: &Trial) -> Identity {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let for_all = program.metadata().is_ok_and(|m| m.mode() & 0o001 != 0);
    // Root of a user namespace would be given its capabilities back by the exec.
    let inside = if trial.stands(Wall::Capabilities) { NOBODY } else { 0 };
    if uid == 0 {
        let mapped = userns::is_mapped(NOBODY);
        if mapped && for_all {
            return Identity { inside, host_uid: NOBODY, host_gid: NOBODY };
        }
        let why = if mapped {
            "the nanovisor file may not be executed by others (chmod o+x it)"
        } else {
            "the user namespace we are in has no user 65534"
        };
        log::warn!("{why}: the sandbox process stays {} outside of its own namespace", nix::unistd::geteuid());
    }
    Identity { inside, host_uid: uid, host_gid: gid }
}

/// Forks into all namespaces; root does without the user namespace on hosts that forbid it.
fn fork(identity: Identity, trial: &Trial, own_network: bool) -> Result<(Fork, Option<Identity>)> {
    let mut all = Namespaces::MOUNT | Namespaces::IPC | Namespaces::UTS | Namespaces::CGROUP;
    all.set(Namespaces::PID, trial.stands(Wall::Pid));
    all.set(Namespaces::NET, own_network);
    if !trial.stands(Wall::User) {
        let fork = process::fork_into(all).map_err(|e| Failure::host("starting the sandbox process", e))?;
        return Ok((fork, None));
    }
    let refused = match process::fork_into(all | Namespaces::USER) {
        Ok(fork) => return Ok((fork, Some(identity))),
        Err(e) if e.is_exhaustion() => return Err(Failure::host("starting the sandbox process", e)),
        Err(e) => e,
    };
    let hint = userns::refusal_hint().unwrap_or_else(|| "run as root, or allow user namespaces".into());
    if !nix::unistd::geteuid().is_root() {
        let text = format!("starting the sandbox process: the host refuses a user namespace ({refused}); {hint}");
        return Err(Failure::new(Status::NotPermitted, text));
    }
    if !userns::is_mapped(NOBODY) {
        let text = format!(
            "starting the sandbox process: no user namespace ({refused}; {hint}), and no user {NOBODY} to become without one"
        );
        return Err(Failure::new(Status::NotPermitted, text));
    }
    log::warn!("no user namespace for the sandbox ({refused}; {hint}): it runs as the host's nobody without one");
    let fork = process::fork_into(all).map_err(|e| Failure::host("starting the sandbox process", e))?;
    Ok((fork, None))
}

/// Gives the child its identity and all it needs. It works on its namespaces meanwhile.
fn configure(sandbox: &Sandbox, prepared: Prepared, identity: Option<Identity>) -> Result<()> {
    let doing = |e| Failure::host("starting the sandbox process", e);
    if let Some(who) = identity {
        userns::write_maps(sandbox.child.pid(), who).map_err(doing)?;
    }
    sandbox.control.send(GO, &[]).map_err(doing)?;
    hand_over(sandbox, prepared, identity)
}

/// Sends the configuration.
fn hand_over(sandbox: &Sandbox, prepared: Prepared, identity: Option<Identity>) -> Result<()> {
    let Prepared { mut config, mut fds, streams, .. } = prepared;
    fds.extend(streams.fds);
    config.fds = fds.iter().map(|(role, _): &(Role, OwnedFd)| *role).collect();
    config.inside_user = identity.map(|who| who.inside);
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|(_, fd)| fd.as_fd()).collect();
    control::send_config(&sandbox.control, &config, &borrowed)
}

impl Sandbox {
    /// Why it ended early, in its own words where it left some; `otherwise` if it did not end by itself.
    pub fn own_words(&self, otherwise: Failure) -> Failure {
        let mut gone = false;
        while let Ok(Some(message)) = self.control.try_receive() {
            match Message::decode(&message.bytes) {
                Some(Message::Failed(status, text)) => {
                    let _ = self.end();
                    return Failure::new(control::wire::status(status), text);
                }
                _ if message.is_eof() => {
                    gone = true;
                    break;
                }
                _ => {}
            }
        }
        // Its end of the socket closes with its end; what it died of is known then.
        if gone {
            return self.child.wait().map_or(otherwise, super::watch::death);
        }
        let _ = self.end();
        otherwise
    }

    fn end(&self) -> hostsys::Result<nix::sys::wait::WaitStatus> {
        self.child.kill();
        self.child.wait()
    }
}

/// The child's side, until it is `boot`.
struct ChildSide<'a> {
    program: &'a File,
    log: &'a OwnedFd,
    signals: Option<&'a SignalReader>,
    identity: Option<Identity>,
    trial: &'a Trial,
    prepared: &'a Prepared,
}

impl ChildSide<'_> {
    /// Failures travel over the control socket.
    fn become_sandbox(&self, control: SeqPacket) -> ! {
        if let Some(signals) = self.signals {
            signals.restore_mask();
        }
        let failure = match self.enter(&control) {
            Ok(never) => match never {},
            Err(e) => Failure::host("starting the sandbox process", e),
        };
        let _ = control.send(&Message::failed(&failure).encode(), &[]);
        process::exit_now(i32::from(failure.status as u8))
    }

    fn enter(&self, control: &SeqPacket) -> hostsys::Result<std::convert::Infallible> {
        let trial = self.trial;
        let attached = self.prepared.config.life == Life::Attached;
        // What needs no identity comes first: the parent writes the maps meanwhile.
        let null = fds::dev_null()?;
        let _ = nix::unistd::setsid();
        if let (false, Some(tty)) = (attached, self.prepared.streams.terminal()) {
            // Nobody stays beside it: that the terminal changes its size is told to the leader of its session.
            hostsys::tty::take_over(tty.as_fd())?;
        }
        process::set_limits()?;
        let first = control.receive()?;
        if first.bytes != GO {
            process::exit_now(i32::from(Status::SandboxDied as u8)); // The command line is gone.
        }
        if trial.stands(Wall::Capabilities) {
            caps::lock()?;
        }
        if trial.stands(Wall::User) {
            userns::become_user(self.identity.map_or(NOBODY, |who| who.inside))?;
        }
        if trial.stands(Wall::Root) {
            mount::enter_empty_root()?;
        }
        if trial.stands(Wall::Capabilities) {
            caps::clear()?;
            process::no_new_privileges()?;
        }
        if attached {
            process::die_with_parent()?;
        }
        place(control, self.program, self.log, &null)?;
        let args = [CString::from(boot::ARGV0_C)];
        let env: Vec<CString> = inherited_env().collect();
        // The program lies at its number since just now.
        Err(process::exec_fd(fds::inherited(boot::PROGRAM_FD)?.as_fd(), &args, &env))
    }
}

/// The descriptors of a fresh sandbox process: nothing, nothing, the log, the control socket; the program until its exec.
fn place(control: &SeqPacket, program: &File, log: &OwnedFd, null: &OwnedFd) -> hostsys::Result<()> {
    // Copies above all the numbers placed, so that none overwrites another.
    let above = boot::PROGRAM_FD + 1;
    let control = fds::dup_above(control.as_fd(), above)?;
    let program = fds::dup_above(program.as_fd(), above)?;
    let log = fds::dup_above(log.as_fd(), above)?;
    let null = fds::dup_above(null.as_fd(), above)?;
    fds::place(null.as_fd(), 0)?;
    fds::place(null.as_fd(), 1)?;
    fds::place(log.as_fd(), 2)?;
    fds::place(control.as_fd(), boot::CONTROL_FD)?;
    fds::place(program.as_fd(), boot::PROGRAM_FD)?;
    for copy in [control, program, log, null] {
        std::mem::forget(copy); // closed with all the others, next
    }
    fds::close_from(above)
}

/// The sandbox process gets no environment but what helps to debug it.
fn inherited_env() -> impl Iterator<Item = CString> {
    let keep = |name: &str| -> Option<CString> {
        let mut text = OsString::from(format!("{name}="));
        text.push(std::env::var_os(name)?);
        CString::new(text.into_encoded_bytes()).ok()
    };
    ["RUST_BACKTRACE"].into_iter().filter_map(keep)
}
