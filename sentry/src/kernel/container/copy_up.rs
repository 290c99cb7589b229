//! What lay at a place goes into the tmpfs that is to cover it (runc's `tmpcopyup`).

use std::sync::Arc;

use abi::Errno;

use crate::kernel::Kernel;
use crate::vfs::open::{OpenHow, Opened, open};
use crate::vfs::{
    Caller, FileDescription, FileType, Inode, IoSink, IoSource, NewNode, OpenFlags, PathRef, SetAttr, change,
};

/// Bytes copied at once.
const CHUNK: usize = 64 << 10;

/// Copies what lies below the directory `from` to `to`, with owners and modes.
///
/// # Errors
/// `ENOSPC` where the tmpfs is too small; what reading says.
pub fn copy(kernel: &Kernel, from: &PathRef, to: &PathRef) -> Result<(), Errno> {
    let (source, target) = (Caller::kernel(&kernel.vfs, from.clone()), Caller::kernel(&kernel.vfs, to.clone()));
    let own = from.inode().attr();
    to.inode().set_attr(&SetAttr {
        perm: Some(own.perm),
        uid: Some(own.uid),
        gid: Some(own.gid),
        ..SetAttr::default()
    })?;
    let mut next: Vec<(Vec<u8>, Arc<dyn Inode>)> = vec![(Vec::new(), from.inode().clone())];
    while let Some((path, dir)) = next.pop() {
        let Some(ops) = dir.dir() else { continue };
        let mut names = Vec::new();
        ops.list(&source, 0, &mut |entry| {
            names.push(entry.name);
            true
        })?;
        for name in names {
            let inode = ops.lookup(&source, &name)?;
            let path = [&path, b"/".as_slice(), &name].concat();
            copy_one(kernel, (&source, &target), &path, &inode)?;
            if inode.attr().kind == FileType::Directory {
                next.push((path, inode));
            }
        }
    }
    Ok(())
}

fn copy_one(
    kernel: &Kernel,
    (source, target): (&Caller<'_>, &Caller<'_>),
    path: &[u8],
    inode: &Arc<dyn Inode>,
) -> Result<(), Errno> {
    let attr = inode.attr();
    let link = if attr.kind == FileType::Symlink { inode.readlink(source)? } else { Vec::new() };
    let fill = |node: &mut NewNode| {
        (node.uid, node.gid, node.rdev, node.target) = (attr.uid, attr.gid, attr.rdev, link);
        Ok(())
    };
    change::make(target, target.root.clone(), path, attr.kind, attr.perm, fill)?;
    if attr.kind != FileType::Regular {
        return Ok(());
    }
    let from = file(kernel, source, path, OpenFlags::empty())?;
    let to = file(kernel, target, path, OpenFlags::WRONLY)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut IoSink::kernel(&mut chunk))?;
        let Some(bytes) = chunk.get(..n).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if to.write(&mut IoSource::kernel(bytes))? < n {
            return Err(Errno::ENOSPC);
        }
    }
}

fn file(kernel: &Kernel, caller: &Caller<'_>, path: &[u8], flags: OpenFlags) -> Result<Arc<FileDescription>, Errno> {
    let how = OpenHow { flags: flags | OpenFlags::NOFOLLOW, ..OpenHow::default() };
    match open(caller, &kernel.devices, caller.root.clone(), path, how)? {
        Opened::File(file) => Ok(file),
        Opened::Fifo(..) => Err(Errno::EINVAL),
    }
}
