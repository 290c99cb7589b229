//! What can go wrong while building.

use std::io;
use std::path::{Path, PathBuf};

/// Result of a build.
pub type Result<T> = std::result::Result<T, BuildError>;

/// A build that failed. The output file is as it was before, and no temporary file is left.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The source could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file in question.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system of the output is full (`ENOSPC`, `EDQUOT`).
    #[error(
        "no space left for {} while adding {}: free some space or put the image on another file system (the partial \
         image was removed)", output.display(), adding.display()
    )]
    NoSpace {
        /// The image.
        output: PathBuf,
        /// The file that no longer fitted.
        adding: PathBuf,
    },
    /// The output could not be written.
    #[error("cannot write {} (while adding {}): {source}", output.display(), adding.display())]
    Write {
        /// The image.
        output: PathBuf,
        /// The file being added.
        adding: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The source has something that an image cannot hold.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The progress callback said so.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    pub(super) fn read(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Read { path: path.to_owned(), source: source.into() }
    }

    pub(super) fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), what: what.into() }
    }

    pub(super) fn write(output: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let (output, adding) = (output.to_owned(), PathBuf::new());
        match source.kind() {
            StorageFull | QuotaExceeded => Self::NoSpace { output, adding },
            _ => Self::Write { output, adding, source },
        }
    }

    /// Names the file that was being added, where the error has a place for it that is still empty.
    pub(super) fn adding(mut self, path: &Path) -> Self {
        if let Self::NoSpace { adding, .. } | Self::Write { adding, .. } = &mut self
            && adding.as_os_str().is_empty()
        {
            *adding = path.to_owned();
        }
        self
    }
}
