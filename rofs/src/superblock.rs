//! The superblock, parsed and judged.

use zerocopy::FromBytes;

use crate::crc32c::crc32c;
use crate::format::{self, BLOCK_BITS, BLOCK_SIZE, RawSuperBlock, SUPER_OFFSET, compat, incompat};
use crate::{Error, Result};

/// What the superblock says, after [`SuperBlock::parse`] has accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperBlock {
    /// Node id of the root directory.
    pub root_nid: u64,
    /// Number of inodes, as recorded by who built the image.
    pub inodes: u64,
    /// Blocks of 4096 bytes in the image.
    pub blocks: u32,
    /// First block of the metadata area; nid 0 is its first slot.
    pub meta_block: u32,
    /// First block of the shared xattrs.
    pub xattr_block: u32,
    /// Modification time of compact inodes, seconds.
    pub epoch: u64,
    /// Modification time of compact inodes, nanoseconds.
    pub epoch_nsec: u32,
    /// Volume UUID. The builder derives it from the content.
    pub uuid: [u8; 16],
    /// Volume name, zero padded.
    pub volume_name: [u8; 16],
    /// Compatible feature bits.
    pub feature_compat: u32,
    /// Incompatible feature bits, all of them known and served.
    pub feature_incompat: u32,
}

impl SuperBlock {
    /// Parses and judges the superblock of `image`. Reads 128 bytes, whatever the image's size.
    pub fn parse(image: &[u8]) -> Result<Self> {
        let actual = image.len() as u64;
        let raw = raw(image)?;
        if raw.blkszbits != BLOCK_BITS {
            return Err(Error::Unsupported("a block size other than 4096 bytes"));
        }
        check_features(&raw)?;
        let expected = u64::from(raw.blocks.get()) * BLOCK_SIZE;
        if expected > actual {
            return Err(Error::Truncated { expected, actual });
        }
        Ok(Self {
            root_nid: u64::from(raw.root_nid.get()),
            inodes: raw.inos.get(),
            blocks: raw.blocks.get(),
            meta_block: raw.meta_blkaddr.get(),
            xattr_block: raw.xattr_blkaddr.get(),
            epoch: raw.epoch.get(),
            epoch_nsec: raw.fixed_nsec.get(),
            uuid: raw.uuid,
            volume_name: raw.volume_name,
            feature_compat: raw.feature_compat.get(),
            feature_incompat: raw.feature_incompat.get(),
        })
    }

    /// Bytes of the image that belong to the file system.
    pub fn image_size(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_SIZE
    }

    /// Whether the superblock carries a checksum.
    pub fn has_checksum(&self) -> bool {
        self.feature_compat & compat::SB_CHKSUM != 0
    }
}

fn raw(image: &[u8]) -> Result<RawSuperBlock> {
    let tail = image.get(SUPER_OFFSET as usize..).ok_or(Error::NotErofs)?;
    let (raw, _) = RawSuperBlock::read_from_prefix(tail).map_err(|_| Error::NotErofs)?;
    if raw.magic.get() == format::MAGIC { Ok(raw) } else { Err(Error::NotErofs) }
}

fn check_features(raw: &RawSuperBlock) -> Result<()> {
    const NAMED: [(u32, &str); 7] = [
        (incompat::COMPR_CFGS, "compression"),
        (incompat::DEVICE_TABLE, "multiple devices"),
        (incompat::ZTAILPACKING, "compression (inline tails)"),
        (incompat::FRAGMENTS, "compression (fragments or deduplication)"),
        (incompat::XATTR_PREFIXES, "long xattr name prefixes"),
        (incompat::ADDR_48BIT, "48-bit block addresses"),
        (incompat::METABOX, "metadata in an inode (metabox)"),
    ];
    let features = raw.feature_incompat.get();
    if let Some((_, name)) = NAMED.iter().find(|(bit, _)| features & bit != 0) {
        return Err(Error::Unsupported(name));
    }
    let unknown = features & !(incompat::ZERO_PADDING | incompat::CHUNKED_FILE);
    if unknown != 0 {
        return Err(Error::UnknownFeature(unknown));
    }
    if raw.extra_devices.get() != 0 {
        return Err(Error::Unsupported("multiple devices"));
    }
    if raw.dirblkbits != 0 {
        return Err(Error::Unsupported("directory blocks other than 4096 bytes"));
    }
    Ok(())
}

/// Computes the checksum of the superblock's block; the stored checksum counts as zero.
pub(crate) fn checksum(first_block: &[u8]) -> Option<u32> {
    let covered = first_block.get(SUPER_OFFSET as usize..BLOCK_SIZE as usize)?;
    let crc = crc32c(!0, covered.get(..4)?);
    let crc = crc32c(crc, &[0; 4]);
    Some(crc32c(crc, covered.get(8..)?))
}

/// Compares the stored checksum, if there is one, with the computed.
pub(crate) fn verify_checksum(image: &[u8]) -> Result<()> {
    let raw = raw(image)?;
    if raw.feature_compat.get() & compat::SB_CHKSUM == 0 {
        return Ok(());
    }
    let computed = checksum(image).ok_or(Error::Truncated { expected: BLOCK_SIZE, actual: image.len() as u64 })?;
    let stored = raw.checksum.get();
    if stored == computed { Ok(()) } else { Err(Error::Checksum { stored, computed }) }
}
