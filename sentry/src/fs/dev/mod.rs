//! Device special files: who serves which device number, and the devices of `mem(4)`.

mod mem;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;

use crate::sync::{Level, RwLock};
use crate::vfs::{Attr, Caller, FileOps, FileType, OpenFlags};

pub use tree::populate;

/// A driver.
pub trait Device: Send + Sync {
    /// Opens the device with number `rdev` (`makedev(3)`).
    ///
    /// # Errors
    /// `ENXIO` where there is no such device; what the driver says.
    fn open(&self, caller: &Caller<'_>, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno>;
}

/// A major number, and a minor one where not all of them.
type Numbers = (u64, Option<u64>);

/// Drivers of character devices, by major number, or major and minor.
pub struct DeviceRegistry {
    drivers: RwLock<HashMap<Numbers, Arc<dyn Device>>>,
}

impl Default for DeviceRegistry {
    /// A registry with the devices of `mem(4)`.
    fn default() -> Self {
        let registry = DeviceRegistry { drivers: RwLock::new(Level::Leaf, HashMap::new()) };
        registry.register(mem::MAJOR, None, Arc::new(mem::MemDevice));
        registry
    }
}

impl DeviceRegistry {
    /// Lets `driver` serve a number, or all of a major number that have no driver of their own.
    pub fn register(&self, major: u64, minor: Option<u64>, driver: Arc<dyn Device>) {
        let old = self.drivers.write().insert((major, minor), driver);
        drop(old);
    }

    /// Opens the device inode with these attributes.
    ///
    /// # Errors
    /// `ENXIO` where nobody serves it.
    pub fn open(&self, caller: &Caller<'_>, attr: &Attr, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        if attr.kind != FileType::CharDevice {
            return Err(Errno::ENXIO);
        }
        let (major, minor) = (nix::sys::stat::major(attr.rdev), nix::sys::stat::minor(attr.rdev));
        let driver = {
            let drivers = self.drivers.read();
            drivers.get(&(major, Some(minor))).or_else(|| drivers.get(&(major, None))).cloned()
        };
        driver.ok_or(Errno::ENXIO)?.open(caller, attr.rdev, flags)
    }
}
