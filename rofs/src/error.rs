//! What can be wrong with an image.

/// Result of reading an image.
pub type Result<T> = std::result::Result<T, Error>;

/// An image that cannot be served. None of these is a bug of the reader: images are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No EROFS superblock at byte 1024.
    #[error("not an EROFS image (no magic number at byte 1024)")]
    NotErofs,
    /// The file ends before the file system does.
    #[error("truncated image: the superblock promises {expected} bytes, the file has {actual}")]
    Truncated {
        /// Bytes that the superblock promises.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// A valid EROFS feature that this reader does not serve, by name.
    #[error("unsupported EROFS feature: {0} (build the image without it, for example with `nanovisor image build`)")]
    Unsupported(&'static str),
    /// An incompatible feature bit nobody has told us about.
    #[error("unknown incompatible EROFS feature bits {0:#x}")]
    UnknownFeature(u32),
    /// The superblock's CRC32C is wrong.
    #[error("superblock checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// As stored in the image.
        stored: u32,
        /// As computed from its bytes.
        computed: u32,
    },
    /// Something points outside the image.
    #[error("corrupt image: {what} lies outside the image (offset {offset}, length {len})")]
    OutOfBounds {
        /// What it was.
        what: &'static str,
        /// Byte offset in the image.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A structure contradicts the format.
    #[error("corrupt image: inode {nid}: {what}")]
    Corrupt {
        /// The inode concerned.
        nid: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A directory operation on something else (`ENOTDIR`).
    #[error("inode {0} is not a directory")]
    NotADirectory(u64),
    /// `readlink` of something else (`EINVAL`).
    #[error("inode {0} is not a symbolic link")]
    NotASymlink(u64),
    /// Data of something that has none (`EINVAL`, `EISDIR`).
    #[error("inode {0} has no data to read")]
    NoData(u64),
    /// A path that does not exist in the image (`ENOENT`).
    #[error("no such file or directory in the image")]
    NotFound,
    /// More than 40 symbolic links on a path (`ELOOP`).
    #[error("too many levels of symbolic links in the image")]
    TooManyLinks,
}
