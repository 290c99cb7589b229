//! One thread that sees everything end: sandboxes, processes that were executed; and hears what sandboxes tell.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::thread;

use hostsys::process::Handle;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::container::Container;
use super::process::Process;
use crate::commands::hold::Held;
use crate::control::client::{Connection, Heard};
use crate::control::protocol::Answer;
use crate::failure::{Failure, Result};

/// What is waited for.
pub enum Watched {
    /// The end of a sandbox.
    Sandbox(Arc<Container>, Handle),
    /// The end of a process that was executed. Its container goes its own way.
    Executed(Weak<Container>, Arc<Process>, Held),
    /// What a sandbox tells.
    Told(Weak<Container>, Connection),
}

/// The thread, for those who give it something.
pub struct Watcher {
    given: Mutex<Vec<Watched>>,
    wake: EventFd,
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// Out of threads or descriptors.
    pub fn start() -> Result<Arc<Self>> {
        let failed = |e: std::io::Error| Failure::runtime(format!("starting the watcher: {e}"));
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(|e| failed(e.into()))?;
        let watcher = Arc::new(Watcher { given: Mutex::new(Vec::new()), wake });
        let own = Arc::clone(&watcher);
        thread::Builder::new().name("watcher".into()).spawn(move || own.run()).map_err(failed)?;
        Ok(watcher)
    }

    /// Watches this too.
    pub fn watch(&self, watched: Watched) {
        self.given.lock().push(watched);
        let _ = self.wake.write(1);
    }

    fn run(&self) {
        let mut all: Vec<Watched> = Vec::new();
        loop {
            all.append(&mut self.given.lock());
            let mut ready: Vec<bool> = wait(&self.wake, &all);
            let _ = self.wake.read();
            ready.reverse();
            all.retain_mut(|watched| !ready.pop().unwrap_or(false) || watched.goes_on());
        }
    }
}

/// Waits until something has something; answers which.
fn wait(wake: &EventFd, all: &[Watched]) -> Vec<bool> {
    let fds = std::iter::once(wake.as_fd()).chain(all.iter().map(AsFd::as_fd));
    let mut set: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    if poll(&mut set, PollTimeout::NONE).is_err() {
        return vec![false; all.len()];
    }
    set.iter().skip(1).map(|fd| fd.any().unwrap_or(true)).collect()
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Watched::Sandbox(_, handle) => handle.as_fd(),
            Watched::Executed(_, _, held) => held.as_fd(),
            Watched::Told(_, connection) => connection.as_fd(),
        }
    }
}

impl Watched {
    /// Takes what has come; false at its end.
    fn goes_on(&mut self) -> bool {
        match self {
            Watched::Sandbox(container, _) => {
                container.sandbox_ended();
                false
            }
            Watched::Executed(container, process, held) => {
                // What cannot be understood is as good as gone: its connection closes with it.
                let status = held.ended().unwrap_or_else(|failure| {
                    log::warn!("{failure}");
                    Some(128 + 9)
                });
                if let (Some(status), Some(container)) = (status, container.upgrade()) {
                    container.process_ended(process, status.into());
                }
                status.is_none()
            }
            Watched::Told(container, connection) => told(container, connection),
        }
    }
}

fn told(container: &Weak<Container>, connection: &mut Connection) -> bool {
    loop {
        match connection.hear() {
            Ok(Heard::Nothing) => return true,
            Ok(Heard::Answer(0, Answer::Oom)) => {
                if let Some(container) = container.upgrade() {
                    container.out_of_memory();
                }
            }
            Ok(Heard::Answer(..)) => {}
            Ok(Heard::Gone) => return false,
            Err(failure) => {
                log::warn!("{failure}");
                return false;
            }
        }
    }
}
