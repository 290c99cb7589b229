//! Where each inode goes: the order of inodes, their sizes, and the packing of directory blocks.

use std::collections::HashMap;
use std::path::Path;

use super::error::{BuildError, Result};
use super::tree::{Body, NodeId, ROOT, Tree};
use super::xattrs::Shared;
use crate::format::{BLOCK_SIZE, DIRENT_SIZE, SLOT_SIZE};

/// Directory tails and link targets up to this size go inline behind their inode; larger ones waste less in a block.
const MAX_INLINE: u64 = 2048;

/// The reachable nodes in the order they are written, with what the links to them say.
pub(super) struct Order {
    pub(super) nodes: Vec<NodeId>,
    /// By node id: number of links.
    pub(super) nlink: Vec<u32>,
    /// By node id: the parent directory. The root is its own.
    pub(super) parent: Vec<NodeId>,
}

impl Order {
    /// The root first; then, directory by directory, children side by side, so that `ls -l` reads few pages.
    pub(super) fn of(tree: &Tree) -> Self {
        let mut order = Self { nodes: vec![ROOT], nlink: vec![0; tree.len()], parent: vec![ROOT; tree.len()] };
        let mut dirs = vec![ROOT];
        order.nlink[ROOT] = 2;
        while let Some(dir) = dirs.pop() {
            let mut subdirs = Vec::new();
            for &child in tree.entries(dir).into_iter().flat_map(|entries| entries.values()) {
                if order.nlink[child] == 0 {
                    order.nodes.push(child);
                }
                if tree.entries(child).is_some() {
                    order.parent[child] = dir;
                    order.nlink[child] = 2;
                    order.nlink[dir] = order.nlink[dir].saturating_add(1);
                    subdirs.push(child);
                } else {
                    order.nlink[child] = order.nlink[child].saturating_add(1);
                }
            }
            dirs.extend(subdirs.into_iter().rev());
        }
        order
    }
}

/// Where and how an inode is written.
pub(super) struct Place {
    pub(super) nid: u64,
    pub(super) extended: bool,
    /// The xattr area.
    pub(super) xattrs: Vec<u8>,
    /// Size of the content: of the file, the directory or the link's target.
    pub(super) size: u64,
    /// Whether the end of the content is inline. Never for regular files: their data maps into guests.
    pub(super) inline: bool,
    /// First block of what is out of line, for directories and links. Filled in when it is written.
    pub(super) block: u32,
}

/// Places of all nodes, by node id.
pub(super) struct Layout {
    pub(super) places: HashMap<NodeId, Place>,
    /// The modification time that compact inodes share: the most frequent one.
    pub(super) epoch: (u64, u32),
    /// Bytes of the metadata area.
    pub(super) size: u64,
}

impl Layout {
    pub(super) fn of(tree: &Tree, order: &Order, shared: &Shared<'_>) -> Result<Self> {
        let epoch = epoch(tree, order);
        let mut layout = Self { places: HashMap::with_capacity(order.nodes.len()), epoch, size: 0 };
        // nid 0 stays free: inode number 0 means "deleted" to old programs.
        let mut pos = SLOT_SIZE;
        for &id in &order.nodes {
            pos = layout.place(tree, order, shared, id, pos)?;
        }
        layout.size = pos;
        Ok(layout)
    }

    /// Places node `id` at the first fit from `pos`; returns the slot behind it.
    fn place(&mut self, tree: &Tree, order: &Order, shared: &Shared<'_>, id: NodeId, pos: u64) -> Result<u64> {
        let node = tree.get(id);
        let xattrs = shared
            .body(&node.xattrs)
            .ok_or_else(|| BuildError::invalid(Path::new("a file"), "has too many extended attributes"))?;
        let size = match &node.body {
            Body::Dir(_) => dir_size(&names(tree, id, id)),
            Body::File(data) => data.size,
            Body::Symlink(target) => target.len() as u64,
            Body::Special(..) => 0,
        };
        let extended = self.needs_extended(node.meta, size, order.nlink[id]);
        let base: u64 = if extended { 64 } else { 32 };
        let header = base + xattrs.len() as u64;
        let tail = size % BLOCK_SIZE;
        let may_inline = matches!(node.body, Body::Dir(_) | Body::Symlink(_));
        let inline = may_inline && tail > 0 && tail <= MAX_INLINE && header + tail <= BLOCK_SIZE;
        let behind = match &node.body {
            Body::File(data) if data.flat().is_none() => data.chunks() * 4,
            _ if inline => tail,
            _ => 0,
        };
        // An inode's head and an inline tail must not cross a block boundary; xattrs and chunk tables may.
        let together = if inline { header + tail } else { base };
        let fits = pos % BLOCK_SIZE + together <= BLOCK_SIZE;
        let start = if fits { pos } else { pos.next_multiple_of(BLOCK_SIZE) };
        self.places.insert(id, Place { nid: start / SLOT_SIZE, extended, xattrs, size, inline, block: 0 });
        Ok((start + header + behind).next_multiple_of(SLOT_SIZE))
    }

    fn needs_extended(&self, meta: super::tree::Meta, size: u64, nlink: u32) -> bool {
        let small = |value: u32| value <= u32::from(u16::MAX);
        let (sec, nsec) = meta.mtime;
        let compact = u64::try_from(sec) == Ok(self.epoch.0)
            && nsec == self.epoch.1
            && small(meta.uid)
            && small(meta.gid)
            && small(nlink)
            && size <= u64::from(u32::MAX);
        !compact
    }
}

/// The most frequent modification time; of equals, the earliest.
fn epoch(tree: &Tree, order: &Order) -> (u64, u32) {
    let mut counts: HashMap<(u64, u32), u64> = HashMap::new();
    for &id in &order.nodes {
        let (sec, nsec) = tree.get(id).meta.mtime;
        if let Ok(sec) = u64::try_from(sec) {
            *counts.entry((sec, nsec)).or_default() += 1;
        }
    }
    let best = counts.into_iter().max_by_key(|&(time, count)| (count, std::cmp::Reverse(time)));
    best.map_or((0, 0), |(time, _)| time)
}

/// The names of directory `dir` with their nodes, `.` and `..` among them, sorted as bytes.
pub(super) fn names(tree: &Tree, dir: NodeId, parent: NodeId) -> Vec<(&[u8], NodeId)> {
    let entries = tree.entries(dir).into_iter().flatten().map(|(name, &id)| (&**name, id));
    let mut names: Vec<(&[u8], NodeId)> = entries.chain([(&b"."[..], dir), (&b".."[..], parent)]).collect();
    names.sort_unstable_by_key(|&(name, _)| name);
    names
}

/// How many of `names` go into the next block, and the bytes they take there.
pub(super) fn next_dir_block(names: &[(&[u8], NodeId)]) -> (usize, usize) {
    let mut used = 0;
    for (count, (name, _)) in names.iter().enumerate() {
        let more = used + DIRENT_SIZE + name.len();
        if more > BLOCK_SIZE as usize {
            return (count, used);
        }
        used = more;
    }
    (names.len(), used)
}

/// Bytes of a directory: whole blocks, and what the last one uses.
fn dir_size(mut names: &[(&[u8], NodeId)]) -> u64 {
    let mut size = 0;
    loop {
        let (count, used) = next_dir_block(names);
        names = names.get(count..).unwrap_or_default();
        if names.is_empty() || count == 0 {
            return size + used as u64;
        }
        size += BLOCK_SIZE;
    }
}
