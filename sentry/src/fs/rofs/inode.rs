//! Inodes of an image.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, Timespec};

use super::RofsFs;
use super::file::RofsFile;
use crate::vfs::{
    Attr, Caller, DirEntry, DirOps, FileOps, FileType, Inode, InodeKey, OpenFlags, SetAttr, StatFs, XattrOps,
};

/// An inode of an image: a parsed copy of a few dozen bytes.
pub struct RofsInode {
    pub(super) fs: Arc<RofsFs>,
    pub(super) inode: rofs::Inode,
}

fn kind(of: rofs::FileType) -> FileType {
    match of {
        rofs::FileType::Regular => FileType::Regular,
        rofs::FileType::Directory => FileType::Directory,
        rofs::FileType::CharDevice => FileType::CharDevice,
        rofs::FileType::BlockDevice => FileType::BlockDevice,
        rofs::FileType::Fifo => FileType::Fifo,
        rofs::FileType::Socket => FileType::Socket,
        rofs::FileType::Symlink => FileType::Symlink,
    }
}

impl RofsInode {
    /// The image.
    #[must_use]
    pub fn file_system(&self) -> Arc<RofsFs> {
        self.fs.clone()
    }

    /// Its number in the image.
    #[must_use]
    pub fn nid(&self) -> u64 {
        self.inode.nid
    }

    pub(super) fn new(fs: Arc<RofsFs>, inode: rofs::Inode) -> Self {
        RofsInode { fs, inode }
    }
}

impl Inode for RofsInode {
    fn attr(&self) -> Attr {
        let i = &self.inode;
        let time = Timespec { sec: i.mtime_sec, nsec: i64::from(i.mtime_nsec) };
        Attr {
            key: InodeKey { dev: self.fs.dev, ino: i.nid },
            kind: kind(i.file_type),
            perm: u32::from(i.mode) & 0o7777,
            uid: i.uid,
            gid: i.gid,
            nlink: i.nlink,
            size: i.size,
            blocks: i.blocks_512(),
            blksize: 4096,
            rdev: nix::sys::stat::makedev(u64::from(i.rdev.0), u64::from(i.rdev.1)),
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    fn set_attr(&self, _change: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    fn dir(&self) -> Option<&dyn DirOps> {
        (self.inode.file_type == rofs::FileType::Directory).then_some(self as &dyn DirOps)
    }

    fn xattrs(&self) -> Option<&dyn XattrOps> {
        Some(self)
    }

    fn readlink(&self, _caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        match self.fs.reader()?.readlink(&self.inode) {
            Ok(target) => Ok(target.to_vec()),
            Err(rofs::Error::NotASymlink(_)) => Err(Errno::EINVAL),
            Err(e) => Err(self.fs.corrupt(&e)),
        }
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        if self.inode.file_type != rofs::FileType::Regular {
            return Err(Errno::ENXIO);
        }
        if flags.writable() { Err(Errno::EROFS) } else { Ok(Arc::new(RofsFile::new(self))) }
    }

    fn read_content(&self, offset: u64, dst: &mut [u8]) -> Result<usize, Errno> {
        self.fs.reader()?.read_at(&self.inode, offset, dst).map_err(|e| self.fs.corrupt(&e))
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl DirOps for RofsInode {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let reader = self.fs.reader()?;
        let found = reader.lookup(&self.inode, name).map_err(|e| self.fs.corrupt(&e))?.ok_or(Errno::ENOENT)?;
        let inode = reader.inode(found.nid).map_err(|e| self.fs.corrupt(&e))?;
        Ok(Arc::new(RofsInode::new(self.fs.clone(), inode)))
    }

    fn list(&self, _caller: &Caller<'_>, from: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let reader = self.fs.reader()?;
        for entry in reader.read_dir(&self.inode, from).map_err(|e| self.fs.corrupt(&e))? {
            let entry = entry.map_err(|e| self.fs.corrupt(&e))?;
            if matches!(entry.name, b"." | b"..") {
                continue;
            }
            let kind = kind(entry.file_type);
            if !emit(DirEntry { name: entry.name.to_vec(), ino: entry.nid, kind, next: entry.next }) {
                break;
            }
        }
        Ok(())
    }
}

impl XattrOps for RofsInode {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let value = self.fs.reader()?.xattr(&self.inode, name).map_err(|e| self.fs.corrupt(&e))?;
        value.map(<[u8]>::to_vec).ok_or(Errno::ENODATA)
    }

    fn list(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let xattrs = self.fs.reader()?.xattrs(&self.inode).map_err(|e| self.fs.corrupt(&e))?;
        xattrs.map(|x| x.map(|x| x.name()).map_err(|e| self.fs.corrupt(&e))).collect()
    }
}
