//! The one place that knows the sentry's face and the platforms' constructors.

use std::fs::File;
use std::io;
use std::sync::Arc;

use abi::Errno;
use hostsys::SeqPacket;
use memory::MemoryFile;
use platform::Platform;
use sentry::boot::spec::{GoferTree, Root};
use sentry::boot::{Config, ContainerSpec, ExitStatus, MountKind, MountSpec, ProcessSpec, Stdio, User};
use sentry::vfs::mount::MountFlags;

use super::requests::{CONTAINER_ID, Requests};
use super::take::Taken;
use crate::control::wire::Message;
use crate::failure::{Failure, Result, Status};
use crate::gofer::Volume;
use crate::sandbox::config::{Role, SandboxConfig};
use crate::{platforms, walls};

/// Builds the platform, puts the filter up and runs the guest to its end.
///
/// # Errors
/// The platform does not start; the program cannot be run.
pub fn run(mut taken: Taken, control: &Arc<SeqPacket>) -> Result<Message> {
    let platform = platforms::build(taken.config.platform, taken.fd(Role::Kvm))?;
    let memory = MemoryFile::new(platform.memory_backing(), taken.config.memory)
        .and_then(|memory| platform.attach_memory(&memory).map(|()| memory))
        .map_err(|e| host("making guest memory", e))?;
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
    let platform = platforms::build(taken.config.platform, taken.fd(Role::Kvm))?;
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
    let image = File::from(taken.need(Role::Image)?);
    let stdio = stdio(&mut taken)?;
    let gofer = taken.fd(Role::Gofer);
    let config = taken.config;
    let seal = seal(platform.clone(), &config);
    let file = |f: crate::sandbox::config::GeneratedFile| (f.path.into_bytes(), 0o644, f.contents.into_bytes());
    let mut process = ProcessSpec::new(config.args, config.env, User::Named(config.user), stdio);
    process.cwd = config.cwd.into_bytes();
    let mut container = ContainerSpec::new(CONTAINER_ID, Root::Image(image), process);
    container.mounts.extend((0..).zip(&config.volumes).map(volume_mount));
    container.gofer = gofer;
    container.hostname = config.hostname.into_bytes();
    container.files = config.files.into_iter().map(file).collect();
    Ok(Config {
        platform,
        memory,
        options: sentry::kernel::Options { strace: config.strace, chaos: config.chaos, cpus: usize::from(config.cpus) },
        container,
        start: true,
        token: None,
        control: Some(Box::new(Requests::new(control.clone()))),
        seal,
    })
}

/// A volume as the sentry mounts it.
fn volume_mount((index, volume): (u32, &Volume)) -> MountSpec {
    MountSpec {
        destination: volume.target.clone().into_bytes(),
        kind: MountKind::Gofer(GoferTree { index, exclusive: volume.exclusive }),
        flags: MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RELATIME,
        data: String::new(),
        source: b"gofer".to_vec(),
        copy_up: false,
    }
}

/// The last wall, put up by the sentry when it has everything that takes more than running the guest.
fn seal(platform: Arc<dyn Platform>, config: &SandboxConfig) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
    let (debug, trial) = (config.debug, config.trial.clone());
    Box::new(move || walls::install_filter(&platform.seccomp_rules(), debug, &trial).map_err(io::Error::other))
}

fn stdio(taken: &mut Taken) -> Result<Stdio> {
    match (taken.fd(Role::Console), taken.config.console) {
        (Some(fd), Some(size)) => {
            Ok(Stdio::Console { fd, size: (size.rows, size.cols), stderr: taken.fd(Role::Stderr) })
        }
        _ => Ok(Stdio::Host([taken.need(Role::Stdin)?, taken.need(Role::Stdout)?, taken.need(Role::Stderr)?])),
    }
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

/// How the sentry's sentences about the user, the group and the working directory begin.
const IDENTITY: [&str; 3] = ["user ", "group ", "working directory "];

/// What kept the first program from starting, as an exit status.
fn not_started(errno: Errno, text: &str) -> Status {
    match errno {
        _ if IDENTITY.iter().any(|start| text.starts_with(start)) => Status::BadIdentity,
        Errno::ENOENT | Errno::ENOTDIR if text.contains("interpreter") => Status::NoInterpreter,
        Errno::ENOENT | Errno::ENOTDIR => Status::NotFound,
        Errno::EACCES | Errno::EPERM | Errno::EISDIR => Status::NotExecutable,
        Errno::ENOEXEC => Status::WrongFormat,
        Errno::EIO | Errno::ELOOP | Errno::EUCLEAN => Status::ImageCorrupt,
        Errno::ENOMEM | Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE => Status::Exhausted,
        _ => Status::Runtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_status() {
        assert_eq!(not_started(Errno::ENOENT, "/bin/x: no such file"), Status::NotFound);
        assert_eq!(not_started(Errno::ENOENT, "/bin/x: its interpreter /bin/y is missing"), Status::NoInterpreter);
        assert_eq!(not_started(Errno::ENOEXEC, ""), Status::WrongFormat);
        assert_eq!(not_started(Errno::EACCES, ""), Status::NotExecutable);
        assert_eq!(not_started(Errno::EACCES, "working directory /x: permission denied"), Status::BadIdentity);
    }
}
