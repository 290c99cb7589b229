//! A ROFS image as a file system: inodes that read the mapped image in place, and pages of it mapped into guests.

mod file;
mod inode;
mod layers;
mod pages;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use memory::{FileKind, FrameFile, ImageMapping, MemoryFile};
use rofs::{Image, Reader};

use crate::vfs::mount::SuperBlock;
use crate::vfs::{Inode, StatFs, Vfs};

pub use inode::RofsInode;
pub use layers::Layered;

/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u64 = 0xe0f5_e1e2;

/// An image that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host would not map it.
    #[error("cannot map the image: {0}")]
    Map(#[from] std::io::Error),
    /// It is no image that we serve.
    #[error("{0}")]
    Format(#[from] rofs::Error),
}

/// A mounted image.
pub struct RofsFs {
    image: Image<ImageMapping>,
    /// The same file as guests map it.
    frames: Arc<FrameFile>,
    pages: pages::CopiedPages,
    dev: u64,
}

impl RofsFs {
    /// Opens an image: constant time and memory, whatever its size.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(vfs: &Vfs, memory: &Arc<MemoryFile>, file: File) -> Result<Arc<Self>, OpenError> {
        let mapping = ImageMapping::new(&file)?;
        let len = mapping.len() as u64;
        let image = Image::open(mapping)?;
        let frames = FrameFile::map(FileKind::Image, Some(OwnedFd::from(file)), len, false)?;
        Ok(Arc::new(RofsFs { image, frames, pages: pages::CopiedPages::new(memory.clone()), dev: vfs.new_dev() }))
    }

    /// Its root directory.
    ///
    /// # Errors
    /// `EIO` where the image is corrupt.
    pub fn root(self: &Arc<Self>) -> Result<Arc<dyn Inode>, Errno> {
        let root = self.reader()?.root().map_err(|e| self.corrupt(&e))?;
        Ok(Arc::new(RofsInode::new(self.clone(), root)))
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// `EUCLEAN` where there is none.
    pub fn inode(self: &Arc<Self>, nid: u64) -> Result<Arc<RofsInode>, Errno> {
        let inode = self.reader()?.inode(nid).map_err(|e| self.corrupt(&e))?;
        Ok(Arc::new(RofsInode::new(self.clone(), inode)))
    }

    /// How the image is recognised: its length, and a checksum of its first block, where the superblock lies.
    #[must_use]
    pub fn identity(&self) -> (u64, u32) {
        let bytes: &[u8] = self.image.get_ref();
        (bytes.len() as u64, snapshot::crc32(bytes.get(..4096).unwrap_or(bytes)))
    }

    /// The device number of its inodes.
    #[must_use]
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// The file system for mounting.
    ///
    /// # Errors
    /// `EIO` where the image is corrupt.
    pub fn super_block(self: &Arc<Self>) -> Result<SuperBlock, Errno> {
        Ok(SuperBlock::new("erofs", b"image", String::new(), true, self.root()?))
    }

    /// The reader, as long as the host could produce every page that was read.
    fn reader(&self) -> Result<Reader<'_>, Errno> {
        if self.image.get_ref().is_poisoned() { Err(Errno::EIO) } else { Ok(self.image.reader()) }
    }

    /// What a guest hears of a corrupt image: `EUCLEAN`, as EROFS says (`EFSCORRUPTED`).
    fn corrupt(&self, error: &rofs::Error) -> Errno {
        log::warn!("image: {error}");
        Errno::EUCLEAN
    }

    fn statfs(&self) -> StatFs {
        let sb = self.image.superblock();
        StatFs {
            magic: MAGIC,
            bsize: rofs::BLOCK_SIZE,
            blocks: [u64::from(sb.blocks), 0, 0],
            files: [sb.inodes, 0],
            namelen: 255,
            flags: 1,
        }
    }
}
