//! /proc: what this kernel knows of itself and of its processes; nothing of the host.

use std::sync::Arc;

use crate::fs::pseudo::{PseudoFs, fixed_dir};
use crate::kernel::Kernel;
use crate::vfs::mount::SuperBlock;

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;

/// The file system.
#[must_use]
pub fn mount(kernel: &Arc<Kernel>) -> SuperBlock {
    let fs = &PseudoFs::new(kernel.vfs.new_dev(), MAGIC);
    SuperBlock::new("proc", b"proc", String::new(), false, fixed_dir(fs, Vec::new()))
}
