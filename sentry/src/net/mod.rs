//! Sockets: one interface for all families, and the families.

pub mod control;
pub mod device;
pub mod file;
pub mod netlink;
pub mod options;
pub mod socket;
pub mod unix;

pub use control::Control;
pub use file::SocketFile;
pub use socket::{MsgFlags, Received, Shutdown, Socket, SocketKind};
