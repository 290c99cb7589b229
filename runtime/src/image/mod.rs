//! Images on the host: opening, the cache, and the `image` commands.

mod build;
pub mod cache;
mod look;

use std::fs::File;
use std::path::Path;

use memory::ImageMapping;
use rofs::Image;

use crate::cli::ImageCommand;
use crate::failure::{Failure, Result, Status};

/// Opens the image file at `path`, and sees that it begins as an image and ends no earlier than it says.
///
/// # Errors
/// Missing, unreadable, no regular file; no image, truncated, or of a kind that is not supported.
pub fn open(path: &Path) -> Result<File> {
    let file = open_file(path)?;
    map(path, &file)?;
    Ok(file)
}

fn open_file(path: &Path) -> Result<File> {
    let refuse = |why: &str| Err(Failure::new(Status::ImageMissing, format!("image {}: {why}", path.display())));
    let failed = |e: std::io::Error| Err(Failure::io(Status::ImageMissing, &format!("image {}", path.display()), &e));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return refuse("no such file; `nanovisor image build DIR FILE` makes one");
        }
        Err(e) => return failed(e),
    };
    match file.metadata() {
        Ok(meta) if meta.is_dir() => refuse("it is a directory; use --root for directories"),
        Ok(meta) if !meta.is_file() => refuse("it is no regular file"),
        Ok(_) => Ok(file),
        Err(e) => failed(e),
    }
}

/// Maps the image and reads its superblock; nothing else of it is looked at.
fn map(path: &Path, file: &File) -> Result<Image<ImageMapping>> {
    let mapping = ImageMapping::new(file).map_err(|e| match e.raw_os_error() {
        Some(_) => Failure::io(Status::ImageCorrupt, &format!("mapping image {}", path.display()), &e),
        None => corrupt(path, &e),
    })?;
    Image::open(mapping).map_err(|e| corrupt(path, &e))
}

fn load(path: &Path) -> Result<Image<ImageMapping>> {
    map(path, &open_file(path)?)
}

/// The image cannot be served; the builder makes one that can.
fn corrupt(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    let text = format!(
        "image {}: {why}; `nanovisor image verify` tells more, `nanovisor image build` makes a good one",
        path.display()
    );
    Failure::new(Status::ImageCorrupt, text)
}

/// `nanovisor image ...`.
///
/// # Errors
/// What the command at hand says.
pub fn run(command: &ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Build { src, out } => build::command(src, out),
        ImageCommand::Info { image } => look::info(image),
        ImageCommand::Ls { image, path, recursive } => look::ls(image, path, *recursive),
        ImageCommand::Cat { image, path } => look::cat(image, path),
        ImageCommand::Verify { image } => look::verify(image),
    }
}
