//! The files that are held for the client.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::{Kind, NodeId};

use crate::error::Result;

/// A directory being listed.
pub struct Stream {
    /// Open for reading.
    pub fd: OwnedFd,
    /// The cookie it stands at.
    pub at: u64,
}

/// A held file.
pub struct Node {
    /// O_PATH.
    fd: OwnedFd,
    /// Which of the served directories it was found through, which decides what may be done with it.
    pub mount: usize,
    /// Its type, which never changes.
    pub kind: Kind,
}

impl Node {
    /// A file held by the O_PATH descriptor `fd`.
    pub fn new(fd: OwnedFd, mount: usize, kind: Kind) -> Self {
        Node { fd, mount, kind }
    }

    /// Itself, if it is a directory.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub fn as_dir(self: &Arc<Self>) -> Result<&Arc<Self>> {
        if self.kind == Kind::Directory { Ok(self) } else { Err(Errno::ENOTDIR) }
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All held files of a connection. Ids count up and are never used again, so that a stale one finds nothing.
pub struct Nodes {
    map: HashMap<NodeId, Arc<Node>>,
    streams: HashMap<NodeId, Stream>,
    next: u64,
    limit: usize,
}

/// Most directories that keep their stream between two requests.
const MAX_STREAMS: usize = 64;

impl Nodes {
    /// Room for `limit` files.
    pub fn new(limit: usize) -> Self {
        Nodes { map: HashMap::new(), streams: HashMap::new(), next: 1, limit }
    }

    /// Takes a file in.
    ///
    /// # Errors
    /// `ENFILE` past the limit.
    pub fn insert(&mut self, node: Node) -> Result<NodeId> {
        if self.map.len() >= self.limit {
            return Err(Errno::ENFILE);
        }
        let id = NodeId(self.next);
        self.next += 1;
        self.map.insert(id, Arc::new(node));
        Ok(id)
    }

    /// The file held as `id`.
    ///
    /// # Errors
    /// `EBADF` where there is none.
    pub fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        self.map.get(&id).cloned().ok_or(Errno::EBADF)
    }

    /// Lets go of a file.
    pub fn remove(&mut self, id: NodeId) {
        self.map.remove(&id);
        self.streams.remove(&id);
    }

    /// The stream of the directory `id` as a listing left it.
    pub fn take_stream(&mut self, id: NodeId) -> Option<Stream> {
        self.streams.remove(&id)
    }

    /// Keeps a stream for the next request.
    pub fn keep_stream(&mut self, id: NodeId, stream: Stream) {
        // Its directory may have been let go meanwhile.
        if !self.map.contains_key(&id) {
            return;
        }
        if self.streams.len() >= MAX_STREAMS {
            // Whichever: a listing whose stream is gone seeks.
            if let Some(other) = self.streams.keys().next().copied() {
                self.streams.remove(&other);
            }
        }
        self.streams.insert(id, stream);
    }
}
