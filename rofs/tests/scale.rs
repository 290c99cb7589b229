//! Large directories, large files, and how little an image costs to open.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::{ALL, assert_same, build_dir, fsck, open, sparse_file};
use rofs::{ExtentKind, Follow};

#[test]
fn directory_of_100_000_entries() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir_all(src.join("dir")).unwrap();
    fs::write(src.join("origin"), "x").unwrap();
    for number in 0..100_000 {
        // Hard links: one inode on the host, and a link count above 16 bits in the image.
        let name = src.join(format!("dir/entry {number}"));
        if number % 2 == 0 || fs::hard_link(src.join("origin"), &name).is_err() {
            fs::write(&name, "").unwrap();
        }
    }
    build_dir(&src, &out);
    let image = open(&out);
    let reader = image.reader();
    assert_eq!(rofs::verify(&reader), []);
    let dir = reader.walk(b"dir", Follow::No).unwrap();
    assert_eq!(reader.read_dir(&dir, 0).unwrap().count(), 100_002);
    for number in (0..100_000).step_by(37) {
        let name = format!("entry {number}");
        assert!(reader.lookup(&dir, name.as_bytes()).unwrap().is_some(), "{name}");
        assert!(reader.lookup(&dir, format!("{name}x").as_bytes()).unwrap().is_none());
    }
    fsck(&out);
}

#[test]
fn files_over_4_gib() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    let marks = [0, (4 << 30) - 50, 5 << 30, (6 << 30) + 12_345];
    sparse_file(&src.join("big"), (6 << 30) + 20_000, &marks);
    // One terabyte of nothing.
    sparse_file(&src.join("huge"), 1 << 40, &[]);
    let summary = build_dir(&src, &out);
    assert!(summary.image_bytes < 4 << 20, "{summary:?}");
    let image = open(&out);
    let reader = image.reader();
    assert_eq!(rofs::verify(&reader), []);
    let big = reader.walk(b"big", Follow::No).unwrap();
    assert_eq!(big.size, (6 << 30) + 20_000);
    let host = fs::File::open(src.join("big")).unwrap();
    for mark in marks {
        let (mut expected, mut actual) = ([0; 4096], [0; 4096]);
        host.read_exact_at(&mut expected, mark.saturating_sub(1000)).unwrap();
        assert_eq!(reader.read_at(&big, mark.saturating_sub(1000), &mut actual).unwrap(), 4096);
        assert_eq!(expected, actual);
    }
    let extents: Vec<_> = reader.extents(&big, 0..u64::MAX).map(Result::unwrap).collect();
    assert!(extents.len() < 16, "{extents:?}");
    assert_eq!(extents.iter().map(|extent| extent.len).sum::<u64>(), big.size);
    let huge = reader.walk(b"huge", Follow::No).unwrap();
    let extents: Vec<_> = reader.extents(&huge, 0..u64::MAX).map(Result::unwrap).collect();
    assert!(matches!(extents[..], [extent] if extent.kind == ExtentKind::Hole && extent.len == 1 << 40));
}

#[test]
fn data_is_aligned_contiguous_and_mappable() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    // A library with a few pages of zeros inside must stay one mapping.
    let mut library = common::noise(1_000_001);
    library[200_000..330_000].fill(0);
    fs::write(src.join("library"), &library).unwrap();
    build_dir(&src, &out);
    let image = open(&out);
    let reader = image.reader();
    let file = reader.walk(b"library", Follow::No).unwrap();
    let extents: Vec<_> = reader.extents(&file, 0..file.size).map(Result::unwrap).collect();
    let [data, tail] = extents[..] else { panic!("{extents:?}") };
    assert!(matches!(data.kind, ExtentKind::Data { image_offset } if image_offset % 4096 == 0));
    assert_eq!(data.len, 1_000_001 / 4096 * 4096);
    assert!(matches!(tail.kind, ExtentKind::Tail { image_offset } if image_offset % 4096 == 0));
    assert!(reader.tail_is_mappable(&tail));
    assert_same(&reader, &src, ALL);
}
