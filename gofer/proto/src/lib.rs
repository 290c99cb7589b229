//! What the sandbox and its gofer say to each other, and the sandbox's side of it.
//!
//! A connection is a `SOCK_SEQPACKET` pair. A message is one packet: a request id (8 bytes, little endian), then a
//! [`Request`] or an [`Answer`], encoded by postcard; descriptors travel beside it. Ids are chosen by the sandbox and
//! never used twice; answers may come in any order. Neither side believes the other: every message is bounded, decoded
//! without panics and checked ([`Reply::check`], [`name::check`]) before it is used.
#![deny(unsafe_code)]

pub mod client;
pub mod codec;
pub mod message;
pub mod name;

pub use client::{Client, Ticket};
pub use codec::{decode_answer, decode_request, encode_answer, encode_request};
pub use message::{
    Answer, Attr, Change, DirItem, Entry, Kind, MountInfo, NewFile, NodeId, OpenMode, Reply, Request, StatFs, Time,
};

/// Version of the protocol. Both sides are the same program, so that another number is a mistake, not an old peer.
pub const VERSION: u32 = 2;
/// Most bytes of one message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most components of one walk.
pub const MAX_WALK: usize = 16;
/// Most bytes of a symlink's target (`PATH_MAX - 1`).
pub const MAX_TARGET: usize = 4095;
/// Most bytes of an extended attribute's value: what a message holds besides its head.
pub const MAX_XATTR: usize = 60 * 1024;
/// Most ids in one close message.
pub const MAX_CLOSE: usize = 4096;

/// A protocol fault: the other side is broken or hostile, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A message that cannot be decoded.
    #[error("a malformed message")]
    Malformed,
    /// A message longer than [`MAX_MESSAGE`].
    #[error("a message too long to send")]
    TooLong,
    /// An answer to a request that is not under way.
    #[error("an answer to no request")]
    UnknownId,
    /// An answer of another kind than its request's.
    #[error("an answer of the wrong kind")]
    WrongKind,
    /// More or fewer descriptors than the answer has.
    #[error("a wrong number of descriptors")]
    WrongFds,
    /// A name with a slash or a NUL, or another value that cannot be.
    #[error("an answer with an impossible value")]
    BadValue,
    /// The peer speaks another version.
    #[error("another protocol version")]
    Version,
    /// The peer is gone.
    #[error("the connection has ended")]
    Gone,
}
