//! The image under construction: a file without a name in the output's directory (`O_TMPFILE`), so that nothing is
//! left even when the builder is killed; named and renamed over the output at the end. Where the file system has no
//! such files, a temporary file beside the output.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::error::{BuildError, Result};
use crate::format::BLOCK_SIZE;

/// A file that vanishes unless it is persisted.
enum Temp {
    /// Without a name.
    Unnamed(File),
    /// With one, removed on drop.
    Named(NamedTempFile),
}

impl Temp {
    fn create_in(dir: &Path) -> io::Result<Self> {
        let flags = OFlag::O_TMPFILE.bits();
        match OpenOptions::new().read(true).write(true).mode(0o644).custom_flags(flags).open(dir) {
            Ok(file) => Ok(Self::Unnamed(file)),
            // Kernels and file systems without O_TMPFILE answer one of several errors.
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                let builder = &mut temp_names();
                builder.permissions(Permissions::from_mode(0o644)).tempfile_in(dir).map(Self::Named)
            }
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(named) => named.as_file(),
        }
    }

    /// Gives the file the name `path`, replacing what has it.
    fn persist(self, path: &Path) -> io::Result<()> {
        let named = match self {
            Self::Named(named) => named.into_temp_path(),
            Self::Unnamed(file) => {
                // linkat() does not replace, so a temporary name comes first; /proc names what has none.
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |name: &Path| {
                    linkat(AT_FDCWD, source.as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)
                        .map_err(io::Error::from)
                };
                temp_names().make_in(directory_of(path), link)?.into_temp_path()
            }
        };
        named.persist(path).map_err(|error| error.error)
    }
}

fn temp_names() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nanovisor-image-");
    builder
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The image file being written. Dropped before [`Output::commit`], it leaves nothing behind.
pub(super) struct Output {
    path: PathBuf,
    temp: Temp,
    /// Device and inode number of the temporary file.
    identity: (u64, u64),
    /// Hash of all bytes written: the image's UUID.
    hash: Sha256,
    /// First block not yet given away.
    next_block: u64,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let parent = directory_of(path);
        let failed = |error| BuildError::write(path, error).adding(Path::new("nothing yet"));
        let temp = Temp::create_in(parent).map_err(failed)?;
        let metadata = temp.file().metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        // Block 0 is the superblock's.
        Ok(Self { path: path.to_owned(), temp, identity, hash: Sha256::new(), next_block: 1 })
    }

    fn file(&self) -> &File {
        self.temp.file()
    }

    /// Whether (device, inode) is the temporary file.
    pub(super) fn is_temporary(&self, identity: (u64, u64)) -> bool {
        self.identity == identity
    }

    pub(super) fn next_block(&self) -> u64 {
        self.next_block
    }

    /// Gives away `count` blocks in a row. Block addresses have 32 bits, and the last one means a hole.
    pub(super) fn allocate(&mut self, count: u64) -> Result<u32> {
        let start = self.next_block;
        let end = start.checked_add(count).filter(|&end| end < u64::from(u32::MAX));
        let end = end.ok_or_else(|| BuildError::invalid(&self.path, "the image would exceed 16 TiB"))?;
        self.next_block = end;
        u32::try_from(start).map_err(|_| BuildError::invalid(&self.path, "the image would exceed 16 TiB"))
    }

    /// Writes `bytes` at `offset` of the image, and counts them into the hash. What is never written reads as zeros.
    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.file().write_all_at(bytes, offset).map_err(|error| BuildError::write(&self.path, error))
    }

    /// The hash of everything written so far, shaped as a UUID of version 8 (RFC 9562).
    pub(super) fn uuid(&self) -> [u8; 16] {
        let digest = self.hash.clone().finalize();
        let mut uuid = [0; 16];
        uuid.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        uuid[6] = (uuid[6] & 0x0f) | 0x80;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        uuid
    }

    /// Sets the final size, makes the file durable and moves it into place. Returns the size in bytes.
    pub(super) fn commit(self) -> Result<u64> {
        let size = self.next_block * BLOCK_SIZE;
        let adding = Path::new("the end of the image");
        let failed = |error| BuildError::write(&self.path, error).adding(adding);
        self.file().set_len(size).map_err(failed)?;
        self.file().sync_all().map_err(failed)?;
        self.temp.persist(&self.path).map_err(failed)?;
        Ok(size)
    }
}
