//! Images on the host: opening, and the `image` commands.

pub mod cache;

use std::fs::File;
use std::path::Path;

use crate::cli::ImageCommand;
use crate::failure::{Failure, Result, Status};

/// Opens the image file at `path`.
///
/// # Errors
/// Missing, unreadable, or no regular file.
pub fn open(path: &Path) -> Result<File> {
    let refuse = |why: &str| Err(Failure::new(Status::ImageMissing, format!("image {}: {why}", path.display())));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return refuse("no such file; `nanovisor image build DIR FILE` makes one");
        }
        Err(e) => return refuse(&format!("{e}")),
    };
    match file.metadata() {
        Ok(meta) if meta.is_dir() => refuse("it is a directory; use --root for directories"),
        Ok(meta) if !meta.is_file() => refuse("it is no regular file"),
        Ok(_) => Ok(file),
        Err(e) => refuse(&format!("{e}")),
    }
}

/// `nanovisor image ...`.
pub fn run(_command: &ImageCommand) -> Result<()> {
    Err(Failure::runtime("images are not built in yet"))
}
