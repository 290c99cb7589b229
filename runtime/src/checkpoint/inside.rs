//! Snapshots inside of the sandbox process, which has nothing but their descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hostsys::SeqPacket;
use memory::MemoryFile;
use platform::Platform;
use sentry::boot::{ExitStatus, RestoreConfig};
use sentry::checkpoint::{Destination, Instance, Source, Unusable};

use crate::boot::sentry_face;
use crate::boot::take::Taken;
use crate::failure::{Failure, Result, Status};
use crate::sandbox::config::{InstanceConfig, Role};

/// Where the sandbox's checkpoint goes, where one is wanted.
pub fn destination(taken: &mut Taken) -> Option<Destination> {
    let (state, pages) = (taken.fds.take(Role::CheckpointState)?, taken.fds.take(Role::CheckpointPages)?);
    Some(Destination { state: state.into(), pages: pages.into(), stop_after: taken.config.stop_after })
}

/// Restores the sandbox and runs it to its end.
///
/// # Errors
/// A snapshot that cannot be restored here: nothing of it has run then.
pub fn restore(
    mut taken: Taken,
    state: OwnedFd,
    (platform, memory): (Arc<dyn Platform>, Arc<MemoryFile>),
    control: &Arc<SeqPacket>,
) -> Result<ExitStatus> {
    let size = taken.config.container.process.console;
    let terminal = taken.fds.take(Role::Console).zip(size).map(|(fd, size)| (fd, (size.rows, size.cols)));
    let source = Source {
        state: read(state)?,
        pages: taken.fds.need(Role::RestorePages)?.into(),
        image: taken.fds.take(Role::Image).map(Into::into),
        gofer: taken.fds.take(Role::Gofer),
        streams: [Role::Stdin, Role::Stdout, Role::Stderr].map(|role| taken.fds.take(role)),
        terminal,
        null: null()?,
    };
    let checkpoint = destination(&mut taken);
    let config = &taken.config;
    let options =
        sentry::kernel::Options { strace: config.strace, chaos: config.chaos, cpus: usize::from(config.cpus) };
    let seal = sentry_face::seal(platform.clone(), config);
    let instance = instance(config.instance.clone().unwrap_or_default());
    let requests = sentry_face::requests(&mut taken, control)?;
    let token = requests.token();
    let control = Some(Box::new(requests) as Box<_>);
    let config = RestoreConfig { platform, memory, source, instance, token, options, checkpoint, control, seal };
    sentry::boot::restore(config).map_err(|e| match e {
        Unusable::Host(e) => Failure::io(Status::Runtime, "restoring the sandbox", &e),
        other => Failure::new(Status::Snapshot, format!("restoring the sandbox: {other}")),
    })
}

/// The sentry's form of an instance.
fn instance(config: InstanceConfig) -> Instance {
    let InstanceConfig { forked, name, hostname, machine_id, metadata } = config;
    Instance { forked, name, hostname: hostname.map(String::into_bytes), machine_id, metadata }
}

/// The null device, which this process was given for its own standard input.
fn null() -> Result<OwnedFd> {
    hostsys::fds::copy_of(0).map_err(|e| Failure::host("taking the null device", e))
}

fn read(state: OwnedFd) -> Result<Vec<u8>> {
    let doing = |e| Failure::io(Status::Runtime, "reading the snapshot's state", &e);
    let file = File::from(state);
    let len = file.metadata().map_err(doing)?.len();
    if len > sentry::checkpoint::MAX_STATE_LEN {
        return Err(Failure::new(Status::Snapshot, format!("the snapshot's state file has {len} bytes: it is none")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    // By position: a template's descriptors are copies of one, whose offset is everybody's.
    file.read_exact_at(&mut bytes, 0).map_err(doing)?;
    Ok(bytes)
}
