//! Terminals: pseudo-terminal pairs with the N_TTY line discipline. See `README.md` here.

pub mod console;
pub mod device;
pub mod devpts;
mod file;
mod input;
mod ioctl;
pub mod job;
mod ldisc;
mod output;
pub mod saved;
mod state;
pub mod termios;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;

use crate::fs::tty::state::{Effects, State, WinSize};
use crate::kernel::Kernel;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{Inode, IoSink, IoSource};

pub use file::{MasterFile, SlaveFile};

/// Most ptys of a container (`/proc/sys/kernel/pty/max`).
pub const PTY_LIMIT: u32 = 4096;
/// Device number of `/dev/pts/0`'s major (UNIX98_PTY_SLAVE_MAJOR).
pub const PTS_MAJOR: u64 = 136;

/// A pseudo-terminal: the slave's side is a terminal, the master's is who sits at it.
pub struct Tty {
    /// N of `/dev/pts/N`.
    pub index: u32,
    me: Weak<Tty>,
    kernel: Weak<Kernel>,
    /// Where it is found by its index.
    home: Weak<Ptys>,
    state: Mutex<State>,
    /// Its inode in devpts, once looked up.
    node: OnceLock<Arc<dyn Inode>>,
    /// Who opened the master.
    owner: OnceLock<u32>,
    /// Mode and owner that its inode had before a restore.
    looks: Option<saved::Looks>,
    /// Who waits for the slave's side.
    slave_queue: WaitQueue,
    /// Who waits for the master's side.
    master_queue: WaitQueue,
}

/// All ptys of a container, by index.
pub struct Ptys {
    open: Mutex<BTreeMap<u32, Arc<Tty>>>,
}

impl Default for Ptys {
    fn default() -> Self {
        Ptys { open: Mutex::new(Level::Leaf, BTreeMap::new()) }
    }
}

impl Ptys {
    /// A new pair, locked, its master open; found by its index until the master is closed.
    ///
    /// # Errors
    /// `ENOSPC` at the limit.
    pub fn allocate(self: &Arc<Self>, kernel: &Arc<Kernel>) -> Result<Arc<Tty>, Errno> {
        let mut ptys = self.open.lock();
        let index = (0..PTY_LIMIT).find(|i| !ptys.contains_key(i)).ok_or(Errno::ENOSPC)?;
        let tty = Tty::new(index, Arc::downgrade(kernel), Arc::downgrade(self));
        ptys.insert(index, tty.clone());
        Ok(tty)
    }

    /// The pty with this index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Arc<Tty>> {
        self.open.lock().get(&index).cloned()
    }

    /// The indices in use, ascending.
    #[must_use]
    pub fn indices(&self) -> Vec<u32> {
        self.open.lock().keys().copied().collect()
    }

    fn remove(&self, index: u32) {
        let removed = self.open.lock().remove(&index);
        drop(removed);
    }
}

impl Tty {
    fn new(index: u32, kernel: Weak<Kernel>, home: Weak<Ptys>) -> Arc<Self> {
        Arc::new_cyclic(|me| Tty {
            index,
            me: me.clone(),
            kernel,
            home,
            state: Mutex::new(Level::File, State::new()),
            node: OnceLock::new(),
            owner: OnceLock::new(),
            looks: None,
            slave_queue: WaitQueue::new(),
            master_queue: WaitQueue::new(),
        })
    }

    /// Changes the state, then, without the lock, wakes and signals whom that concerns.
    fn with<R>(&self, change: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let mut fx = Effects::default();
        let answer = change(&mut self.state.lock(), &mut fx);
        if !fx.signals.is_empty()
            && let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade())
        {
            fx.signals.iter().for_each(|signo| job::signal_foreground(&kernel, &me, *signo));
        }
        if !fx.slave.is_empty() {
            self.slave_queue.wake(fx.slave);
        }
        if !fx.master.is_empty() {
            self.master_queue.wake(fx.master);
        }
        answer
    }

    /// Its inode in devpts; `make` makes it at the first call.
    fn node(&self, make: impl FnOnce() -> Arc<dyn Inode>) -> Arc<dyn Inode> {
        self.node.get_or_init(make).clone()
    }

    /// Who opened the master, if that is known.
    fn owner(&self) -> Option<u32> {
        self.owner.get().copied()
    }

    /// The device number of the slave, `makedev(136, index)`.
    #[must_use]
    pub fn device(&self) -> u64 {
        let minor = u64::from(self.index);
        (PTS_MAJOR << 8) | (minor & 0xff) | ((minor & !0xff) << 12)
    }

    /// Bytes are typed: the master writes. Answers how many were taken.
    ///
    /// # Errors
    /// `EAGAIN` where none were; `EFAULT`.
    pub fn type_in(&self, src: &mut IoSource<'_>) -> Result<usize, Errno> {
        let mut total = 0;
        while src.remaining() > 0 {
            let mut chunk = [0u8; 512];
            let n = match src.peek(&mut chunk) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(e) => return Err(e),
            };
            let taken = self.with(|state, fx| state.receive(&chunk[..n], fx));
            src.skip(taken);
            total += taken;
            if taken < n {
                return if total > 0 { Ok(total) } else { Err(Errno::EAGAIN) };
            }
        }
        Ok(total)
    }

    /// What the master reads.
    ///
    /// # Errors
    /// `EAGAIN`; `EIO` where the slave was closed and all is read; `EFAULT`.
    pub fn read_master(&self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        self.with(|state, fx| state.read_master(dst, fx))
    }

    /// A program writes to the slave: what fits is taken.
    ///
    /// # Errors
    /// `EAGAIN` where nothing fits; `EIO` where the master is gone; `EFAULT`.
    pub fn write_slave(&self, src: &mut IoSource<'_>) -> Result<usize, Errno> {
        let mut total = 0;
        loop {
            let mut chunk = [0u8; 2048];
            let n = match src.peek(&mut chunk) {
                Ok(n) => n,
                Err(_) if total > 0 => return Ok(total),
                Err(e) => return Err(e),
            };
            let taken = self.with(|state, fx| {
                if !state.master_open {
                    return Err(Errno::EIO);
                }
                let termios = state.termios;
                let taken = state.output.write(&chunk[..n], &termios);
                if taken > 0 {
                    fx.master |= Events::READABLE;
                }
                Ok(taken)
            });
            let taken = match taken {
                Ok(taken) => taken,
                Err(_) if total > 0 => return Ok(total),
                Err(e) => return Err(e),
            };
            src.skip(taken);
            total += taken;
            if src.remaining() == 0 {
                return Ok(total);
            }
            if taken < n {
                return if total > 0 { Ok(total) } else { Err(Errno::EAGAIN) };
            }
        }
    }

    /// Sets the window size; tells the foreground process group where it changed.
    pub fn resize(&self, size: WinSize) {
        self.with(|state, fx| {
            if state.size != size {
                state.size = size;
                fx.signals.push(libc::SIGWINCH);
            }
        });
    }

    /// Files of the slave that are open now die: they read nothing, and writing is `EIO`.
    pub fn kill_slaves(&self) {
        self.with(|state, fx| {
            state.hangups = state.hangups.wrapping_add(1);
            (fx.slave, fx.master) = (Events::all(), Events::all());
        });
    }

    /// The master was closed: the terminal hangs up for good.
    fn master_closed(&self) {
        self.with(|state, fx| {
            state.master_open = false;
            state.hangups = state.hangups.wrapping_add(1);
            state.input.clear();
            state.output.clear();
            fx.slave = Events::all();
        });
        if let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade()) {
            job::hung_up(&kernel, &me);
        }
        if let Some(home) = self.home.upgrade() {
            home.remove(self.index);
        }
    }

    /// The host's terminal behind a console has gone: programs see end of file and SIGHUP.
    pub fn hang_up(&self) {
        self.kill_slaves();
        if let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade()) {
            job::hung_up(&kernel, &me);
        }
    }
}
