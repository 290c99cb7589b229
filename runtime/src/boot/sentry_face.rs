//! The one place that knows the sentry's face and the platforms' constructors.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use hostsys::SeqPacket;
use hostsys::seqpacket::Listener;
use hostsys::signals::SignalReader;
use memory::MemoryFile;
use nix::sys::signal::Signal;
use platform::Platform;
use sentry::boot::{Config, ExitStatus};

use super::container;
use super::requests::Requests;
use super::take::Taken;
use crate::control::wire::Message;
use crate::failure::{Failure, Result, Status, not_started};
use crate::sandbox::config::{Life, Role, SandboxConfig};
use crate::{checkpoint, platforms, walls};

/// Builds the platform, puts the filter up and runs the guest to its end.
///
/// # Errors
/// The platform does not start; the program cannot be run.
pub fn run(mut taken: Taken, control: &Arc<SeqPacket>) -> Result<Message> {
    let platform = platforms::build(taken.config.platform, taken.fds.take(Role::Kvm))?;
    let memory = MemoryFile::new(platform.memory_backing(), taken.config.memory)
        .and_then(|memory| platform.attach_memory(&memory).map(|()| memory))
        .map_err(|e| host("making guest memory", e))?;
    if taken.config.blank {
        let ready = control.send(&Message::Ready.encode(), &[]);
        ready.map_err(|e| Failure::host("waiting for the pool", e))?;
        // The log's level and the walls stay those of the blank, which was started with the same ones.
        taken = super::take::take(control)?;
        memory.set_limit(taken.config.memory);
    }
    if let Some(state) = taken.fds.take(Role::RestoreState) {
        return message(checkpoint::restore(taken, state, (platform, memory), control)?);
    }
    let config = sentry_config(taken, platform, memory, control)?;
    let status = sentry::run(config).map_err(|e| host("running the sandbox", e))?;
    message(status)
}

/// Instead of running a guest: the attacker, behind the very walls that the sentry runs behind.
///
/// # Errors
/// What was attempted failed, or its name is unknown.
#[cfg(feature = "compromised")]
pub fn play_attacker(mut taken: Taken) -> Result<Message> {
    let platform = platforms::build(taken.config.platform, taken.fds.take(Role::Kvm))?;
    let trial = &taken.config.trial;
    walls::install_filter(&platform.seccomp_rules(), taken.config.debug, trial)?;
    let outcome = trial.attempt().map(|()| Message::Exited(0)).map_err(Failure::runtime);
    // An attempt may have changed who we are, so that ending the platform in good order could wait for ever.
    std::mem::forget(platform);
    outcome
}

fn sentry_config(
    mut taken: Taken,
    platform: Arc<dyn Platform>,
    memory: Arc<MemoryFile>,
    control: &Arc<SeqPacket>,
) -> Result<Config> {
    let requests = requests(&mut taken, control)?;
    let destination = checkpoint::destination(&mut taken);
    let Taken { config, mut fds } = taken;
    let seal = seal(platform.clone(), &config);
    let container = container::container(config.container, &mut fds)?;
    Ok(Config {
        platform,
        memory,
        options: sentry::kernel::Options { strace: config.strace, chaos: config.chaos, cpus: usize::from(config.cpus) },
        container,
        start: config.life == Life::Attached,
        token: requests.token(),
        checkpoint: destination,
        control: Some(Box::new(requests)),
        seal,
    })
}

/// Signals that go on to the first process where nobody stays beside the sandbox: `kill PID` by hand, and what the
/// host's terminal sends to the leader of its session. SIGUSR1 is the ptrace platform's.
const PASSED: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH];

/// The requests of the commands outside.
///
/// # Errors
/// Out of descriptors.
pub fn requests(taken: &mut Taken, control: &Arc<SeqPacket>) -> Result<Requests> {
    let attached = taken.config.life == Life::Attached;
    let mut requests = Requests::new(control.clone(), attached, &taken.config.container.id)?;
    if let Some(listener) = taken.fds.take(Role::Listener) {
        requests.listen(Listener::from_fd(listener))?;
    }
    if !attached {
        let doing = |e| Failure::host("preparing signals", e);
        let terminal = taken.fds.get(Role::Console).map(|fd| hostsys::fds::dup_above(fd.as_fd(), 3)).transpose();
        requests.pass_signals(SignalReader::new(&PASSED).map_err(doing)?, terminal.map_err(doing)?)?;
    }
    Ok(requests)
}

/// The last wall, put up by the sentry when it has everything that takes more than running the guest.
pub fn seal(platform: Arc<dyn Platform>, config: &SandboxConfig) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
    let (debug, trial) = (config.debug, config.trial.clone());
    Box::new(move || walls::install_filter(&platform.seccomp_rules(), debug, &trial).map_err(io::Error::other))
}

/// A host failure while setting up, in the words of `doing`.
fn host(doing: &str, error: io::Error) -> Failure {
    Failure::io(Status::Runtime, doing, &error)
}

fn message(status: ExitStatus) -> Result<Message> {
    match status {
        ExitStatus::Exited(code) => Ok(Message::Exited(code)),
        ExitStatus::Signaled(signal) => Ok(Message::Signaled(u8::try_from(signal).unwrap_or(u8::MAX))),
        ExitStatus::NotStarted(errno, text) => Err(Failure::new(not_started(errno, &text), text)),
        ExitStatus::Failed(text) => Err(Failure::new(Status::SandboxDied, text)),
    }
}
