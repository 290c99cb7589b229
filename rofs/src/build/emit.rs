//! Writes the metadata behind the data: directory blocks, shared xattrs, inodes, and last the superblock.

use zerocopy::IntoBytes;

use super::data::FileData;
use super::error::Result;
use super::layout::{Layout, Order, Place, names, next_dir_block};
use super::output::Output;
use super::tree::{Body, NodeId, ROOT, Tree};
use super::xattrs::{self, Shared};
use crate::format::{
    self, BLOCK_BITS, BLOCK_SIZE, CompactInode, DIRENT_SIZE, Dirent, ExtendedInode, NULL_BLOCK, RawSuperBlock,
    SLOT_SIZE, SUPER_OFFSET, compat, incompat, layout,
};
use crate::inode::blocks;
use crate::superblock;

/// What [`write`] has written.
pub(super) struct Written {
    pub(super) inodes: u64,
    pub(super) uuid: [u8; 16],
}

/// Writes everything but file data, which is in `out` already.
pub(super) fn write(tree: &Tree, out: &mut Output) -> Result<Written> {
    let order = Order::of(tree);
    let shared = Shared::collect(tree, &order.nodes);
    let mut layout = Layout::of(tree, &order, &shared)?;
    write_contents(tree, &order, &mut layout, out)?;
    let xattr_block = write_area(&shared.bytes, out)?;
    // fsck.erofs reads an xattr header behind each inode, even one without xattrs: the last must not end the image.
    let meta_block = out.allocate(blocks(layout.size + format::XATTR_HEADER_SIZE))?;
    let chunked = write_inodes(tree, &order, &layout, meta_block, out)?;
    let inodes = order.nodes.len() as u64;
    let raw = RawSuperBlock {
        magic: format::MAGIC.into(),
        feature_compat: (compat::SB_CHKSUM | compat::MTIME).into(),
        blkszbits: BLOCK_BITS,
        // The root is the first inode: its nid is 1 or, when it does not fit into the first block, 128.
        root_nid: u16::try_from(nid(&layout, ROOT)).unwrap_or(0).into(),
        inos: inodes.into(),
        epoch: layout.epoch.0.into(),
        fixed_nsec: layout.epoch.1.into(),
        // allocate() keeps addresses below 2^32.
        blocks: u32::try_from(out.next_block()).unwrap_or(u32::MAX).into(),
        meta_blkaddr: meta_block.into(),
        xattr_blkaddr: xattr_block.into(),
        feature_incompat: if chunked { incompat::CHUNKED_FILE } else { 0 }.into(),
        ..RawSuperBlock::default()
    };
    let uuid = write_superblock(raw, out)?;
    Ok(Written { inodes, uuid })
}

fn nid(layout: &Layout, id: NodeId) -> u64 {
    layout.places.get(&id).map_or(0, |place| place.nid)
}

/// Writes `bytes` to blocks of their own; returns the first, 0 when there is nothing to write.
fn write_area(bytes: &[u8], out: &mut Output) -> Result<u32> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let block = out.allocate(blocks(bytes.len() as u64))?;
    out.write_at(u64::from(block) * BLOCK_SIZE, bytes)?;
    Ok(block)
}

/// Writes those blocks of directories and links that are not inline.
fn write_contents(tree: &Tree, order: &Order, layout: &mut Layout, out: &mut Output) -> Result<()> {
    for &id in &order.nodes {
        let content = content(tree, order, layout, id);
        let Some(place) = layout.places.get_mut(&id) else { continue };
        let outside = content.get(..content.len() - inline_len(place)).unwrap_or_default();
        place.block = write_area(outside, out)?;
    }
    Ok(())
}

/// Bytes of a node's content that go inline.
fn inline_len(place: &Place) -> usize {
    // Below a block.
    if place.inline { (place.size % BLOCK_SIZE) as usize } else { 0 }
}

/// The content of a directory or link; nothing for other nodes.
fn content(tree: &Tree, order: &Order, layout: &Layout, id: NodeId) -> Vec<u8> {
    match &tree.get(id).body {
        Body::Symlink(target) => target.to_vec(),
        Body::Dir(_) => directory(tree, layout, &names(tree, id, order.parent[id])),
        Body::File(_) | Body::Special(..) => Vec::new(),
    }
}

/// The blocks of a directory.
fn directory(tree: &Tree, layout: &Layout, mut names: &[(&[u8], NodeId)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !names.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE as usize), 0);
        let (count, _) = next_dir_block(names);
        let (now, later) = names.split_at(count.max(1));
        let mut nameoff = now.len() * DIRENT_SIZE;
        for (name, id) in now {
            let dirent = Dirent {
                nid: nid(layout, *id).into(),
                // Below a block.
                nameoff: u16::try_from(nameoff).unwrap_or(u16::MAX).into(),
                file_type: tree.get(*id).file_type() as u8,
                reserved: 0,
            };
            bytes.extend_from_slice(dirent.as_bytes());
            nameoff += name.len();
        }
        now.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
        names = later;
    }
    bytes
}

/// Writes all inodes with what follows them; returns whether any is chunk-based.
fn write_inodes(tree: &Tree, order: &Order, layout: &Layout, block: u32, out: &mut Output) -> Result<bool> {
    const FLUSH_AT: usize = 1 << 20;
    let start = u64::from(block) * BLOCK_SIZE;
    let (mut flushed, mut buffer, mut chunked) = (0u64, Vec::new(), false);
    for (number, &id) in order.nodes.iter().enumerate() {
        let Some(place) = layout.places.get(&id) else { continue };
        if buffer.len() >= FLUSH_AT {
            out.write_at(start + flushed, &buffer)?;
            flushed += buffer.len() as u64;
            buffer.clear();
        }
        // Less than a block behind what is buffered.
        buffer.resize((place.nid * SLOT_SIZE - flushed) as usize, 0);
        write_inode(tree, order, place, layout, (id, number), &mut buffer);
        buffer.extend_from_slice(&place.xattrs);
        match &tree.get(id).body {
            Body::File(data) if data.flat().is_none() => {
                chunked = true;
                append_chunks(data, &mut buffer);
            }
            _ if place.inline => {
                let content = content(tree, order, layout, id);
                buffer.extend_from_slice(content.get(content.len() - inline_len(place)..).unwrap_or_default());
            }
            _ => {}
        }
    }
    out.write_at(start + flushed, &buffer)?;
    Ok(chunked)
}

/// Appends the inode itself, of node `id`, the `number`th of the image.
fn write_inode(
    tree: &Tree,
    order: &Order,
    place: &Place,
    layout: &Layout,
    (id, number): (NodeId, usize),
    buffer: &mut Vec<u8>,
) {
    let node = tree.get(id);
    let (kind, u) = match &node.body {
        Body::Dir(_) | Body::Symlink(_) if place.inline => (layout::FLAT_INLINE, place.block),
        Body::Dir(_) | Body::Symlink(_) => (layout::FLAT_PLAIN, place.block),
        Body::Special(_, rdev) => (layout::FLAT_PLAIN, *rdev),
        Body::File(data) => match data.flat() {
            Some(block) => (layout::FLAT_PLAIN, block),
            None => (layout::CHUNK_BASED, data.bits - u32::from(BLOCK_BITS)),
        },
    };
    let format = (kind << 1) | u16::from(place.extended);
    // Shared::body() has made sure that it fits.
    let xattr_icount = xattrs::icount(place.xattrs.len() as u64).unwrap_or(0);
    // "Only used for 32-bit stat compatibility", says erofs_fs.h: it may wrap.
    let ino = (number as u32).wrapping_add(1);
    let (meta, nlink) = (node.meta, order.nlink[id]);
    if place.extended {
        let inode = ExtendedInode {
            format: format.into(),
            xattr_icount: xattr_icount.into(),
            mode: node.mode().into(),
            size: place.size.into(),
            u: u.into(),
            ino: ino.into(),
            uid: meta.uid.into(),
            gid: meta.gid.into(),
            mtime: meta.mtime.0.cast_unsigned().into(),
            mtime_nsec: meta.mtime.1.into(),
            nlink: nlink.into(),
            ..ExtendedInode::default()
        };
        buffer.extend_from_slice(inode.as_bytes());
        return;
    }
    debug_assert_eq!(u64::try_from(meta.mtime.0).ok(), Some(layout.epoch.0));
    // Layout::needs_extended() has made sure that these fit.
    let small = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let inode = CompactInode {
        format: format.into(),
        xattr_icount: xattr_icount.into(),
        mode: node.mode().into(),
        nlink: small(nlink).into(),
        size: u32::try_from(place.size).unwrap_or(u32::MAX).into(),
        u: u.into(),
        ino: ino.into(),
        uid: small(meta.uid).into(),
        gid: small(meta.gid).into(),
        ..CompactInode::default()
    };
    buffer.extend_from_slice(inode.as_bytes());
}

/// Appends the chunk table: a block address each, [`NULL_BLOCK`] for holes.
fn append_chunks(data: &FileData, buffer: &mut Vec<u8>) {
    let step = 1u32 << (data.bits - u32::from(BLOCK_BITS));
    let mut next = 0;
    for run in &data.runs {
        (next..run.first).for_each(|_| buffer.extend_from_slice(&NULL_BLOCK.to_le_bytes()));
        let mut block = run.block;
        for _ in 0..run.count {
            buffer.extend_from_slice(&block.to_le_bytes());
            block = block.wrapping_add(step);
        }
        next = run.first + run.count;
    }
    (next..data.chunks()).for_each(|_| buffer.extend_from_slice(&NULL_BLOCK.to_le_bytes()));
}

/// Writes the superblock's block with UUID and checksum; returns the UUID.
fn write_superblock(mut raw: RawSuperBlock, out: &mut Output) -> Result<[u8; 16]> {
    const START: usize = SUPER_OFFSET as usize;
    let mut block = vec![0u8; BLOCK_SIZE as usize];
    let mut fill = |raw: &RawSuperBlock| {
        block[START..START + size_of::<RawSuperBlock>()].copy_from_slice(raw.as_bytes());
        superblock::checksum(&block).unwrap_or(0)
    };
    fill(&raw);
    // The hash covers the data, the metadata and this superblock without UUID and checksum.
    out.write_at(SUPER_OFFSET, raw.as_bytes())?;
    raw.uuid = out.uuid();
    raw.checksum = fill(&raw).into();
    fill(&raw);
    out.write_at(0, &block)?;
    Ok(raw.uuid)
}
