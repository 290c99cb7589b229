//! The builder: a directory or a tar stream in, an image out.
//!
//! File data goes to the image as it is read and is never kept; what is kept is the tree (names, attributes and where
//! the data went), and it is written behind the data at the end. The same input gives the same bytes: names are
//! sorted, no clock and no random number is consulted, the UUID is a hash of the content.

mod data;
mod emit;
mod error;
mod from_dir;
mod from_tar;

mod layout;
mod output;
mod tar_pax;
mod tar_stream;
mod tree;
mod xattrs;

use std::ops::ControlFlow;
use std::path::Path;

pub use error::{BuildError, Result};
pub use from_dir::from_dir;
pub use from_tar::from_tar;

use output::Output;
use tree::Tree;

/// How far a build is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Files of any type seen so far.
    pub files: u64,
    /// Bytes of file data read (or skipped as holes) so far.
    pub bytes: u64,
    /// The file at hand.
    pub path: &'a Path,
}

/// Called for each file and each few megabytes of data. `Break` cancels the build ([`BuildError::Cancelled`]).
pub type ProgressFn<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a;

/// Choices of a build.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Leave the content of other file systems out: what is mounted below the source (`/proc`, a bind mount) becomes
    /// an empty directory, with a warning in the log. On by default.
    pub one_file_system: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { one_file_system: true }
    }
}

/// What was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Inodes in the image.
    pub inodes: u64,
    /// Bytes of regular files, holes included.
    pub data_bytes: u64,
    /// Bytes of the image file.
    pub image_bytes: u64,
    /// UUID: a hash of the content, the name of this image among all others.
    pub uuid: [u8; 16],
}

/// A build under way.
struct Builder<'p> {
    tree: Tree,
    out: Output,
    progress: &'p mut ProgressFn<'p>,
    files: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<'p> Builder<'p> {
    fn new(out: &Path, progress: &'p mut ProgressFn<'p>) -> Result<Self> {
        let out = Output::create(out)?;
        Ok(Self { tree: Tree::new(), out, progress, files: 0, bytes: 0, buffer: vec![0; data::UNIT] })
    }

    /// Tells the caller about `path`, and hears whether to go on.
    fn report(&mut self, path: &Path) -> Result<()> {
        let progress = Progress { files: self.files, bytes: self.bytes, path };
        if (self.progress)(&progress).is_break() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Summary> {
        let adding = Path::new("the directories and inodes");
        let meta = emit::write(&self.tree, &mut self.out).map_err(|error| error.adding(adding))?;
        let image_bytes = self.out.commit()?;
        Ok(Summary { inodes: meta.inodes, data_bytes: self.bytes, image_bytes, uuid: meta.uuid })
    }
}
