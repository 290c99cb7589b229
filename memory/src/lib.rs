//! Guest memory: the files whose pages guests see, and the only code that touches those pages from the host side.
//!
//! A *frame* is a page of a [`FrameFile`] at an offset. Four kinds of file hold frames: the sandbox's own
//! [`MemoryFile`], a ROFS image, a snapshot's pages, a donated host file. The host maps each once, flat, so that an
//! offset is turned into a host address by one addition. Every access goes through [`copy`], which survives a page
//! that the host cannot produce (a file that shrank, a failing disk): such an access is a [`Fault`], never a crash.
#![allow(unsafe_code)]

pub mod copy;
pub mod frame_file;
pub mod heap;
pub mod image;
pub mod memory_file;
pub mod program;
pub mod range_map;
pub mod tsc;

pub use copy::{Fault, install_fault_handler};
pub use frame_file::{FileId, FileKind, Frame, FrameFile};
pub use image::ImageMapping;
pub use memory_file::{Backing, Extent, MemoryFile};
pub use range_map::{RangeMap, RangeValue};
