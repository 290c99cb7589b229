//! null, zero, full, random, urandom (`mem(4)`, `random(4)`).

use std::any::Any;
use std::sync::Arc;

use abi::Errno;

use super::Device;
use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::mm::mappable::Mappable;
use crate::vfs::{Caller, FileDescription, FileOps, IoSink, IoSource, OpenFlags, Whence};

/// Major number of memory devices.
pub(super) const MAJOR: u64 = 1;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

/// The driver of major 1.
pub(super) struct MemDevice;

impl Device for MemDevice {
    fn open(&self, _caller: &Caller<'_>, rdev: u64, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let kind = match nix::sys::stat::minor(rdev) {
            3 => Kind::Null,
            5 => Kind::Zero,
            7 => Kind::Full,
            8 | 9 => Kind::Random,
            _ => return Err(Errno::ENXIO),
        };
        Ok(Arc::new(MemDeviceFile { kind }))
    }
}

struct MemDeviceFile {
    kind: Kind,
}

/// Random bytes from the host, in pieces that `getrandom(2)` gives whole.
fn put_random(dst: &mut IoSink<'_>) -> Result<usize, Errno> {
    let mut done = 0;
    let mut chunk = [0u8; 256];
    while dst.remaining() > 0 {
        let n = dst.remaining().min(chunk.len());
        let piece = chunk.get_mut(..n).unwrap_or_default();
        crate::kernel::random::fill(piece);
        match dst.put(piece) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
        }
    }
    Ok(done)
}

/// Takes all of `src` without keeping it.
fn swallow(src: &mut IoSource<'_>) -> Result<usize, Errno> {
    let mut done = 0;
    let mut chunk = [0u8; 1024];
    loop {
        match src.take(&mut chunk) {
            Ok(0) => return Ok(done),
            Ok(n) => done += n,
            Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
        }
    }
}

impl FileOps for MemDeviceFile {
    fn save(&self, file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        OpsState::device(file)
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        match self.kind {
            Kind::Null => Ok(0),
            Kind::Zero | Kind::Full => dst.put_zeros(dst.remaining()),
            Kind::Random => put_random(dst),
        }
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        match self.kind {
            // Not even looked at (write_null).
            Kind::Null | Kind::Zero => {
                let n = src.remaining();
                src.skip(n);
                Ok(n)
            }
            Kind::Full => Err(Errno::ENOSPC),
            Kind::Random => swallow(src),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn seek(&self, _file: &FileDescription, current: u64, offset: i64, whence: Whence) -> Result<u64, Errno> {
        match self.kind {
            // null_lseek: always at the start.
            Kind::Null | Kind::Zero | Kind::Full => Ok(0),
            Kind::Random => match whence {
                Whence::Set => u64::try_from(offset).map_err(|_| Errno::EINVAL),
                Whence::Current => current.checked_add_signed(offset).ok_or(Errno::EINVAL),
                _ => Err(Errno::EINVAL),
            },
        }
    }

    fn mappable(&self, _file: &FileDescription) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENODEV)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
