//! The ROFS reader on arbitrary bytes: no panic, an end in bounded time.
//!
//! The input is a patch for a small image: the first 128 bytes replace the superblock's fields behind its magic number,
//! the rest becomes the metadata. Without that, nearly all inputs would fail at the magic number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rofs::{Follow, Reader};

const BLOCK: usize = 4096;
const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();

fuzz_target!(|input: &[u8]| {
    exercise(input);
    exercise(&image(input));
});

/// Wraps `input` in a superblock that is accepted: block 0, then the input as metadata.
fn image(input: &[u8]) -> Vec<u8> {
    let blocks = 1 + input.len().div_ceil(BLOCK).max(1);
    let mut bytes = vec![0; blocks * BLOCK];
    bytes[BLOCK..BLOCK + input.len()].copy_from_slice(input);
    bytes[1024..1028].copy_from_slice(&MAGIC);
    bytes[1036] = 12;
    // Root nid 0, metadata and shared xattrs from block 1.
    bytes[1060..1064].copy_from_slice(&(blocks as u32).to_le_bytes());
    bytes[1064..1068].copy_from_slice(&1u32.to_le_bytes());
    bytes[1068..1072].copy_from_slice(&1u32.to_le_bytes());
    bytes
}

fn exercise(bytes: &[u8]) {
    let Ok(reader) = Reader::open(bytes) else { return };
    let _ = rofs::verify(&reader);
    let _ = reader.walk(b"a/b/../c", Follow::Yes);
    let mut buf = [0; 5000];
    for nid in 0..64 {
        let Ok(inode) = reader.inode(nid) else { continue };
        let _ = reader.read_at(&inode, inode.size / 2, &mut buf);
        for extent in reader.extents(&inode, 0..u64::MAX).take(100).flatten() {
            assert!(extent.len > 0 && extent.offset < inode.size);
            let _ = reader.extent_bytes(&extent);
            let _ = reader.tail_is_mappable(&extent);
        }
        let _ = reader.readlink(&inode);
        let _ = reader.xattr(&inode, b"user.a");
        let _ = reader.lookup(&inode, b"a");
        let _ = reader.read_dir(&inode, 12).map(|entries| entries.take(100).count());
    }
}
