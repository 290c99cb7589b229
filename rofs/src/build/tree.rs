//! The tree in memory while an image is built.

use std::collections::BTreeMap;

use super::data::FileData;
use super::xattrs::OwnedXattr;
use crate::FileType;

/// Index of a node in its [`Tree`].
pub(super) type NodeId = usize;

/// The root directory's node.
pub(super) const ROOT: NodeId = 0;

/// Attributes, of a directory entry's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// Permission bits, without the type.
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Body {
    Dir(BTreeMap<Box<[u8]>, NodeId>),
    File(FileData),
    Symlink(Box<[u8]>),
    /// A device, with its encoded number, or a FIFO or socket.
    Special(FileType, u32),
}

/// An inode to be.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) meta: Meta,
    /// Sorted by name.
    pub(super) xattrs: Vec<OwnedXattr>,
    pub(super) body: Body,
}

impl Node {
    pub(super) fn file_type(&self) -> FileType {
        match self.body {
            Body::Dir(_) => FileType::Directory,
            Body::File(_) => FileType::Regular,
            Body::Symlink(_) => FileType::Symlink,
            Body::Special(file_type, _) => file_type,
        }
    }

    /// `st_mode`.
    pub(super) fn mode(&self) -> u16 {
        let kind = match self.file_type() {
            FileType::Regular => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::CharDevice => 0o020_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Fifo => 0o010_000,
            FileType::Socket => 0o140_000,
            FileType::Symlink => 0o120_000,
        };
        kind | (self.meta.perm & 0o7777)
    }
}

/// All nodes; those that cannot be reached from the root (replaced by a later tar entry) are not written.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// A tree with an empty root directory.
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node { meta: implicit_dir(), xattrs: Vec::new(), body: Body::Dir(BTreeMap::new()) }] }
    }

    pub(super) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        // Ids come from push() and nodes are never removed.
        &self.nodes[id]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id]
    }

    /// Number of nodes, unreachable ones included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The entries of directory `id`; `None` when it is something else.
    pub(super) fn entries(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.get(id).body {
            Body::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    /// Enters `child` as `name` into directory `dir`, replacing what was there. False when `dir` is no directory.
    pub(super) fn link(&mut self, dir: NodeId, name: &[u8], child: NodeId) -> bool {
        match &mut self.get_mut(dir).body {
            Body::Dir(entries) => {
                entries.insert(name.into(), child);
                true
            }
            _ => false,
        }
    }
}

/// Attributes of a directory that a tar stream implies but does not describe.
pub(super) fn implicit_dir() -> Meta {
    Meta { perm: 0o755, uid: 0, gid: 0, mtime: (0, 0) }
}
