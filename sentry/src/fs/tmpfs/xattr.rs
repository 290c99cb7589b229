//! Extended attributes in memory.

use abi::Errno;

use super::{Node, touch_now};
use crate::vfs::{Inode, XattrOps};

/// Most bytes of names and values that one inode carries.
const MAX_BYTES: usize = 128 << 10;

impl XattrOps for Node {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let own = self.meta.lock().as_ref().map(|m| m.xattrs.get(name).cloned().ok_or(Errno::ENODATA));
        match (own, &self.lower) {
            (Some(answer), _) => answer,
            (None, Some(lower)) => lower.xattrs().ok_or(Errno::ENODATA)?.get(name),
            (None, None) => Err(Errno::ENODATA),
        }
    }

    fn list(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let own = self.meta.lock().as_ref().map(|m| m.xattrs.keys().cloned().collect());
        match (own, self.lower.as_ref().and_then(|l| Inode::xattrs(l.as_ref()))) {
            (Some(names), _) => Ok(names),
            (None, Some(lower)) => lower.list(),
            (None, None) => Ok(Vec::new()),
        }
    }

    fn set(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        if self.fs.memory.is_short(value.len() as u64) {
            return Err(Errno::ENOSPC);
        }
        self.own_meta()?;
        self.keep_by_key();
        self.meta_mut(|m| {
            let exists = m.xattrs.contains_key(name);
            if exists && flags & libc::XATTR_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            if !exists && flags & libc::XATTR_REPLACE != 0 {
                return Err(Errno::ENODATA);
            }
            let used: usize =
                m.xattrs.iter().filter(|(n, _)| n.as_slice() != name).map(|(n, v)| n.len() + v.len()).sum();
            if used + name.len() + value.len() > MAX_BYTES {
                return Err(Errno::ENOSPC);
            }
            m.xattrs.insert(name.to_vec(), value.to_vec());
            touch_now(&mut [&mut m.ctime]);
            Ok(())
        })
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.own_meta()?;
        self.keep_by_key();
        self.meta_mut(|m| {
            m.xattrs.remove(name).ok_or(Errno::ENODATA)?;
            touch_now(&mut [&mut m.ctime]);
            Ok(())
        })
    }
}
