//! An opened image, and the light reader that all operations hang on.

use std::fmt;

use zerocopy::FromBytes;

use crate::superblock::{self, SuperBlock};
use crate::{Error, Result};

/// An opened image that owns its bytes: usually a mapping. Opening reads one superblock and nothing else.
pub struct Image<B> {
    bytes: B,
    sb: SuperBlock,
}

impl<B: AsRef<[u8]>> Image<B> {
    /// Opens `bytes`. Constant time and memory, whatever the size.
    pub fn open(bytes: B) -> Result<Self> {
        let sb = SuperBlock::parse(bytes.as_ref())?;
        Ok(Self { bytes, sb })
    }

    /// The reader of this image: a slice and a parsed superblock, free to make and to copy.
    pub fn reader(&self) -> Reader<'_> {
        let bytes = self.bytes.as_ref();
        let size = usize::try_from(self.sb.image_size()).unwrap_or(usize::MAX).min(bytes.len());
        Reader { bytes: bytes.get(..size).unwrap_or(bytes), sb: self.sb }
    }

    /// The parsed superblock.
    pub fn superblock(&self) -> &SuperBlock {
        &self.sb
    }

    /// The bytes that were opened.
    pub fn get_ref(&self) -> &B {
        &self.bytes
    }
}

impl<B> fmt::Debug for Image<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("sb", &self.sb).finish_non_exhaustive()
    }
}

/// A view of an opened image. All operations are methods of this; what they return borrows the image, not the reader.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    sb: SuperBlock,
}

impl<'a> Reader<'a> {
    /// Opens `bytes`; see [`Image::open`].
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let sb = SuperBlock::parse(bytes)?;
        let size = usize::try_from(sb.image_size()).unwrap_or(usize::MAX);
        Ok(Self { bytes: bytes.get(..size).unwrap_or(bytes), sb })
    }

    /// The parsed superblock.
    pub fn superblock(&self) -> &SuperBlock {
        &self.sb
    }

    /// Verifies the superblock's CRC32C, if it has one.
    pub fn verify_checksum(&self) -> Result<()> {
        superblock::verify_checksum(self.bytes)
    }

    /// Bytes of the image.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes `offset..offset + len` of the image, or an error that names `what` was looked for there.
    pub(crate) fn range(&self, offset: u64, len: u64, what: &'static str) -> Result<&'a [u8]> {
        let slice = || {
            let end = usize::try_from(offset.checked_add(len)?).ok()?;
            self.bytes.get(usize::try_from(offset).ok()?..end)
        };
        slice().ok_or(Error::OutOfBounds { what, offset, len })
    }

    /// Copies a structure out of the image, once.
    pub(crate) fn structure<T: FromBytes>(&self, offset: u64, what: &'static str) -> Result<T> {
        let len = size_of::<T>() as u64;
        T::read_from_bytes(self.range(offset, len, what)?).map_err(|_| Error::OutOfBounds { what, offset, len })
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("sb", &self.sb).finish_non_exhaustive()
    }
}
