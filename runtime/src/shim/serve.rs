//! The shim that stays: serves containerd on a socket that `start` has made.

use std::fs::File;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use containerd_shim_protos::ttrpc::Server;
use containerd_shim_protos::{Task, create_task};

use super::events::Events;
use super::flags::Flags;
use super::service::Service;
use super::start;
use crate::failure::{Failure, Result};
use crate::logging::{self, Format};

/// Where containerd reads our log, in the bundle.
const LOG: &str = "log";

/// Serves until containerd says that it is over.
///
/// # Errors
/// Not started by `start`; out of threads.
pub fn serve(flags: &Flags) -> Result<()> {
    let doing = |e| Failure::host("starting the shim", e);
    let _ = nix::unistd::setsid();
    // What `nanovisor create` leaves behind becomes ours.
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| doing(hostsys::Error::new("prctl", e)))?;
    let listener = hostsys::fds::standard_stream(0).map_err(doing)?;
    let null = hostsys::fds::dev_null().map_err(doing)?;
    hostsys::fds::place(null.as_fd(), 0).map_err(doing)?;
    open_log(flags.debug);
    let address = std::env::var(start::TTRPC_ADDRESS).map_err(|_| {
        Failure::runtime(format!("{} is not set: this program is started by containerd", start::TTRPC_ADDRESS))
    })?;
    let service = Arc::new(Service::new(&flags.namespace, Events::start(&address, &flags.namespace)?)?);
    let failed = |e: containerd_shim_protos::ttrpc::Error| Failure::runtime(format!("serving containerd: {e}"));
    let task: Arc<dyn Task + Send + Sync> = service.clone();
    // The messages of version 2 are the same under another name; containerd 1.x knows no other.
    let second =
        create_task(Arc::clone(&task)).into_iter().map(|(name, method)| (name.replace(".v3.", ".v2."), method));
    let server = Server::new().add_listener(listener.into_raw_fd()).map_err(failed)?;
    let mut server = server.register_service(second.collect()).register_service(create_task(task));
    server.start().map_err(failed)?;
    service.wait_until_over();
    // The name first: who looks for a shim now shall start another.
    start::remove_socket(&flags.socket);
    server.shutdown();
    Ok(())
}

/// Opened for both ways, so that neither opening nor writing depends on who reads; what does not fit is lost.
fn open_log(debug: bool) {
    let flags = libc::O_NONBLOCK;
    let opened = File::options().read(true).write(true).custom_flags(flags).open(LOG);
    if let Ok(file) = opened {
        logging::init(OwnedFd::from(file), Format::Text, logging::level(debug));
    }
}
