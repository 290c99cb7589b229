//! Inodes: attributes, and where the data is.

use zerocopy::little_endian::U16;

use crate::format::{
    self, BLOCK_SIZE, CHUNK_BITS_MASK, CHUNK_INDEXES, CompactInode, ExtendedInode, SLOT_SIZE, layout, xattr_ibody_size,
};
use crate::{Error, Reader, Result};

/// File types, with the numbers of a directory entry's `file_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileType {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A character device.
    CharDevice = 3,
    /// A block device.
    BlockDevice = 4,
    /// A named pipe.
    Fifo = 5,
    /// A Unix socket's name.
    Socket = 6,
    /// A symbolic link.
    Symlink = 7,
}

impl FileType {
    /// From the type bits of a mode (`S_IFMT`).
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o120_000 => Self::Symlink,
            _ => return None,
        })
    }

    /// From a directory entry's `file_type`.
    pub fn from_dirent(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }

    fn has_data(self) -> bool {
        matches!(self, Self::Regular | Self::Directory | Self::Symlink)
    }
}

/// Where an inode's data is. Offsets are bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing: devices, FIFOs, sockets, empty files.
    None,
    /// `ceil(size / 4096)` blocks from `start`.
    Plain { start: u64 },
    /// Whole blocks from `start`, and the last 1 to 4096 bytes at `tail`.
    Inline { start: u64, tail: u64 },
    /// A table at `table`; chunks are `1 << bits` bytes.
    Chunked { table: u64, bits: u32, indexes: bool },
}

/// An inode, parsed; a small copyable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Node id: names the inode within its image. The kernel shows it as the inode number.
    pub nid: u64,
    /// Type and permission bits, as `st_mode`.
    pub mode: u16,
    /// File type, from the mode.
    pub file_type: FileType,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u32,
    /// Size in bytes; at most `i64::MAX`.
    pub size: u64,
    /// Modification time, seconds since the epoch.
    pub mtime_sec: i64,
    /// Modification time, nanoseconds below one second.
    pub mtime_nsec: u32,
    /// Device number of device files: (major, minor).
    pub rdev: (u32, u32),
    /// The 32-bit inode number that the builder recorded.
    pub ino: u32,
    pub(crate) layout: Layout,
    /// Byte offset and length of the xattrs behind the inode.
    pub(crate) xattrs: (u64, u64),
}

/// The fields that both inode forms have.
struct Fields {
    inode: Inode,
    xattr_icount: u16,
    header: u64,
    u: u32,
}

impl<'a> Reader<'a> {
    /// The root directory.
    pub fn root(&self) -> Result<Inode> {
        let root = self.inode(self.superblock().root_nid)?;
        if root.file_type == FileType::Directory { Ok(root) } else { Err(Error::NotADirectory(root.nid)) }
    }

    /// Reads the inode `nid`. On success, all its blocks (or its chunk table) and xattrs lie inside the image.
    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let base = u64::from(self.superblock().meta_block) * BLOCK_SIZE;
        let offset = nid.checked_mul(SLOT_SIZE).and_then(|slot| slot.checked_add(base)).ok_or(Error::OutOfBounds {
            what: "inode",
            offset: u64::MAX,
            len: SLOT_SIZE,
        })?;
        let format = self.structure::<U16>(offset, "inode")?.get();
        if format & !0xf != 0 {
            return Err(Error::Corrupt { nid, what: "unknown inode format bits" });
        }
        let Fields { mut inode, xattr_icount, header, u } =
            if format & 1 == 0 { self.compact(nid, offset)? } else { self.extended(nid, offset)? };
        let xattr_size = xattr_ibody_size(xattr_icount);
        // `range` has checked that the header's end does not overflow.
        inode.xattrs = (offset + header, xattr_size);
        self.range(offset + header, xattr_size, "extended attributes of an inode")?;
        if inode.size > i64::MAX as u64 {
            return Err(Error::Corrupt { nid, what: "size above the largest file offset" });
        }
        if inode.mtime_nsec >= 1_000_000_000 {
            return Err(Error::Corrupt { nid, what: "nanoseconds above one second" });
        }
        inode.layout = self.layout(&inode, format >> 1, offset + header + xattr_size, u)?;
        if matches!(inode.file_type, FileType::CharDevice | FileType::BlockDevice) {
            inode.rdev = decode_dev(u);
        }
        Ok(inode)
    }

    fn compact(&self, nid: u64, offset: u64) -> Result<Fields> {
        let raw: CompactInode = self.structure(offset, "inode")?;
        let sb = self.superblock();
        let inode = Inode {
            nid,
            mode: raw.mode.get(),
            file_type: file_type(nid, raw.mode.get())?,
            uid: u32::from(raw.uid.get()),
            gid: u32::from(raw.gid.get()),
            nlink: u32::from(raw.nlink.get()),
            size: u64::from(raw.size.get()),
            mtime_sec: sb.epoch.wrapping_add(u64::from(raw.mtime.get())).cast_signed(),
            mtime_nsec: sb.epoch_nsec,
            rdev: (0, 0),
            ino: raw.ino.get(),
            layout: Layout::None,
            xattrs: (0, 0),
        };
        Ok(Fields { inode, xattr_icount: raw.xattr_icount.get(), header: 32, u: raw.u.get() })
    }

    fn extended(&self, nid: u64, offset: u64) -> Result<Fields> {
        let raw: ExtendedInode = self.structure(offset, "inode")?;
        let inode = Inode {
            nid,
            mode: raw.mode.get(),
            file_type: file_type(nid, raw.mode.get())?,
            uid: raw.uid.get(),
            gid: raw.gid.get(),
            nlink: raw.nlink.get(),
            size: raw.size.get(),
            mtime_sec: raw.mtime.get().cast_signed(),
            mtime_nsec: raw.mtime_nsec.get(),
            rdev: (0, 0),
            ino: raw.ino.get(),
            layout: Layout::None,
            xattrs: (0, 0),
        };
        Ok(Fields { inode, xattr_icount: raw.xattr_icount.get(), header: 64, u: raw.u.get() })
    }

    /// Works out where the data is and checks that it is inside the image. `end` is the byte behind header and xattrs.
    fn layout(&self, inode: &Inode, layout: u16, end: u64, u: u32) -> Result<Layout> {
        let (nid, size) = (inode.nid, inode.size);
        if matches!(layout, layout::COMPRESSED_FULL | layout::COMPRESSED_COMPACT) {
            return Err(Error::Unsupported("compression"));
        }
        if !inode.file_type.has_data() || size == 0 {
            return Ok(Layout::None);
        }
        let start = u64::from(u) * BLOCK_SIZE;
        match layout {
            layout::FLAT_PLAIN => {
                self.range(start, blocks(size) * BLOCK_SIZE, "file data")?;
                Ok(Layout::Plain { start })
            }
            layout::FLAT_INLINE => {
                let whole = (blocks(size) - 1) * BLOCK_SIZE;
                let tail_len = size - whole;
                if end % BLOCK_SIZE + tail_len > BLOCK_SIZE {
                    return Err(Error::Corrupt { nid, what: "inline data crosses a block boundary" });
                }
                self.range(end, tail_len, "inline data")?;
                if whole > 0 {
                    self.range(start, whole, "file data")?;
                }
                Ok(Layout::Inline { start, tail: end })
            }
            layout::CHUNK_BASED => self.chunked(inode, end, u),
            _ => Err(Error::Corrupt { nid, what: "unknown data layout" }),
        }
    }

    fn chunked(&self, inode: &Inode, end: u64, u: u32) -> Result<Layout> {
        // The low half is the chunk format, the high half is reserved.
        let format = (u & 0xffff) as u16;
        if format & !(CHUNK_BITS_MASK | CHUNK_INDEXES) != 0 {
            return Err(Error::Corrupt { nid: inode.nid, what: "unknown chunk format bits" });
        }
        let bits = u32::from(format::BLOCK_BITS) + u32::from(format & CHUNK_BITS_MASK);
        let indexes = format & CHUNK_INDEXES != 0;
        let unit: u64 = if indexes { 8 } else { 4 };
        let table = end.next_multiple_of(unit);
        // size <= i64::MAX and bits >= 12, so neither the count nor the product overflows.
        let count = ((inode.size - 1) >> bits) + 1;
        self.range(table, count * unit, "chunk table")?;
        Ok(Layout::Chunked { table, bits, indexes })
    }
}

impl Inode {
    /// `st_blocks`: units of 512 bytes, counted from the size like the kernel does for EROFS.
    pub fn blocks_512(&self) -> u64 {
        blocks(self.size) * (BLOCK_SIZE / 512)
    }

    /// Bytes of the chunk table, 0 without one.
    pub(crate) fn table_size(&self) -> u64 {
        match self.layout {
            Layout::Chunked { bits, indexes, .. } => self.size.div_ceil(1 << bits) * if indexes { 8 } else { 4 },
            _ => 0,
        }
    }
}

/// Blocks that `size` bytes need; `size` is at most `i64::MAX`.
pub(crate) fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK_SIZE)
}

fn file_type(nid: u64, mode: u16) -> Result<FileType> {
    FileType::from_mode(mode).ok_or(Error::Corrupt { nid, what: "mode without a known file type" })
}

/// Linux's `new_decode_dev`.
fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xf_ff00) >> 8, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))
}

/// Linux's `new_encode_dev`; `None` when the numbers do not fit (12 bits of major, 20 of minor).
pub(crate) fn encode_dev(major: u64, minor: u64) -> Option<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    u32::try_from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (4, 64), (8, 0xf_ffff), (0xfff, 256), (0xfff, 0xf_ffff)] {
            let encoded = encode_dev(u64::from(major), u64::from(minor)).unwrap();
            assert_eq!(decode_dev(encoded), (major, minor));
        }
        assert_eq!(encode_dev(1 << 12, 0), None);
        assert_eq!(encode_dev(0, 1 << 20), None);
    }
}
