//! Snapshots on disk: the files of a folder, on the command's side, and what the sandbox process does with them.

mod folder;
mod inside;

pub use folder::{Folder, files};
pub use inside::{destination, restore};
