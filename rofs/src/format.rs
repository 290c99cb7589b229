//! The on-disk structures of uncompressed EROFS, little endian (`fs/erofs/erofs_fs.h`).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte offset of the superblock.
pub const SUPER_OFFSET: u64 = 1024;
/// `EROFS_SUPER_MAGIC_V1`.
pub const MAGIC: u32 = 0xe0f5_e1e2;
/// The only block size served: one x86 page.
pub const BLOCK_SIZE: u64 = 4096;
/// log2 of [`BLOCK_SIZE`].
pub const BLOCK_BITS: u8 = 12;
/// An inode starts at a multiple of this; a nid counts these slots from the metadata area's start.
pub const SLOT_SIZE: u64 = 32;
/// The longest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// The longest symbolic link: a page less its terminator.
pub const SYMLINK_MAX: u64 = 4095;
/// A block address that stands for a hole (`EROFS_NULL_ADDR`).
pub const NULL_BLOCK: u32 = u32::MAX;

/// Compatible features.
pub mod compat {
    /// The superblock carries a CRC32C.
    pub const SB_CHKSUM: u32 = 1;
    /// Inode times are modification times.
    pub const MTIME: u32 = 2;
}

/// Incompatible features, by the names Linux gives them.
pub mod incompat {
    /// Compressed data is padded at its front; says nothing of uncompressed data.
    pub const ZERO_PADDING: u32 = 0x1;
    /// Compression configurations follow the superblock.
    pub const COMPR_CFGS: u32 = 0x2;
    /// Some files are chunk-based.
    pub const CHUNKED_FILE: u32 = 0x4;
    /// More than one device (or a second compression head).
    pub const DEVICE_TABLE: u32 = 0x8;
    /// Compressed tails inline.
    pub const ZTAILPACKING: u32 = 0x10;
    /// Fragments or deduplicated compressed data.
    pub const FRAGMENTS: u32 = 0x20;
    /// Long xattr name prefixes.
    pub const XATTR_PREFIXES: u32 = 0x40;
    /// 48-bit block addresses.
    pub const ADDR_48BIT: u32 = 0x80;
    /// Metadata inside an inode.
    pub const METABOX: u32 = 0x100;
}

/// Data layouts (`i_format` bits 1 to 3).
pub mod layout {
    /// Consecutive blocks.
    pub const FLAT_PLAIN: u16 = 0;
    /// Compressed, full indexes.
    pub const COMPRESSED_FULL: u16 = 1;
    /// Consecutive blocks, the last one inline behind the inode.
    pub const FLAT_INLINE: u16 = 2;
    /// Compressed, compact indexes.
    pub const COMPRESSED_COMPACT: u16 = 3;
    /// A table of chunk addresses behind the inode.
    pub const CHUNK_BASED: u16 = 4;
}

/// Chunk format: low five bits are log2(chunk blocks).
pub const CHUNK_BITS_MASK: u16 = 0x1f;
/// Chunk format: the table holds 8-byte [`ChunkIndex`]es instead of 4-byte block addresses.
pub const CHUNK_INDEXES: u16 = 0x20;

/// The superblock.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct RawSuperBlock {
    pub magic: U32,
    pub checksum: U32,
    pub feature_compat: U32,
    pub blkszbits: u8,
    pub sb_extslots: u8,
    pub root_nid: U16,
    pub inos: U64,
    pub epoch: U64,
    pub fixed_nsec: U32,
    pub blocks: U32,
    pub meta_blkaddr: U32,
    pub xattr_blkaddr: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub feature_incompat: U32,
    pub available_compr_algs: U16,
    pub extra_devices: U16,
    pub devt_slotoff: U16,
    pub dirblkbits: u8,
    pub xattr_prefix_count: u8,
    pub xattr_prefix_start: U32,
    pub packed_nid: U64,
    pub reserved: [u8; 24],
}

/// A 32-byte inode.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct CompactInode {
    pub format: U16,
    pub xattr_icount: U16,
    pub mode: U16,
    pub nlink: U16,
    pub size: U32,
    pub mtime: U32,
    pub u: U32,
    pub ino: U32,
    pub uid: U16,
    pub gid: U16,
    pub reserved: U32,
}

/// A 64-byte inode.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct ExtendedInode {
    pub format: U16,
    pub xattr_icount: U16,
    pub mode: U16,
    pub reserved: U16,
    pub size: U64,
    pub u: U32,
    pub ino: U32,
    pub uid: U32,
    pub gid: U32,
    pub mtime: U64,
    pub mtime_nsec: U32,
    pub nlink: U32,
    pub reserved2: [u8; 16],
}

/// Head of the xattrs that follow an inode; 4-byte ids of shared xattrs come next, then inline entries.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct XattrHeader {
    pub name_filter: U32,
    pub shared_count: u8,
    pub reserved: [u8; 7],
}

/// An extended attribute, inline or shared; its name (without prefix) and value follow, padded to 4 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct XattrEntry {
    pub name_len: u8,
    pub name_index: u8,
    pub value_size: U16,
}

/// A directory entry; the name is at `nameoff` of the same block and ends where the next one starts.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct Dirent {
    pub nid: U64,
    pub nameoff: U16,
    pub file_type: u8,
    pub reserved: u8,
}

/// The 8-byte form of a chunk address.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's names; erofs_fs.h describes them")]
pub struct ChunkIndex {
    pub startblk_hi: U16,
    pub device_id: U16,
    pub blkaddr: U32,
}

/// Bytes of a [`Dirent`].
pub const DIRENT_SIZE: usize = size_of::<Dirent>();
/// Bytes of an [`XattrHeader`].
pub const XATTR_HEADER_SIZE: u64 = size_of::<XattrHeader>() as u64;

/// Name prefixes of extended attributes by `name_index` (`EROFS_XATTR_INDEX_*`); unlisted ones are not served.
pub const XATTR_PREFIXES: [(u8, &str); 5] =
    [(1, "user."), (2, "system.posix_acl_access"), (3, "system.posix_acl_default"), (4, "trusted."), (6, "security.")];

/// Bytes that `icount` (an inode's `xattr_icount`) stands for.
pub fn xattr_ibody_size(icount: u16) -> u64 {
    if icount == 0 { 0 } else { XATTR_HEADER_SIZE + 4 * (u64::from(icount) - 1) }
}

const _: () = {
    assert!(size_of::<RawSuperBlock>() == 128);
    assert!(size_of::<CompactInode>() == 32);
    assert!(size_of::<ExtendedInode>() == 64);
    assert!(size_of::<XattrHeader>() == 12);
    assert!(size_of::<XattrEntry>() == 4);
    assert!(size_of::<Dirent>() == 12);
    assert!(size_of::<ChunkIndex>() == 8);
};
