//! `/dev/ptmx`, `/dev/tty`, `/dev/console` and `/dev/pts/N` as devices.

use std::sync::{Arc, Weak};

use abi::Errno;

use crate::fs::dev::Device;
use crate::fs::tty::{MasterFile, PTS_MAJOR, Ptys, SlaveFile, Tty, job};
use crate::kernel::Kernel;
use crate::vfs::{Caller, FileOps, OpenFlags};

const CAP_SYS_ADMIN: u32 = 21;
/// TTYAUX_MAJOR.
const TTYAUX_MAJOR: u64 = 5;

struct TtyDevice(Weak<Kernel>);

/// Registers the drivers of all terminals.
pub fn register(kernel: &Arc<Kernel>) {
    let driver = Arc::new(TtyDevice(Arc::downgrade(kernel)));
    kernel.devices.register(TTYAUX_MAJOR, None, driver.clone());
    kernel.devices.register(PTS_MAJOR, None, driver);
}

/// Opens the slave of `tty` for `caller`; a session leader without a terminal gets it, unless O_NOCTTY.
///
/// # Errors
/// As [`SlaveFile::open`].
pub fn open_slave(caller: &Caller<'_>, tty: &Arc<Tty>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
    let file = SlaveFile::open(tty, caller.creds.has_cap(CAP_SYS_ADMIN))?;
    if let Some(task) = caller.task.filter(|_| !flags.contains(OpenFlags::NOCTTY) && flags.readable()) {
        // Whoever does not lead a session, or has one already, just opens it.
        let _ = job::acquire(task, tty, false);
    }
    Ok(Arc::new(file))
}

/// The ptys that the caller can see.
fn ptys<'a>(caller: &Caller<'a>) -> Result<&'a Arc<Ptys>, Errno> {
    caller.task.map(|task| &task.container().ptys).ok_or(Errno::ENXIO)
}

impl Device for TtyDevice {
    fn open(&self, caller: &Caller<'_>, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let kernel = self.0.upgrade().ok_or(Errno::ENXIO)?;
        let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
        match (major, minor) {
            (TTYAUX_MAJOR, 0) => {
                let tty = caller.task.and_then(|task| job::controlling(task)).ok_or(Errno::ENXIO)?;
                open_slave(caller, &tty, flags | OpenFlags::NOCTTY)
            }
            (TTYAUX_MAJOR, 1) => {
                let tty = caller.task.and_then(|task| task.container().terminal()).ok_or(Errno::ENXIO)?;
                open_slave(caller, &tty, flags | OpenFlags::NOCTTY)
            }
            (TTYAUX_MAJOR, 2) => Ok(Arc::new(MasterFile::open(&kernel, ptys(caller)?, caller.creds.fsuid())?)),
            (PTS_MAJOR, index) => {
                let tty = u32::try_from(index).ok().and_then(|i| ptys(caller).ok()?.get(i)).ok_or(Errno::EIO)?;
                open_slave(caller, &tty, flags)
            }
            _ => Err(Errno::ENXIO),
        }
    }
}
