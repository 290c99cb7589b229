//! The protocol's types and ours.

use abi::Timespec;
use gofer_proto::message::{Change, Kind, Time};
use nix::sys::stat::FileStat;

use crate::vfs::{Attr, FileType, InodeKey, SetAttr, StatFs};

pub fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::Regular,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

/// The type for a request that makes a node.
pub fn host_kind(kind: FileType) -> Kind {
    match kind {
        FileType::Regular => Kind::Regular,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    }
}

fn time(t: Time) -> Timespec {
    Timespec { sec: t.sec, nsec: i64::from(t.nsec) }
}

/// `attr` as the guest's inode `key` shows it.
pub fn attr(attr: &gofer_proto::Attr, key: InodeKey) -> Attr {
    Attr {
        key,
        kind: kind(attr.kind),
        perm: attr.perm & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        blocks: attr.blocks,
        blksize: attr.blksize,
        rdev: attr.rdev,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
    }
}

/// Brings `attr` to what `fstat` of its own host file says.
pub fn refresh(attr: &mut Attr, stat: &FileStat) {
    let time = |sec, nsec| Timespec { sec, nsec };
    attr.perm = stat.st_mode & 0o7777;
    attr.nlink = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
    attr.size = stat.st_size.max(0).cast_unsigned();
    attr.blocks = stat.st_blocks.max(0).cast_unsigned();
    attr.atime = time(stat.st_atime, stat.st_atime_nsec);
    attr.mtime = time(stat.st_mtime, stat.st_mtime_nsec);
    attr.ctime = time(stat.st_ctime, stat.st_ctime_nsec);
}

pub fn change(change: &SetAttr) -> Change {
    let time = |t: Timespec| Time { sec: t.sec, nsec: u32::try_from(t.nsec).unwrap_or(0) };
    Change {
        perm: change.perm,
        uid: change.uid,
        gid: change.gid,
        size: change.size,
        atime: change.atime.map(time),
        mtime: change.mtime.map(time),
    }
}

pub fn statfs(stat: &gofer_proto::StatFs) -> StatFs {
    StatFs {
        magic: stat.magic,
        bsize: stat.bsize,
        blocks: stat.blocks,
        files: stat.files,
        namelen: stat.namelen,
        flags: 0,
    }
}
