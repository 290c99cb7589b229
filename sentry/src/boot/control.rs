//! Requests from outside, while the sandbox runs: signals, window sizes, pause.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::boot::{Answer, Control, ControlSource, Reply};
use crate::kernel::Kernel;
use crate::kernel::reactor::HostWatch;
use crate::kernel::signal::{self, SigInfo};
use crate::kernel::task::Tid;
use crate::kernel::wait::{Events, WaitGuard, WaitTarget};
use crate::sync::{Level, Mutex};

/// `si_code` of a signal that the kernel sends.
const SI_KERNEL: i32 = 0x80;

/// Serves a [`ControlSource`] through the reactor for as long as it lives.
pub struct Requests {
    _guard: WaitGuard,
    _watch: HostWatch,
}

struct Server {
    kernel: Weak<Kernel>,
    source: Mutex<Box<dyn ControlSource>>,
}

impl Requests {
    /// Watches `source` and serves what has come already.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn serve(kernel: &Arc<Kernel>, source: Box<dyn ControlSource>) -> std::io::Result<Self> {
        let watch = kernel.reactor.watch(source.fd())?;
        let server = Server { kernel: Arc::downgrade(kernel), source: Mutex::new(Level::Leaf, source) };
        let server = Arc::new(server);
        let guard = watch.queue().enlist(Events::READABLE | Events::RDHUP, server.clone());
        server.drain();
        Ok(Requests { _guard: guard, _watch: watch })
    }
}

impl WaitTarget for Server {
    fn wake(&self, _: Events) {
        self.drain();
    }
}

impl Server {
    fn drain(&self) {
        loop {
            // One request at a time, outside the lock: serving it takes others.
            let request = self.source.lock().next();
            let (Some(request), Some(kernel)) = (request, self.kernel.upgrade()) else { return };
            let reply = serve(&kernel, request.control);
            self.source.lock().reply(request.token, reply);
        }
    }
}

fn serve(kernel: &Arc<Kernel>, control: Control) -> Reply {
    match control {
        Control::Signal { signo, .. } => {
            let init = kernel.pids.group(Tid(1)).ok_or((Errno::ESRCH, "the process has ended".to_owned()))?;
            signal::send_to_group(&init, SigInfo::new(signo, SI_KERNEL)).map_err(|e| (e, e.text().to_owned()))?;
        }
        Control::WindowSize { rows, cols, .. } => kernel.set_window_size(rows, cols),
        Control::Pause { .. } => kernel.sched.pause(),
        Control::Resume { .. } => kernel.sched.resume(),
        Control::Shutdown => {
            kernel.pids.groups().iter().for_each(|group| crate::kernel::exit::kill_group(group, libc::SIGKILL));
        }
        _ => return Err((Errno::ENOSYS, "this request is not served yet".to_owned())),
    }
    Ok(Answer::Done)
}
