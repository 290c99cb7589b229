//! The file layer: inodes, open files, descriptors, names.

pub mod fd_table;
pub mod file;
pub mod fs_context;
pub mod inode;
pub mod io;
pub mod path;

pub use fd_table::{FdNum, FdTable};
pub use file::{FileDescription, FileOps, OpenFlags, Whence};
pub use fs_context::FsContext;
pub use inode::{Attr, DirEntry, DirOps, FileType, Inode, InodeKey, NewNode, SetAttr, StatFs, XattrOps};
pub use io::{IoCursor, IoSink, IoSource};
