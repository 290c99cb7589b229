//! The console: a pty whose master the kernel holds, relayed to a host descriptor.
//!
//! What the host's terminal types goes into the line discipline; what programs write goes out. Both stop where the
//! other side is full, and go on by a wake-up: readiness of the host descriptor (edges, from the reactor) or of the
//! pty's master side. Nothing is polled.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fs::tty::{Ptys, SlaveFile, Tty, job};
use crate::kernel::Kernel;
use crate::kernel::reactor::HostWatch;
use crate::kernel::task::Task;
use crate::kernel::wait::{Events, WaitGuard, WaitTarget};
use crate::sync::{Level, Mutex};
use crate::vfs::{Caller, FileDescription, IoSource, OpenFlags};

/// Bytes to or from the host at once: what a terminal that is ready surely takes.
const CHUNK: usize = 1024;
/// How long the last output may take to leave when the sandbox ends, milliseconds.
const DRAIN: u16 = 2000;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const AGAIN: u8 = 2;

/// A console.
pub struct Console {
    tty: Arc<Tty>,
    // Before the descriptor, so that it is unwatched first.
    watch: HostWatch,
    host: OwnedFd,
    guards: Mutex<Vec<WaitGuard>>,
    /// Who moves bytes: one thread at a time, told to look once more by the others.
    pump: AtomicU8,
    /// The host's side has ended: nothing more is typed.
    ended: AtomicBool,
    /// Its process has ended: it goes when all that was written is out.
    retired: AtomicBool,
}

struct Waker(Weak<Console>);

impl WaitTarget for Waker {
    fn wake(&self, _: Events) {
        if let Some(console) = self.0.upgrade() {
            console.run();
        }
    }
}

impl Console {
    /// Makes the console's pty among `ptys`, `/dev/pts/0` where it is the first, and begins to relay. The kernel keeps it until it
    /// has retired.
    ///
    /// # Errors
    /// What watching the host descriptor says.
    pub fn start(
        kernel: &Arc<Kernel>,
        ptys: &Arc<Ptys>,
        host: OwnedFd,
        size: (u16, u16),
    ) -> std::io::Result<Arc<Self>> {
        let tty = ptys.allocate(kernel).map_err(|e| std::io::Error::from_raw_os_error(e.raw()))?;
        {
            let mut state = tty.state.lock();
            state.locked = false;
            state.size = [size.0, size.1, 0, 0];
        }
        Self::relay(kernel, tty, host)
    }

    /// The console of a restored terminal, whose other side is `host` now.
    ///
    /// # Errors
    /// As [`Console::start`].
    pub fn again(kernel: &Arc<Kernel>, tty: Arc<Tty>, host: OwnedFd, size: (u16, u16)) -> std::io::Result<Arc<Self>> {
        tty.resize([size.0, size.1, 0, 0]);
        Self::relay(kernel, tty, host)
    }

    fn relay(kernel: &Arc<Kernel>, tty: Arc<Tty>, host: OwnedFd) -> std::io::Result<Arc<Self>> {
        let watch = kernel.reactor.watch(&host)?;
        let console = Arc::new(Console {
            tty,
            watch,
            host,
            guards: Mutex::new(Level::Leaf, Vec::new()),
            pump: AtomicU8::new(IDLE),
            ended: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        let waker = Arc::new(Waker(Arc::downgrade(&console)));
        let guards = vec![
            console.watch.queue().enlist(Events::all(), waker.clone()),
            console.tty.master_queue.enlist(Events::all(), waker),
        ];
        *console.guards.lock() = guards;
        kernel.consoles.lock().push(console.clone());
        console.run();
        Ok(console)
    }

    /// The terminal outside has a new size.
    pub fn set_window_size(&self, rows: u16, cols: u16) {
        self.tty.resize([rows, cols, 0, 0]);
    }

    /// Its process has ended: what was written still goes out, then the descriptor is closed.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.run();
    }

    /// The kernel forgets a console that nobody needs any more; its terminal hangs up.
    fn leave(&self) {
        let done = self.retired.load(Ordering::SeqCst) && self.tty.state.lock().output.front().is_empty();
        let Some(kernel) = self.tty.kernel.upgrade().filter(|_| done) else { return };
        let gone = {
            let mut consoles = kernel.consoles.lock();
            let at = consoles.iter().position(|console| std::ptr::eq(Arc::as_ptr(console), self));
            at.map(|at| consoles.swap_remove(at))
        };
        if let Some(console) = gone {
            console.tty.master_closed();
        }
    }

    /// The slave, open for the first program's streams.
    ///
    /// # Errors
    /// As [`SlaveFile::open`].
    pub fn open(&self, caller: &Caller<'_>) -> Result<Arc<FileDescription>, abi::Errno> {
        SlaveFile::description(caller, &self.tty, true, OpenFlags::RDWR)
    }

    /// Makes it the controlling terminal of `task`'s session, which it must lead.
    ///
    /// # Errors
    /// As [`job::acquire`].
    pub fn control(&self, task: &Task) -> Result<(), abi::Errno> {
        job::acquire(task, &self.tty, true)
    }

    /// The terminal.
    #[must_use]
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// Moves what can be moved; only one thread does, and looks again where others would have.
    fn run(&self) {
        loop {
            let was = self.pump.load(Ordering::SeqCst);
            let to = if was == IDLE { RUNNING } else { AGAIN };
            if self.pump.compare_exchange(was, to, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                continue;
            }
            if was != IDLE {
                return;
            }
            break;
        }
        loop {
            self.move_out(0);
            self.move_in();
            // Echoes of what was just typed.
            self.move_out(0);
            if self.pump.compare_exchange(RUNNING, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return self.leave();
            }
            self.pump.store(RUNNING, Ordering::SeqCst);
        }
    }

    fn ready(&self, flags: PollFlags, timeout: u16) -> bool {
        let mut fds = [PollFd::new(self.host.as_fd(), flags)];
        poll(&mut fds, PollTimeout::from(timeout)).is_ok_and(|n| n > 0)
    }

    fn move_in(&self) {
        while !self.ended.load(Ordering::Relaxed) && self.tty.state.lock().takes_input() {
            if !self.ready(PollFlags::POLLIN, 0) {
                return;
            }
            // Only what surely fits is read: there is nowhere to put the rest.
            let room = self.tty.state.lock().input_room();
            let mut chunk = [0u8; CHUNK];
            let want = chunk.len().min(room.max(1));
            match nix::unistd::read(&self.host, &mut chunk[..want]) {
                Ok(0) => return self.end(),
                Ok(n) => {
                    // A full queue without a line takes every byte, so this never falls short.
                    let _ = self.tty.type_in(&mut IoSource::kernel(&chunk[..n]));
                }
                Err(e) if std::io::Error::from(e).kind() == ErrorKind::Interrupted => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => return self.end(),
            }
        }
    }

    fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.tty.hang_up();
        }
    }

    /// Writes out what waits, as far as the host takes it; waits up to `timeout` milliseconds each time it does not.
    fn move_out(&self, timeout: u16) {
        loop {
            let mut chunk = [0u8; CHUNK];
            let len = {
                let state = self.tty.state.lock();
                let front = state.output.front();
                let len = front.len().min(CHUNK);
                chunk[..len].copy_from_slice(&front[..len]);
                len
            };
            if len == 0 || !self.ready(PollFlags::POLLOUT, timeout) {
                return;
            }
            let sent = match nix::unistd::write(&self.host, &chunk[..len]) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(nix::errno::Errno::EAGAIN) => return,
                // Nobody sees it any more; programs must not wait for room for ever.
                Err(_) => {
                    self.end();
                    len
                }
            };
            self.tty.with(|state, fx| {
                state.output.consume(sent);
                fx.slave |= Events::WRITABLE;
            });
        }
    }

    /// Writes out the rest, for as long as the host goes on taking it. Called when all guests have ended.
    pub fn drain(&self) {
        while self.pump.compare_exchange(IDLE, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            std::thread::yield_now();
        }
        self.move_out(DRAIN);
        self.pump.store(IDLE, Ordering::SeqCst);
    }
}
