//! The line to the outside: takes requests as they come, and carries answers and events.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::boot::request::{ControlSource, Event, Reply, Token};
use crate::kernel::Kernel;
use crate::kernel::reactor::HostWatch;
use crate::kernel::wait::{Events, WaitGuard, WaitTarget};
use crate::sync::{Level, Mutex};

/// Who is outside, if anybody.
pub struct Outside(Mutex<Option<Box<dyn ControlSource>>>);

impl Default for Outside {
    fn default() -> Self {
        Outside(Mutex::new(Level::Leaf, None))
    }
}

impl Outside {
    /// Answers a request.
    pub fn reply(&self, token: Token, reply: Reply) {
        if let Some(source) = self.0.lock().as_mut() {
            source.reply(token, reply);
        }
    }

    /// Tells of something.
    pub fn event(&self, event: Event) {
        if let Some(source) = self.0.lock().as_mut() {
            source.event(event);
        }
    }
}

/// An answer that is owed: given once, or, where its holder goes without a word, a refusal.
pub struct Owed {
    kernel: Weak<Kernel>,
    token: Option<Token>,
}

impl Owed {
    /// The answer to `token`; `None` is owed to nobody.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>, token: Option<Token>) -> Self {
        Owed { kernel: Arc::downgrade(kernel), token }
    }

    /// Gives the answer.
    pub fn give(mut self, reply: Reply) {
        self.send(reply);
    }

    fn send(&mut self, reply: Reply) {
        if let (Some(token), Some(kernel)) = (self.token.take(), self.kernel.upgrade()) {
            kernel.outside.reply(token, reply);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.send(Err((Errno::ESRCH, "the process was killed before its program ran".to_owned())));
    }
}

/// Serves a [`ControlSource`] through the reactor for as long as it lives.
pub struct Requests {
    server: Arc<Server>,
    _guard: WaitGuard,
    _watch: HostWatch,
}

struct Server(Weak<Kernel>);

impl Requests {
    /// Watches `source`.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn attach(kernel: &Arc<Kernel>, source: Box<dyn ControlSource>) -> std::io::Result<Self> {
        let watch = kernel.reactor.watch(source.fd())?;
        *kernel.outside.0.lock() = Some(source);
        let server = Arc::new(Server(Arc::downgrade(kernel)));
        let guard = watch.queue().enlist(Events::READABLE | Events::RDHUP, server.clone());
        Ok(Requests { server, _guard: guard, _watch: watch })
    }

    /// Serves what came before anybody watched.
    pub fn serve_what_came(&self) {
        self.server.wake(Events::IN);
    }
}

impl WaitTarget for Server {
    fn wake(&self, _: Events) {
        let Some(kernel) = self.0.upgrade() else { return };
        loop {
            // One request at a time, outside the lock: serving it takes others.
            let request = kernel.outside.0.lock().as_mut().and_then(|source| source.next());
            let Some(request) = request else { return };
            kernel.serve(request);
        }
    }
}
