//! Renames: names move, nodes stay. A lower directory moves like any other, because its node carries what lies below.

use std::sync::Arc;

use abi::Errno;

use super::{Node, touch_now};
use crate::vfs::rename::{EXCHANGE, NOREPLACE};
use crate::vfs::{Caller, FileType};

impl Node {
    /// Moves `name` to `new_name` in `new_dir`. The caller holds the tree.
    pub(super) fn rename_to(
        &self,
        caller: &Caller<'_>,
        name: &[u8],
        new_dir: &Node,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let source = self.find(caller, name)?;
        let target = match new_dir.find(caller, new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        // All that may have to wait comes before the first change.
        for node in [self, new_dir, source.as_ref()].into_iter().chain(target.as_deref()) {
            node.own_meta()?;
        }
        source.keep_by_key();
        if flags & EXCHANGE != 0 {
            let target = target.ok_or(Errno::ENOENT)?;
            target.keep_by_key();
            new_dir.put_entry(caller, new_name, source.clone());
            self.put_entry(caller, name, target.clone());
            self.moved(new_dir, &source);
            new_dir.moved(self, &target);
        } else {
            if let Some(target) = &target {
                if flags & NOREPLACE != 0 {
                    return Err(Errno::EEXIST);
                }
                if Arc::ptr_eq(target, &source) {
                    return Ok(());
                }
                replaceable(caller, &source, target)?;
            }
            new_dir.put_entry(caller, new_name, source.clone());
            self.remove_entry(caller, name);
            self.moved(new_dir, &source);
            if let Some(target) = target {
                target.unlinked();
                if target.kind == FileType::Directory {
                    new_dir.meta_mut(|m| m.nlink = m.nlink.saturating_sub(1));
                }
            }
        }
        self.touch_dir();
        new_dir.touch_dir();
        Ok(())
    }

    /// Notes that `node` went from here to `to`.
    fn moved(&self, to: &Node, node: &Node) {
        node.meta_mut(|m| touch_now(&mut [&mut m.ctime]));
        if node.kind == FileType::Directory && !std::ptr::eq(self, to) {
            self.keep_by_key();
            to.keep_by_key();
            self.meta_mut(|m| m.nlink = m.nlink.saturating_sub(1));
            to.meta_mut(|m| m.nlink = m.nlink.saturating_add(1));
        }
    }
}

fn replaceable(caller: &Caller<'_>, source: &Node, target: &Node) -> Result<(), Errno> {
    match (source.kind == FileType::Directory, target.kind == FileType::Directory) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        (true, true) if !target.is_empty_dir(caller)? => Err(Errno::ENOTEMPTY),
        _ => Ok(()),
    }
}
