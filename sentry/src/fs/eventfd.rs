//! `eventfd(2)`: a counter to wait on.

use std::sync::Arc;

use abi::Errno;

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FileDescription, FileOps, IoSink, IoSource, OpenFlags};

/// An eventfd.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

impl EventFd {
    /// One with this count, as it was saved.
    #[must_use]
    pub fn restored(count: u64, semaphore: bool) -> Arc<Self> {
        let count = Mutex::new(Level::File, count.min(u64::MAX - 1));
        Arc::new(EventFd { count, semaphore, queue: WaitQueue::new() })
    }

    /// A new one, as an open file.
    #[must_use]
    pub fn open(initial: u64, semaphore: bool, flags: OpenFlags) -> Arc<FileDescription> {
        let file = EventFd { count: Mutex::new(Level::File, initial), semaphore, queue: WaitQueue::new() };
        FileDescription::anonymous(Arc::new(file), flags | OpenFlags::RDWR)
    }

    /// Adds to the counter (for the kernel's own notifications, such as AIO); saturates below the maximum.
    pub fn signal(&self, add: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(add).min(u64::MAX - 1);
        drop(count);
        self.queue.wake(Events::READABLE);
    }
}

impl FileOps for EventFd {
    fn save(&self, _file: &FileDescription, _saver: &mut Saver) -> Result<OpsState, Refused> {
        let EventFd { count, semaphore, queue: _ } = self;
        Ok(OpsState::Event { count: *count.lock(), semaphore: *semaphore })
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let value = if self.semaphore { 1 } else { *count };
        // The count is consumed only once the guest has it: a fault must not lose it.
        let n = dst.put(&value.to_le_bytes())?;
        *count -= value;
        drop(count);
        self.queue.wake(Events::WRITABLE);
        Ok(n)
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        let mut raw = [0u8; 8];
        if src.peek(&mut raw)? < 8 {
            return Err(Errno::EFAULT);
        }
        let add = u64::from_le_bytes(raw);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let sum = count.checked_add(add).filter(|s| *s < u64::MAX).ok_or(Errno::EAGAIN)?;
        *count = sum;
        src.skip(8);
        drop(count);
        self.queue.wake(Events::READABLE);
        Ok(8)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        let count = *self.count.lock();
        let mut events = Events::default();
        if count > 0 {
            events |= Events::READABLE;
        }
        if count < u64::MAX - 1 {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:[eventfd]".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
